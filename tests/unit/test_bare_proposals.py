"""What `--add` proposes for a bare network: as many labels as its file says that it has channels.

The ONNX files are written here, field by field. Not covered: networks that are run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inference import onnx_graph
from inference.models import onnx, torchscript
from service import cli, model_add, sidecar
from service.validation import Place
from tests.array_models import scripted
from tests.bare_networks import Bright
from tests.unit.test_onnx_model import FLOAT, bright, field, model, node

Axes = Sequence[int | str]


def value(number: int, name: str, axes: Axes) -> bytes:
    """ValueInfoProto; an axis by its length or its name."""
    dims = (field(1, field(1 if isinstance(axis, int) else 2, axis)) for axis in axes)
    tensor = field(1, FLOAT) + field(2, b"".join(dims))
    return field(number, field(1, name) + field(2, field(1, tensor)))


def network(folder: Path, takes: Axes, *gives: Axes) -> Path:
    file = folder / "net.onnx"
    outputs = b"".join(value(12, f"y{index}", axes) for index, axes in enumerate(gives))
    file.write_bytes(model(node("Relu", ["x"], "y0") + value(11, "x", takes) + outputs))
    return file


def proposed(file: Path) -> dict[str, Any]:
    """The tables, which a sidecar with its files accepts."""
    kind, tables = model_add.proposal(file)
    plain = model_add.drafted(file, tables).unwrap()
    sidecar.parse(plain, Place(file=file))
    assert kind == "onnx"
    return {**plain, "comments": tables["comments"]}


def values(tables: dict[str, Any]) -> list[int]:
    return [label["value"] for label in tables["labels"]]


def test_shapes_are_read_from_the_file(tmp_path: Path) -> None:
    file = network(tmp_path, ("batch", 1, 64, 64, 64), (1, 4, 64, 64, 64), (1, 7))
    assert onnx_graph.read(file) == onnx_graph.Graph(
        inputs=((None, 1, 64, 64, 64),), outputs=((1, 4, 64, 64, 64), (1, 7))
    )


def test_a_label_for_each_channel_but_the_background(tmp_path: Path) -> None:
    tables = proposed(network(tmp_path, ("b", 1, "z", "y", "x"), ("b", 4, "z", "y", "x")))
    assert values(tables) == [1, 2, 3]
    assert (tables["task"], tables["output"]["overlapping"]) == ("segmentation", False)
    assert "gives 4 channels" in tables["comments"][0]


def test_one_channel_is_one_label(tmp_path: Path) -> None:
    tables = proposed(network(tmp_path, ("b", 1, 9, 9, 9), ("b", 1, 9, 9, 9)))
    assert (values(tables), tables["output"]["overlapping"]) == ([0], True)


def test_a_network_for_colour_images(tmp_path: Path) -> None:
    tables = proposed(network(tmp_path, ("b", 3, 224, 224), ("b", 2, 224, 224)))
    assert (tables["input"]["dimensions"], tables["options"]["input"]["channels"]) == (2, 3)
    assert any("slicewise = true" in line for line in tables["comments"])


def test_a_vector_is_classes(tmp_path: Path) -> None:
    tables = proposed(network(tmp_path, ("b", 1, 224, 224), ("b", 14)))
    assert (tables["task"], len(values(tables))) == ("classification", 14)
    assert all(label["question"][1] == "99LOCAL" for label in tables["labels"])


@pytest.mark.parametrize("gives", [("b", "c", 9, 9, 9), ("b",), (), ("b", 10_000, 9, 9, 9)])
def test_what_is_not_stated_is_left_to_a_person(gives: Axes, tmp_path: Path) -> None:
    tables = proposed(network(tmp_path, ("b", 1, 9, 9, 9), gives))
    assert values(tables) == [1]
    assert "is not known before it runs" in tables["comments"][0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model",
        b"\x3a\xff\xff\xff\xff\x0f",  # longer than the file
        b"\x08" + b"\xff" * 20,  # a number without an end
        field(7, b"\x0d") * 200_000,  # fields without an end
        field(7, field(12, field(2, field(1, field(2, field(1, b"") * 99))))),
        bright()[:-3],
    ],
)
def test_a_file_that_is_damaged_or_hostile_has_no_shapes(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(content)
    found = onnx_graph.read(file)
    assert found is None or found.outputs == ()
    assert onnx.propose(file) is not None


def test_weights_are_stepped_over(tmp_path: Path) -> None:
    file = network(tmp_path, ("b", 1, 9, 9, 9), ("b", 5, 9, 9, 9))
    graph = file.read_bytes()
    with file.open("wb") as opened:  # a gigabyte that takes no disk
        opened.write(b"\x3a" + varint_of(1 << 30) + b"\x2a" + varint_of((1 << 30) - 6))
        opened.seek(opened.tell() + (1 << 30) - 6)
        opened.write(graph)
    found = onnx_graph.read(file)
    assert found is not None
    assert found.outputs == ((None, 5, 9, 9, 9),)


def varint_of(number: int) -> bytes:
    """Five bytes, whatever the number."""
    head = bytes((number >> 7 * step) & 0x7F | 0x80 for step in range(4))
    return head + bytes([number >> 28])


def test_of_torchscript_the_sidecar_says_what_to_fill_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scripted(Bright(), tmp_path / "net.pt")
    assert cli.main(["models", "any", "--add", str(file)]) == 0
    assert "warning: it is to be completed where it says EDIT:" in capsys.readouterr().out
    text = sidecar.path_of(file).read_text()
    assert "# EDIT: How many channels the network gives is not known before it runs" in text
    assert all(len(line) <= 100 for line in text.splitlines() if line.startswith("#"))
    described = torchscript.propose(file)
    assert described is not None
    assert "comments" not in text
