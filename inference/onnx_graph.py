"""What an ONNX file says of the arrays that go in and come out; nothing of it is loaded or run.

ONNX is a protocol buffer (onnx.proto3): ModelProto.graph = 7, GraphProto.input = 11 and output =
12, ValueInfoProto.type = 2, TypeProto.tensor_type = 1, its shape = 2, TensorShapeProto.dim = 1 and
its dim_value = 1. Weights are stepped over, so that little of a large file is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MOST_FIELDS = 100_000  # that are stepped over
MOST_AXES = 16
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # wire types
LONGEST_VARINT = 10  # bytes

Shape = tuple[int | None, ...]
Span = tuple[int, int]
"""Where a message begins in the file, and where it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Shapes in the file's order, axes (batch, channel, *space); None: an axis of any length."""

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def read(path: Path) -> Graph | None:
    """The shapes that a file states; None when it cannot be read as ONNX."""
    try:
        with path.open("rb") as file:
            return _Reader(file, path.stat().st_size).graph()
    except ValueError:
        return None


class _Reader:
    """Steps through the fields of messages; ValueError where there are none."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._whole = (0, size)
        self._left = MOST_FIELDS

    def graph(self) -> Graph:
        inputs: list[Shape] = []
        outputs: list[Shape] = []
        for graph in self._spans(self._whole, 7):
            for number, value in self._fields(graph):
                if number in (11, 12) and isinstance(value, tuple):
                    (inputs if number == 11 else outputs).append(self._shape(value))
        return Graph(inputs=tuple(inputs), outputs=tuple(outputs))

    def _shape(self, value: Span) -> Shape:
        spans = [value]
        for number in (2, 1, 2, 1):  # type, tensor_type, shape, dim
            spans = [inside for span in spans for inside in self._spans(span, number)]
        if len(spans) > MOST_AXES:
            raise ValueError("too many axes")
        return tuple(self._length(span) for span in spans)

    def _length(self, dimension: Span) -> int | None:
        for number, value in self._fields(dimension):
            if number == 1 and isinstance(value, int):
                return value
        return None

    def _spans(self, message: Span, wanted: int) -> list[Span]:
        return [
            value
            for number, value in self._fields(message)
            if number == wanted and isinstance(value, tuple)
        ]

    def _fields(self, message: Span) -> Iterator[tuple[int, int | Span]]:
        place, end = message
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("too many fields")
            self._file.seek(place)
            tag = self._varint()
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value = self._varint()
                place = self._file.tell()
                yield number, value
            elif wire == BYTES:
                length = self._varint()
                start = self._file.tell()
                place = start + length
                if place > end:
                    raise ValueError("a field is longer than its message")
                yield number, (start, place)
            elif wire in (EIGHT, FOUR):
                place = self._file.tell() + (8 if wire == EIGHT else 4)
            else:
                raise ValueError("no protocol buffer")

    def _varint(self) -> int:
        value = 0
        for step in range(LONGEST_VARINT):
            byte = self._file.read(1)
            if not byte:
                raise ValueError("it ends within a field")
            value |= (byte[0] & 0x7F) << (7 * step)
            if byte[0] < 0x80:
                return value
        raise ValueError("a number without an end")
