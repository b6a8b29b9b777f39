"""ONNX networks with a sidecar, from the bytes of the file to findings on the image's grid.

What both kinds share is tested with TorchScript (test_bare_masks.py ...). The files are written
here, operator by operator, so that no exporter is needed. Not covered: the GPU's provider.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inference import regions
from inference.errors import ModelRefused
from inference.models import onnx
from service import model_add
from tests.array_models import artifact, label, oblique

FLOAT, STRINGS = 1, 8

installed = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="onnxruntime is not installed: pip install 'hounsfield[onnx]'",
)


def varint(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + varint(rest) if rest else bytes([head])


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protocol buffer message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def node(operator: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    """NodeProto."""
    names = b"".join(field(1, name) for name in inputs)
    return field(1, names + field(2, output) + field(4, operator) + attributes)


def value(number: int, name: str, *, rank: int, kind: int = FLOAT) -> bytes:
    """ValueInfoProto of a tensor whose sizes are free."""
    shape = b"".join(field(1, field(2, f"{name}{axis}")) for axis in range(rank))
    tensor = field(1, kind) + field(2, shape)
    return field(number, field(1, name) + field(2, field(1, tensor)))


def tensor(name: str, number: float) -> bytes:
    """TensorProto of one float."""
    return field(5, field(2, FLOAT) + field(8, name) + field(9, np.float32(number).tobytes()))


def model(graph: bytes, opset: int = 17) -> bytes:
    """ModelProto."""
    return field(1, 8) + field(7, graph + field(2, "graph")) + field(8, field(2, opset))


def bright(kind: int = FLOAT) -> bytes:
    """x -> `scores`: 300 and x; and `double`: x + x."""
    axis = field(5, field(1, "axis") + field(3, 1) + field(20, 2))
    return model(
        node("Sub", ["x", "x"], "zero")
        + node("Add", ["zero", "level"], "flat")
        + node("Concat", ["flat", "x"], "scores", axis)
        + node("Add", ["x", "x"], "double")
        + tensor("level", 300.0)
        + value(11, "x", rank=5, kind=kind)
        + value(12, "scores", rank=5)
        + value(12, "double", rank=5)
    )


@installed
def test_the_mask_is_on_the_grid_of_the_image(tmp_path: Path) -> None:
    file, seen = tmp_path / "net.onnx", oblique()
    file.write_bytes(bright())
    options = {"input": {"orientation": "RAS"}, "output": {"activation": "softmax"}}
    loaded = onnx.load({}, artifact(file, [label(1, "Bright")], options=options))
    (segment,) = loaded.predict(seen).segments
    mask = regions.on_grid(segment.mask, seen.volume).whole()
    assert np.array_equal(mask, seen.volume.array > 300)
    assert str(loaded.predict(seen).computed) == "float32 on cpu"


def test_where_it_runs_is_what_the_session_has_and_not_what_was_wished_for() -> None:
    """A runtime for processors alone, on a machine with a GPU, computes on the processor."""
    assert onnx._place([onnx.CPU]) == "cpu"
    assert onnx._place([onnx.CUDA, onnx.CPU]) == "cuda"
    assert onnx.PROVIDERS["cuda"][onnx.CUDA]["use_tf32"] == "0"


@installed
def test_an_output_by_its_name_and_windows(tmp_path: Path) -> None:
    file, seen = tmp_path / "net.onnx", oblique()
    file.write_bytes(bright())
    options = {
        "output": {"take": "double", "activation": "sigmoid"},
        "window": {"size": [16, 16, 16], "weight": "constant"},
        "input": {"multiply": 0.01, "add": -3.005},
    }
    made = artifact(file, [label(0, "Bright")], options=options, overlapping=True)
    (segment,) = onnx.load({}, made).predict(seen).segments
    mask = regions.on_grid(segment.mask, seen.volume).whole()
    assert np.array_equal(mask, seen.volume.array > 300)


@installed
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no model", "net.onnx does not load as ONNX: "),
        (bright(STRINGS), "net.onnx"),
        (bright() + b"\x0a\x08location\x12\x08data.bin", "keeps weights in other files; allowed"),
        (bright() + b"\x12\x08data.bin\x0a\x08location\x70\x01", "keeps weights in other files"),
        (bright() + b"\x0a\x88\x00location\x12\x08data.bin", "keeps weights in other files"),
        (bright() + b"\x8a\x00\x88\x80\x00location\x12\x01d", "keeps weights in other files"),
    ],
)
def test_files_that_cannot_be_run_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(content)
    with pytest.raises(ModelRefused, match=words) as refused:
        onnx.load({}, artifact(file, [label(1, "One")]))
    assert "\n" not in str(refused.value)


@installed
def test_the_runtime_keeps_no_record_of_its_use_and_says_nothing(tmp_path: Path) -> None:
    """Without the order not to, it writes an identifier of the machine for its reports."""
    (tmp_path / "home").mkdir()
    (tmp_path / "net.onnx").write_bytes(bright())
    program = (
        "from pathlib import Path; from inference.models import onnx; "
        "onnx._session(Path('net.onnx').read_bytes(), '', 'cpu')"
    )
    environment = {"HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert (ran.stdout, ran.stderr) == (b"", b"")
    assert not list((tmp_path / "home").iterdir())


def test_without_the_runtime_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(bright())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(ModelRefused, match=r"pip install 'hounsfield\[onnx\]'") as refused:
        onnx.load({}, artifact(file, [label(1, "One")]))
    assert "\n" not in str(refused.value)


def test_it_is_proposed_for_its_files(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(bright())
    assert model_add.proposal(file)[0] == "onnx"
    assert onnx.propose(tmp_path / "net.onnx") == model_add.proposal(file)[1]
