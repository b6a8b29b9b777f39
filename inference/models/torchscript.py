"""A TorchScript network with its sidecar: its graph is checked before it is loaded or run.

A `.pt` or `.ts` file, or a folder with one. TorchScript is code; unless the model is trusted, the
static check of `torchscript_policy` comes first. What goes in and out: `[options]` of the sidecar
(inference/arrays/options.py, deploy/models/README.md).
"""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inference import archives, torchscript_policy
from inference.arrays import arithmetic, proposals
from inference.arrays.model import ArrayModel
from inference.arrays.options import check as check_options
from inference.arrays.options import parse
from inference.arrays.running import Function, Network, Runner, at_once
from inference.engine import device as engine_device
from inference.engine.device import Device
from inference.errors import ModelRefused
from inference.models import Artifact, Model

VERSION = "1.0.0"
SUFFIXES = (".pt", ".ts")


def propose(path: Path) -> Mapping[str, Any] | None:
    """The sidecar's tables for a TorchScript file, or a folder with one."""
    name = proposals.file_in(path, SUFFIXES, is_torchscript)
    return None if name is None else proposals.tables(path, name, what="TorchScript")


def check(artifact: Artifact) -> None:
    """See `arrays.options.check`."""
    check_options(artifact.description)


def lacking(artifact: Artifact) -> tuple[str, ...]:
    """Nothing: torch runs it."""
    del artifact
    return ()


def load(settings: Mapping[str, object], artifact: Artifact) -> Model:
    """The network, checked and loaded on the device that the node chose."""
    del settings
    options = parse(artifact.description)
    name = proposals.named(artifact.files, options.file)
    device, description = engine_device.choose(artifact.device), artifact.description
    network = Network(_function(artifact, name, device), options.output.take)
    dimensions = description.dimensions - options.input.slicewise
    choice = arithmetic.chosen(network, options, description, device)
    locator = None
    if options.locate is not None:
        coarse = Network(_function(artifact, options.locate.file, device), options.output.take)
        locator = Runner(coarse, at_once(options), description.dimensions, device)
    return ArrayModel(
        requirements=artifact.requirements,
        description=description,
        options=options,
        network=Runner(network, options, dimensions, device, choice),
        locator=locator,
    )


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with code, as torch.jit.save writes; reads the names in it."""
    return any("/code/" in name for name in archives.names(path))


def _function(artifact: Artifact, name: str, device: Device) -> Function:
    content = artifact.files.read(name)
    if not artifact.trusted:
        torchscript_policy.check(content)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch 2.13
        try:
            module = torch.jit.load(io.BytesIO(content), map_location=device.torch)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if engine_device.is_exhausted(error):
                raise
            wrong = f"{artifact.files.path.name}: {name} does not load as TorchScript"
            raise ModelRefused(wrong) from error
    function: Function = module.eval()
    return function
