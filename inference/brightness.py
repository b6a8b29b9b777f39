"""Stored pixels of a planar image to values of which the larger is the brighter, or to RGB.

Rules:

- Greyscale goes through the Modality LUT (PS3.3 C.11.1: table, or slope and intercept) and no
  further: VOI LUT and window are how somebody wanted to look at it and are not applied.
- MONOCHROME1 is turned within the range that its values can have: lowest + highest - value.
- Padding (C.7.5.1.1.2) becomes the darkest value that is not padding.
- Colour becomes RGB of 8 bits a sample; padding is not asked for (it is greyscale's alone).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from inference import pixels
from inference.attributes import UNREADABLE, number, value
from inference.errors import DecodeError
from inference.pictures import PALETTE, TRUE_COLOUR, Picture
from inference.pixels import Stored

Grey = NDArray[np.int16] | NDArray[np.float32]
Pixels = Grey | NDArray[np.uint8]
Range = tuple[float, float]
INT16 = np.iinfo(np.int16)


def frames(picture: Picture, indices: Sequence[int]) -> Iterator[Pixels]:
    """These frames (from 0), each decoded when it is asked for.

    (row, column) of int16 or float32, or (row, column, 3) of uint8 RGB.
    Raises DecodeError when the pixel data cannot be decoded or the Modality LUT cannot be read.
    """
    pixels.check_length(picture.dataset, picture.name)
    if picture.photometric in TRUE_COLOUR:
        for colour in pixels.coloured(picture.dataset, indices):
            _check_shape(picture, colour.shape[:2])
            yield colour
        return
    for stored in pixels.stored(picture.dataset, indices):
        _check_shape(picture, stored.shape)
        if picture.photometric == PALETTE:
            yield pixels.palette(picture.dataset, stored)
        else:
            yield grey(picture, stored)


def grey(picture: Picture, stored: Stored) -> Grey:
    """One frame of stored pixels after the Modality LUT, larger is brighter, padding darkest."""
    values, limits = _modality_lut(picture.dataset, stored)
    if picture.photometric == "MONOCHROME1":
        values = limits[0] + limits[1] - values
    padding = pixels.padding_range(picture.dataset)
    if padding is not None:
        outside = (stored >= padding[0]) & (stored <= padding[1])
        if outside.any() and not outside.all():
            values[outside] = values[~outside].min()
    return _smallest(values)


def _check_shape(picture: Picture, shape: tuple[int, ...]) -> None:
    if shape != (picture.rows, picture.columns):
        raise DecodeError(f"{picture.name}: decoded to {shape}, stated {picture.rows} rows")


def _modality_lut(dataset: Dataset, stored: Stored) -> tuple[NDArray[np.float64], Range]:
    """Values and the lowest and highest that they can be."""
    table = value(dataset, "ModalityLUTSequence")
    if isinstance(table, pydicom.Sequence) and len(table):
        return _looked_up(table[0], dataset, stored)
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    slope = 1.0 if slope is None else slope
    intercept = 0.0 if intercept is None else intercept
    if slope == 0:
        raise DecodeError("Rescale Slope is 0")
    first, last = (slope * limit + intercept for limit in _stored_range(dataset))
    return stored * np.float64(slope) + intercept, (min(first, last), max(first, last))


def _stored_range(dataset: Dataset) -> tuple[int, int]:
    """What Bits Stored and Pixel Representation allow."""
    bits = int(number(dataset, "BitsStored") or number(dataset, "BitsAllocated") or 16)
    if number(dataset, "PixelRepresentation") == 1:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _looked_up(
    table: Dataset, dataset: Dataset, stored: Stored
) -> tuple[NDArray[np.float64], Range]:
    try:
        entries, first = _entries(table, dataset)
        values = entries[np.clip(stored.astype(np.int64) - first, 0, len(entries) - 1)]
    except UNREADABLE as error:
        raise DecodeError("the Modality LUT cannot be read") from error
    return values, (float(entries.min()), float(entries.max()))


def _entries(table: Dataset, dataset: Dataset) -> tuple[NDArray[np.float64], int]:
    """The table (PS3.3 C.11.1.1) and the stored value of its first entry."""
    count, first, _ = (int(item) for item in table.LUTDescriptor)
    signed = number(dataset, "PixelRepresentation") == 1
    start = first - (1 << 16) if signed and first >= 1 << 15 else first
    data = table.LUTData
    order = "<u2" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">u2"
    words = np.frombuffer(data, order) if isinstance(data, bytes) else np.asarray(data)
    wanted = (count & 0xFFFF) or 1 << 16
    if len(words) < wanted:
        raise ValueError(f"{len(words)} entries of {wanted}")
    return words[:wanted].astype(np.float64), start


def _smallest(values: NDArray[np.float64]) -> Grey:
    """int16 when every value is a whole number that fits, else float32."""
    if values.min() >= INT16.min and values.max() <= INT16.max:
        whole = values.astype(np.int16)
        if np.array_equal(whole, values):
            return whole
    return values.astype(np.float32)
