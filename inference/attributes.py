"""An attribute of a data set is read or absent: a damaged one never raises, nothing is written.

Also the rim where bytes become a data set, the only place that knows what parsers raise.
"""

import math
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from inference.errors import InputRefused

# What third-party parsers raise on a damaged data set; nothing here is ours.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,  # with RecursionError: sequences nested too deeply
    TypeError,
    ValueError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)


DEFER_BYTES = 65_536  # longer values of a file given by path stay in it until they are asked for


def parse(source: Path | BinaryIO) -> Dataset:
    """A Part 10 file (PS3.10 7) as a data set; raises InputRefused when it cannot be one.

    Of a path, the pixel data stay in the file, so that a stack is read a slice at a time.
    """
    defer = DEFER_BYTES if isinstance(source, Path) else None
    with warnings.catch_warnings(action="ignore"):  # their texts may quote the patient
        try:
            return pydicom.dcmread(source, defer_size=defer)
        except UNREADABLE as error:
            raise InputRefused(f"not a readable DICOM file: {type(error).__name__}") from error


def value(dataset: Dataset, keyword: str) -> Any:
    """An element's value, None when absent, empty or unreadable."""
    try:
        found = dataset.get(keyword)
    except UNREADABLE:
        return None
    return None if found is None or found == "" else found


def text(dataset: Dataset, keyword: str) -> str | None:
    """An element's value as one string, None when absent or empty."""
    found = value(dataset, keyword)
    if isinstance(found, MultiValue):
        return "\\".join(map(str, found)) or None
    return None if found is None else str(found).strip() or None


def number(dataset: Dataset, keyword: str) -> float | None:
    """An element's value as a finite number, None when it is not one."""
    found = numbers(dataset, keyword, 1)
    return found[0] if found else None


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """An element's `count` finite numbers, None when it holds anything else."""
    found = value(dataset, keyword)
    items = list(found) if isinstance(found, MultiValue) else [found]
    try:
        parsed = tuple(float(item) for item in items)
    except (TypeError, ValueError):
        return None
    return parsed if len(parsed) == count and all(map(math.isfinite, parsed)) else None


def values(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """An element's values as upper-case strings; one empty string when absent."""
    return tuple(item.strip().upper() for item in (text(dataset, keyword) or "").split("\\"))


PIXELS = Tag(0x7FE00000)


def header(dataset: Dataset) -> Dataset:
    """The data set up to its pixel data, elements shared, nothing read or converted.

    Values that were deferred, being large, are left out.
    """
    tags = [tag for tag in dataset.keys() if tag < PIXELS]  # noqa: SIM118  (iterating converts)
    elements = {tag: dataset.get_item(tag, keep_deferred=True) for tag in tags}
    start = Dataset({tag: one for tag, one in elements.items() if not _deferred(one)})
    implicit, little = dataset.original_encoding
    start.set_original_encoding(implicit, little, dataset.original_character_set)
    if hasattr(dataset, "file_meta"):
        start.file_meta = dataset.file_meta
    return start


def _deferred(element: DataElement | RawDataElement) -> bool:
    return isinstance(element, RawDataElement) and element.value is None and element.length > 0
