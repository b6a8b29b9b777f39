"""An ONNX network with its sidecar, run by onnxruntime, which is an optional part of the node.

An `.onnx` file, or a folder with one; every weight inside it. ONNX is data: operators are those of
the runtime, and none is loaded from elsewhere. What goes in and out: `[options]` of the sidecar
(inference/arrays/options.py, deploy/models/README.md).
"""

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference import onnx_graph
from inference.arrays import proposals
from inference.arrays.model import ArrayModel
from inference.arrays.options import check as check_options
from inference.arrays.options import parse
from inference.arrays.running import Function, Network, Runner, at_once
from inference.engine import device
from inference.errors import ModelRefused
from inference.findings import Computation
from inference.models import Artifact, Model

VERSION = "1.0.0"
SUFFIXES = (".onnx",)
MISSING = (
    "ONNX models need onnxruntime, which is not installed: pip install 'hounsfield[onnx]', or "
    "onnxruntime-gpu on a machine with a GPU"
)
EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
"""A tensor's StringStringEntryProto.key = "location", however its tag and length are written."""
ALLOCATION = "Failed to allocate memory"  # onnxruntime's words
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Read by onnxruntime (1.31) while it is imported, which else tells its maker of its use."""
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
PROVIDERS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "cuda": {CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}, CPU: {}},
    "cpu": {CPU: {}},
}
"""With options: float32 is float32, and no algorithm is chosen by a clock."""
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def propose(path: Path) -> Mapping[str, Any] | None:
    """The sidecar's tables for an ONNX file, or a folder with one."""
    name = proposals.file_in(path, SUFFIXES)
    if name is None:
        return None
    graph = onnx_graph.read(path / name if path.is_dir() else path)
    takes = graph.inputs[0] if graph and graph.inputs else ()
    gives = graph.outputs[0] if graph and graph.outputs else ()
    return proposals.tables(path, name, what="ONNX network", takes=takes, gives=gives)


def check(artifact: Artifact) -> None:
    """See `arrays.options.check`."""
    check_options(artifact.description)


def lacking(artifact: Artifact) -> tuple[str, ...]:
    """The runtime, where it is not installed."""
    del artifact
    try:
        _runtime()
    except ModelRefused as refusal:
        return (str(refusal),)
    return ()


def load(settings: Mapping[str, object], artifact: Artifact) -> Model:
    """The network in a session of onnxruntime, on the device that the node chose, if it can."""
    del settings
    options = parse(artifact.description)
    name = proposals.named(artifact.files, options.file)
    description, host = artifact.description, device.Cpu()  # (the runtime takes arrays of the host)
    function, computed = _function(artifact, name)
    network = Network(function, options.output.take)
    locator = None
    if options.locate is not None:
        coarse = Network(_function(artifact, options.locate.file)[0], options.output.take)
        locator = Runner(coarse, at_once(options), description.dimensions, host)
    dimensions = description.dimensions - options.input.slicewise
    return ArrayModel(
        requirements=artifact.requirements,
        description=description,
        options=options,
        network=Runner(network, options, dimensions, host, own=computed),
        locator=locator,
    )


def _function(artifact: Artifact, name: str) -> tuple[Function, Computation]:
    """A session as a function of a tensor, outputs by name in their order; and how it computes."""
    content, where = artifact.files.read(name), f"{artifact.files.path.name}: {name}"
    if EXTERNAL.search(content):
        raise ModelRefused(f"{where} keeps weights in other files; allowed: all in one file")
    session = _session(content, where, device.choose(artifact.device).torch.type)
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in DTYPES:
        found = ", ".join(f"{one.name} {one.type}" for one in inputs)
        raise ModelRefused(f"{where} wants {found}; allowed: one input of floats")
    names = [one.name for one in session.get_outputs()]
    wanted, dtype = inputs[0].name, DTYPES[inputs[0].type]

    def function(batch: Tensor) -> dict[str, Tensor]:
        try:
            arrays = session.run(names, {wanted: batch.numpy().astype(dtype)})
        except Exception as error:  # (the runtime's own kinds, none of them public)
            if ALLOCATION in str(error):
                raise MemoryError(ALLOCATION) from error
            raise
        tensors = (torch.from_numpy(np.asarray(array)) for array in arrays)
        return dict(zip(names, tensors, strict=True))

    return function, Computation(arithmetic=dtype.__name__, device=_place(session.get_providers()))


def _place(providers: Sequence[str]) -> str:
    """Of those that a session has; one that was wished for may not have come up."""
    return "cuda" if CUDA in providers else "cpu"


def _session(content: bytes, where: str, kind: str) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.use_deterministic_compute = True
    options.intra_op_num_threads = torch.get_num_threads()
    available = runtime.get_available_providers()
    providers = [(name, {**said}) for name, said in PROVIDERS[kind].items() if name in available]
    try:
        return runtime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # (the runtime's own kinds, none of them public)
        said = " ".join(str(error).split())[:200]
        raise ModelRefused(f"{where} does not load as ONNX: {said}") from error


def _runtime() -> Any:
    os.environ[NO_TELEMETRY] = "1"
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ModelRefused(MISSING) from error
