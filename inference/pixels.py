"""Stored pixels to values with their unit and the mask of padding, a slice at a time, or refusal.

Rules:

- Value = slope x stored + intercept of the slice itself (Modality LUT, PS3.3 C.11.1). CT without
  them, or with a Rescale Type that is not Hounsfield units, is refused; other modalities take 1
  and 0.
- MONOCHROME1 is never inverted here: it is how to show a slice, not what its values mean. (It is
  in `brightness`, for planar images, whose values have no unit.)
- Padding is what equals Pixel Padding Value, or lies between it and Pixel Padding Range Limit
  (PS3.3 C.7.5.1.1.2), and in CT whatever means -2000 HU or less, declared or not. It becomes
  -1024 HU in CT and 0 elsewhere. A declared padding that would mean tissue (above -900 HU and up
  to 3071 HU) is not believed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.tag import Tag
from pydicom.uid import UID, JPEGExtended12Bit

from inference import decoding, jpeg_extended
from inference.attributes import UNREADABLE, number, text, value
from inference.errors import DecodeError, InputRefused
from inference.frames import Frame

Stored = NDArray[np.integer[Any]]
Values = NDArray[np.int32] | NDArray[np.float32]
Mask = NDArray[np.bool_]

NEWER_SYNTAXES = {"1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression"}  # 2025a
CT_AIR = -1024
CT_NOT_MEASURED = -2000  # HU: no scanner measures so little
CT_TISSUE = (-900.0, 3071.0)  # HU
HOUNSFIELD_TYPES = (None, "HU", "US", "HU_MOD")  # US: unspecified, what many scanners write
LARGEST_RATIO = 10_000  # uncompressed to compressed bytes; an empty JPEG 2000 frame stays below
MOST_VOXELS = 2**31
EIGHT_BITS = 2**8

PIXEL_DATA = Tag("PixelData")
IMAGE_PIXEL = slice(Tag(0x00280000), Tag(0x00290000))  # group 0028: Image Pixel and Modality LUT
OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Values of a slice, (rows, columns), and where the scanner had no data."""

    values: Values
    padding: Mask | None


def check_size(frames: Sequence[Frame]) -> None:
    """Refuse sizes that the pixel data cannot hold, before anything is allocated."""
    voxels = len(frames) * frames[0].rows * frames[0].columns
    if voxels > MOST_VOXELS:
        raise InputRefused(f"{voxels} voxels; at most {MOST_VOXELS} are read")
    per_dataset = {id(frame.dataset): frame for frame in frames}
    for frame in per_dataset.values():
        check_length(frame.dataset, frame.name)


def check_length(dataset: Dataset, name: str) -> None:
    """Refuse what the pixel data of one instance, which `name` calls so, cannot hold."""
    stated = int(number(dataset, "NumberOfFrames") or 1)
    rows, columns = (int(number(dataset, side) or 0) for side in ("Rows", "Columns"))
    bits = number(dataset, "BitsAllocated") or 0
    if bits not in (8, 16, 32):
        raise DecodeError(f"{name}: {bits:.0f} bits allocated; 8, 16 and 32 are read")
    wanted = stated * rows * columns * _samples(dataset) * bits / 8
    length = _length(dataset)
    compressed = _decoder(dataset).is_encapsulated
    if wanted > length * (LARGEST_RATIO if compressed else 1):
        raise DecodeError(
            f"{name}: {stated} x {rows} x {columns} pixels of {bits:.0f} bits "
            f"cannot come from {length} bytes of pixel data"
        )


def _samples(dataset: Dataset) -> int:
    """Of each stored pixel; colour at half the width (PS3.3 C.7.6.3.1.2) makes two of three."""
    if text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        return 2
    return int(number(dataset, "SamplesPerPixel") or 1)


def _length(dataset: Dataset) -> int:
    """Bytes of pixel data, without reading them from a file they were left in."""
    element = dataset.get_item(PIXEL_DATA, keep_deferred=True)
    if element.value is None:
        return int(getattr(element, "length", 0))
    return len(element.value)


def _decoder(dataset: Dataset) -> Decoder:
    """pydicom's decoder of the Transfer Syntax UID (0002,0010)."""
    meta = getattr(dataset, "file_meta", None)
    syntax = None if meta is None else text(meta, "TransferSyntaxUID")
    if syntax is None:
        raise DecodeError("no Transfer Syntax UID is stated")
    if syntax == JPEGExtended12Bit:
        jpeg_extended.install()
    try:
        return get_decoder(UID(syntax))
    except NotImplementedError as error:
        raise DecodeError(_undecodable(UID(syntax))) from error


def _undecodable(syntax: UID) -> str:
    known = NEWER_SYNTAXES.get(syntax, syntax.name)
    name = "unknown transfer syntax" if known == syntax else known
    return f"pixel data cannot be decoded ({name}, {syntax})"


def stored(dataset: Dataset, indices: Sequence[int]) -> Iterator[Stored]:
    """The stored pixels of these frames (from 0), each (rows, columns); one in memory at a time.

    Pixel data that a deferred read left in its file is read here and not kept.
    Raises DecodeError naming the transfer syntax when no library here can decode it.
    """
    decoder = _decoder(dataset)
    try:
        part = _image_pixel_module(dataset)
        many = (number(dataset, "NumberOfFrames") or 1) > 1
        if not many:
            with decoding.announced(dataset):
                array = decoder.as_array(part, raw=True, index=0)[0]
            yield array
            return
        frames = decoder.iter_array(part, raw=True, indices=list(indices))
        for _ in indices:
            with decoding.announced(dataset):
                array, _described = next(frames)
            yield array
    except UNREADABLE as error:
        raise DecodeError(_undecodable(decoder.UID)) from error


def coloured(dataset: Dataset, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """These frames (from 0) of true colour in RGB, each (rows, columns, 3).

    Raises DecodeError naming the transfer syntax when no library here can decode it.
    """
    decoder = _decoder(dataset)
    try:
        part = _image_pixel_module(dataset)
        for index in indices:
            with decoding.announced(dataset):
                array, described = decoder.as_array(part, index=index)
            if described["photometric_interpretation"] != "RGB":
                raise DecodeError(f"{described['photometric_interpretation']} is not turned to RGB")
            yield array
    except UNREADABLE as error:
        raise DecodeError(_undecodable(decoder.UID)) from error


def palette(dataset: Dataset, array: Stored) -> NDArray[np.uint8]:
    """Stored pixels of PALETTE COLOR as RGB, (rows, columns, 3) of 8 bits (PS3.3 C.7.6.3.1.5)."""
    try:
        found = apply_color_lut(array, _image_pixel_module(dataset))[..., :3]
    except UNREADABLE as error:
        raise DecodeError("the palette cannot be read") from error
    entries = found if found.dtype == np.uint8 or found.max() < EIGHT_BITS else found >> 8
    return np.ascontiguousarray(entries.astype(np.uint8))


def _image_pixel_module(dataset: Dataset) -> Dataset:
    """What a decoder reads, in a data set of its own, so that the caller's stays as it was."""
    part: Dataset = dataset[IMAGE_PIXEL.start : IMAGE_PIXEL.stop]
    part.file_meta = dataset.file_meta
    part[PIXEL_DATA] = _pixel_data(dataset)
    for keyword in OFFSETS:
        if keyword in dataset:
            part[Tag(keyword)] = dataset.get_item(Tag(keyword))
    return part


def _pixel_data(dataset: Dataset) -> DataElement | RawDataElement:
    """The element with its value; left in its file again when it was there."""
    before = dataset.get_item(PIXEL_DATA, keep_deferred=True)
    found = dataset.get_item(PIXEL_DATA)
    if before.value is None:
        dataset[PIXEL_DATA] = before
    return found


def slices(frames: Sequence[Frame]) -> Iterator[tuple[int, Slice]]:
    """(place in `frames`, its values) of every frame, in the order that is cheapest to decode."""
    by_dataset: dict[int, list[int]] = {}
    for place, frame in enumerate(frames):
        by_dataset.setdefault(id(frame.dataset), []).append(place)
    for places in by_dataset.values():
        first = frames[places[0]]
        pixels = stored(first.dataset, [frames[place].index for place in places])
        for place, array in zip(places, pixels, strict=True):
            yield place, measured(frames[place], array)


def measured(frame: Frame, array: Stored) -> Slice:
    """Stored pixels as values of the modality's unit, padding replaced and marked."""
    if array.shape != (frame.rows, frame.columns):
        raise DecodeError(f"{frame.name}: decoded to {array.shape}, stated {frame.rows} rows")
    slope, intercept = _rescale(frame)
    if slope.is_integer() and intercept.is_integer() and array.dtype.itemsize < 4:
        values: Values = array.astype(np.int32)
        values *= np.int32(slope)
        values += np.int32(intercept)
    else:
        values = (array * slope + intercept).astype(np.float32)
    return _without_padding(frame, array, values)


def _rescale(frame: Frame) -> tuple[float, float]:
    slope, intercept = frame.slope, frame.intercept
    if not _is_ct(frame):
        slope, intercept = (
            1.0 if slope is None else slope,
            0.0 if intercept is None else intercept,
        )
    if slope is None or intercept is None:
        raise InputRefused(f"{frame.name}: CT without Rescale Slope and Intercept has no HU")
    if slope == 0:
        raise InputRefused(f"{frame.name}: Rescale Slope is 0")
    if _is_ct(frame) and frame.rescale_type not in HOUNSFIELD_TYPES:
        raise InputRefused(f"{frame.name}: Rescale Type is {frame.rescale_type}, not HU")
    return slope, intercept


def _is_ct(frame: Frame) -> bool:
    return text(frame.dataset, "Modality") == "CT"


def _without_padding(frame: Frame, array: Stored, values: Values) -> Slice:
    padding = _padding(frame, array)
    if _is_ct(frame):
        low = values <= CT_NOT_MEASURED
        padding = low if padding is None else padding | low
    if padding is None or not padding.any():
        return Slice(values=values, padding=None)
    values[padding] = CT_AIR if _is_ct(frame) else 0
    return Slice(values=values, padding=padding)


def _padding(frame: Frame, array: Stored) -> Mask | None:
    declared = padding_range(frame.dataset)
    if declared is None or padding_is_tissue(frame):
        return None
    low, high = declared
    found: Mask = (array >= low) & (array <= high)
    return found


def padding_is_tissue(frame: Frame) -> bool:
    """Whether a CT declares as padding what would be tissue: then it is not believed."""
    declared = padding_range(frame.dataset)
    if declared is None or not _is_ct(frame):
        return False
    slope, intercept = _rescale(frame)
    low, high = (slope * limit + intercept for limit in declared)
    return max(low, high) > CT_TISSUE[0] and min(low, high) <= CT_TISSUE[1]


def padding_range(dataset: Dataset) -> tuple[int, int] | None:
    """The lowest and highest stored value that is padding, both included; None when undeclared."""
    first = stored_value(dataset, "PixelPaddingValue")
    if first is None:
        return None
    last = stored_value(dataset, "PixelPaddingRangeLimit")
    return (first, first) if last is None else (min(first, last), max(first, last))


def stored_value(dataset: Dataset, keyword: str) -> int | None:
    """A stored value whose VR (US or SS) may not match Pixel Representation, read as the pixels."""
    found = value(dataset, keyword)
    if not isinstance(found, int):
        return None
    bits = int(number(dataset, "BitsStored") or 16)
    within = found & ((1 << bits) - 1)
    signed = number(dataset, "PixelRepresentation") == 1
    return within - (1 << bits) if signed and within >> (bits - 1) else within
