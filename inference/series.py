"""Which frames of a series form its stack, and for every other instance the reason why not.

Rules, in this order:

1. Only the slice images of CT, MR and PET are stacked (SLICE_IMAGES); anything else is set aside.
2. Localizers, projections, renderings (Image Type, PS3.3 C.7.6.1.1.2) and colour images are set
   aside.
3. Images without position, orientation or pixel spacing are set aside.
4. Derived images are set aside when there are originals; a wholly derived series is read, noted.
5. Images of one orientation (within 1e-3), matrix, pixel spacing and Frame of Reference belong
   together; the group with more than twice the images of any other is the stack, else refusal.

A series that names several patients or studies is refused before any of this.
"""

import math
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from inference.errors import InputRefused

SINGLE_FRAME = (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage)
MULTI_FRAME = (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)
SLICE_IMAGES = frozenset(SINGLE_FRAME + MULTI_FRAME)

NOT_SLICES = {  # values of Image Type and Frame Type, PS3.3 C.7.6.1.1.2, C.8.16.1
    "LOCALIZER": "a localizer",
    "SCOUT": "a localizer",
    "PROJECTION IMAGE": "a projection",
    "MIP": "a maximum intensity projection",
    "MAX_IP": "a maximum intensity projection",
    "MIN_IP": "a minimum intensity projection",
    "MINIP": "a minimum intensity projection",
    "VOLUME_RENDER": "a volume rendering",
    "SURFACE_RENDER": "a surface rendering",
    "SCREEN SAVE": "a screen capture",
    "SECONDARY_CAPTURE": "a screen capture",
    "RCBF": "a parametric map",
    "RCBV": "a parametric map",
    "MTT": "a parametric map",
    "TTP": "a parametric map",
    "DIVISION": "a parametric map",
    "MULTIPLICATION": "a parametric map",
    "STD_DEVIATION": "a parametric map",
    "SUBTRACTION": "a parametric map",
}

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

ORIENTATION_TOLERANCE = 1e-3  # largest difference of a direction cosine inside one stack
SPACING_TOLERANCE = 1e-4  # relative difference of Pixel Spacing inside one stack
DOMINANCE = 2  # the stack has more than this many times the images of any other


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a slice comes from: a header without pixel data and, in a multi-frame, its frame.

    `frame_number` counts from 1 (Referenced Frame Number); None for a single-frame instance.
    """

    dataset: Dataset
    frame_number: int | None = None

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""
        return str(self.dataset.SOPClassUID)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return str(self.dataset.SOPInstanceUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An instance, or some of its frames, that is not part of the stack, and why."""

    sop_instance_uid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One slice image as its header states it; LPS millimetres."""

    dataset: Dataset  # with its pixel data
    index: int  # of the frame in its instance, from 0
    frame_number: int | None  # from 1; None for a single-frame instance
    name: str  # how a refusal calls it: "image 12"
    position: tuple[float, float, float]  # (0020,0032)
    orientation: tuple[float, ...]  # (0020,0037), six cosines
    pixel_spacing: tuple[float, float]  # between rows, between columns (0028,0030)
    rows: int
    columns: int
    frame_of_reference_uid: str | None
    derived: bool
    acquisition: tuple[tuple[str, str], ...]  # what tells phases, echoes and kernels apart
    slope: float | None  # (0028,1053)
    intercept: float | None  # (0028,1052)
    rescale_type: str | None  # (0028,1054)
    thickness_mm: float | None  # (0018,0050)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return str(self.dataset.SOPInstanceUID)

    def source(self, header: Dataset) -> Source:
        """This frame by a header without pixel data."""
        return Source(dataset=header, frame_number=self.frame_number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The frames of the stack in the order received, what is not among them, and remarks."""

    frames: tuple[Frame, ...]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The chosen instances, each once."""
        return tuple({id(frame.dataset): frame.dataset for frame in self.frames}.values())


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


def choose(datasets: Sequence[Dataset]) -> Chosen:
    """The frames that belong together by the rules above, and every other instance with a reason.

    Raises InputRefused when nothing is left or no group is clearly the stack.
    """
    _refuse_strangers(datasets)
    frames: list[Frame] = []
    aside: list[SetAside] = []
    for dataset in datasets:
        try:
            frames += _frames(dataset)
        except _Unsuitable as reason:
            aside.append(SetAside(sop_instance_uid=_uid(dataset), reason=str(reason)))
    if not frames:
        raise InputRefused(_nothing(aside))
    originals, derived, notes = _originals(frames)
    aside += _aside(derived, "derived, beside original images")
    chosen, others = _stack(originals)
    return Chosen(
        frames=tuple(chosen), set_aside=_merged([*aside, *others]), notes=notes + _remarks(chosen)
    )


def one_acquisition(chosen: Chosen, problem: str) -> Chosen:
    """Only the acquisition with clearly the most images; `problem` is why all of them do not fit.

    Raises InputRefused with the problem when there is only one acquisition, or none is largest.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Frame]] = {}
    for frame in chosen.frames:
        groups.setdefault(frame.acquisition, []).append(frame)
    if len(groups) == 1:
        raise InputRefused(problem)
    differing = _differing(list(groups))
    ordered = sorted(groups.values(), key=len, reverse=True)
    if not _dominates(ordered):
        raise InputRefused(
            f"{problem}; the images differ in {differing} ({_counts(ordered)} images) "
            "and none of these groups is clearly the one meant"
        )
    rest = [frame for group in ordered[1:] for frame in group]
    aside = _aside(rest, f"another {differing} than the stack")
    return replace(chosen, frames=tuple(ordered[0]), set_aside=_merged([*chosen.set_aside, *aside]))


class _Unsuitable(Exception):  # noqa: N818  (never leaves this module)
    """Why a data set is set aside."""


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
    found = _numbers(dataset, keyword, 1)
    return found[0] if found else None


def _numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    found = value(dataset, keyword)
    items = list(found) if isinstance(found, MultiValue) else [found]
    try:
        numbers = tuple(float(item) for item in items)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _uid(dataset: Dataset) -> str:
    return text(dataset, "SOPInstanceUID") or ""


STRANGERS = (("PatientID", "patients"), ("StudyInstanceUID", "studies"))


def _refuse_strangers(datasets: Sequence[Dataset]) -> None:
    for keyword, what in STRANGERS:
        count = len({text(dataset, keyword) for dataset in datasets})
        if count > 1:
            raise InputRefused(f"the instances name {count} different {what}")


def _frames(dataset: Dataset) -> list[Frame]:
    sop_class = UID(text(dataset, "SOPClassUID") or "")
    if sop_class not in SLICE_IMAGES:
        raise _Unsuitable(f"{sop_class.name or 'an object without SOP class'}: not a slice image")
    if not _uid(dataset):
        raise _Unsuitable("no SOP Instance UID")
    if "PixelData" not in dataset:
        raise _Unsuitable("no pixel data")
    samples = number(dataset, "SamplesPerPixel")
    photometric = text(dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _Unsuitable(f"not a greyscale image ({photometric or 'no colour space'})")
    _refuse_types(_values(dataset, "ImageType"))
    return list(_multi_frame(dataset)) if sop_class in MULTI_FRAME else [_single_frame(dataset)]


def _refuse_types(types: Sequence[str]) -> None:
    what = next((NOT_SLICES[item] for item in types if item in NOT_SLICES), None)
    if what is not None:
        raise _Unsuitable(f"{what}, not a slice image")


def _values(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(item.strip().upper() for item in (text(dataset, keyword) or "").split("\\"))


DISTINGUISHING = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "ConvolutionKernel",
)


def _single_frame(dataset: Dataset) -> Frame:
    count = number(dataset, "NumberOfFrames")
    if count not in (None, 1):
        raise _Unsuitable(f"{count:.0f} frames in a single-frame image")
    types = _values(dataset, "ImageType")
    label = text(dataset, "InstanceNumber")
    found = tuple((keyword, text(dataset, keyword) or "") for keyword in DISTINGUISHING)
    return _frame(
        dataset,
        Groups(dataset),
        index=0,
        frame_number=None,
        name=f"image {label}" if label else "an image without Instance Number",
        types=types,
        acquisition=(*found, ("ImageType", "\\".join(types[2:]))),
    )


class Groups:
    """Attributes of one frame wherever they are: frame's, shared groups, or the data set itself."""

    def __init__(self, *places: Dataset) -> None:
        self._places = places

    def place(self, sequence: str, keyword: str) -> Dataset:
        """The item (or the data set) that holds the attribute; an empty data set when none does."""
        for place in self._places:
            for holder in (_item(place, sequence), place):
                if holder is not None and keyword in holder:
                    return holder
        return Dataset()


def _item(dataset: Dataset, sequence: str) -> Dataset | None:
    found = value(dataset, sequence)
    return found[0] if isinstance(found, pydicom.Sequence) and len(found) else None


MULTI_FRAME_DISTINGUISHING = (
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "StackID"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("CTReconstructionSequence", "ConvolutionKernel"),
)
FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


def _multi_frame(dataset: Dataset) -> Iterator[Frame]:
    per_frame = value(dataset, "PerFrameFunctionalGroupsSequence")
    if not isinstance(per_frame, pydicom.Sequence) or not len(per_frame):
        raise _Unsuitable("a multi-frame image without functional groups")
    if number(dataset, "NumberOfFrames") != len(per_frame):
        raise _Unsuitable(
            f"{text(dataset, 'NumberOfFrames') or 'no'} frames stated, {len(per_frame)} described"
        )
    shared = _item(dataset, "SharedFunctionalGroupsSequence") or Dataset()
    for index, item in enumerate(per_frame):
        groups = Groups(item, shared)
        types = _frame_types(groups) or _values(dataset, "ImageType")
        _refuse_types(types)
        found = tuple(
            (keyword, text(groups.place(sequence, keyword), keyword) or "")
            for sequence, keyword in MULTI_FRAME_DISTINGUISHING
        )
        yield _frame(
            dataset,
            groups,
            index=index,
            frame_number=index + 1,
            name=f"frame {index + 1}",
            types=types,
            acquisition=(*found, ("FrameType", "\\".join(types[2:]))),
        )


def _frame_types(groups: Groups) -> tuple[str, ...]:
    places = (groups.place(sequence, "FrameType") for sequence in FRAME_TYPES)
    return next((_values(place, "FrameType") for place in places if "FrameType" in place), ())


def _frame(
    dataset: Dataset,
    groups: Groups,
    *,
    index: int,
    frame_number: int | None,
    name: str,
    types: tuple[str, ...],
    acquisition: tuple[tuple[str, str], ...],
) -> Frame:
    x, y, z = _needed(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
    spacing = _needed(groups, "PixelMeasuresSequence", "PixelSpacing", 2)
    rows, columns = number(dataset, "Rows") or 0, number(dataset, "Columns") or 0
    if min(rows, columns, *spacing) <= 0:
        raise _Unsuitable(f"{rows:.0f} rows and {columns:.0f} columns, {spacing} mm apart")
    rescale = "PixelValueTransformationSequence"
    return Frame(
        dataset=dataset,
        index=index,
        frame_number=frame_number,
        name=name,
        position=(x, y, z),
        orientation=_cosines(groups),
        pixel_spacing=(spacing[0], spacing[1]),
        rows=int(rows),
        columns=int(columns),
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID"),
        derived=types[0] == "DERIVED",
        acquisition=acquisition,
        slope=number(groups.place(rescale, "RescaleSlope"), "RescaleSlope"),
        intercept=number(groups.place(rescale, "RescaleIntercept"), "RescaleIntercept"),
        rescale_type=text(groups.place(rescale, "RescaleType"), "RescaleType"),
        thickness_mm=number(
            groups.place("PixelMeasuresSequence", "SliceThickness"), "SliceThickness"
        ),
    )


WORDS = {
    "ImagePositionPatient": "Image Position (Patient)",
    "ImageOrientationPatient": "Image Orientation (Patient)",
    "PixelSpacing": "Pixel Spacing",
}


def _needed(groups: Groups, sequence: str, keyword: str, count: int) -> tuple[float, ...]:
    numbers = _numbers(groups.place(sequence, keyword), keyword, count)
    if numbers is None:
        raise _Unsuitable(f"no usable {WORDS[keyword]}")
    return numbers


def _cosines(groups: Groups) -> tuple[float, ...]:
    """The six cosines when they are two perpendicular unit vectors to 1e-2, else unsuitable."""
    cosines = _needed(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    right, down = np.asarray(cosines[:3]), np.asarray(cosines[3:])
    lengths = np.array([right @ right - 1, down @ down - 1, right @ down])
    if np.abs(lengths).max() > 1e-2:
        raise _Unsuitable("Image Orientation (Patient) is not two perpendicular unit vectors")
    return cosines


def _nothing(aside: Sequence[SetAside]) -> str:
    if not aside:
        return "no instances"
    counts: dict[str, int] = {}
    for item in aside:
        counts[item.reason] = counts.get(item.reason, 0) + 1
    reasons = "; ".join(f"{count} x {reason}" for reason, count in counts.items())
    return f"no slice images: {reasons}"


def _originals(frames: list[Frame]) -> tuple[list[Frame], list[Frame], tuple[str, ...]]:
    originals = [frame for frame in frames if not frame.derived]
    if not originals:
        return frames, [], ("all images are derived (Image Type)",)
    return originals, [frame for frame in frames if frame.derived], ()


def _aside(frames: Iterable[Frame], reason: str) -> list[SetAside]:
    return [SetAside(sop_instance_uid=frame.sop_instance_uid, reason=reason) for frame in frames]


def _merged(aside: Iterable[SetAside]) -> tuple[SetAside, ...]:
    """One entry for the many frames of an instance that share a reason."""
    return tuple(dict.fromkeys(aside))


def _stack(frames: list[Frame]) -> tuple[list[Frame], list[SetAside]]:
    _refuse_scattered_frames_of_reference(frames)
    groups = sorted(_alike(frames), key=len, reverse=True)
    if not _dominates(groups):
        differing = _traits_that_differ([group[0] for group in groups])
        raise InputRefused(
            f"the series mixes {len(groups)} stacks of {_counts(groups)} images that differ in "
            f"{differing}, and none is clearly the one meant"
        )
    aside: list[SetAside] = []
    for group in groups[1:]:
        differing = _traits_that_differ([groups[0][0], group[0]])
        aside += _aside(group, f"another {differing} than the stack")
    return groups[0], aside


def _refuse_scattered_frames_of_reference(frames: Sequence[Frame]) -> None:
    count = len({frame.frame_of_reference_uid for frame in frames})
    if count > max(2, len(frames) / 2):
        raise InputRefused(
            f"the {len(frames)} images name {count} different Frames of Reference: positions in "
            "different frames cannot be combined (a de-identification that replaces this UID on "
            "every image does this)"
        )


def _alike(frames: Iterable[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if not _differences(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return groups


def _differences(first: Frame, other: Frame) -> tuple[str, ...]:
    pairs = zip(first.orientation, other.orientation, strict=True)
    turned = max(abs(a - b) for a, b in pairs) > ORIENTATION_TOLERANCE
    pitches = zip(first.pixel_spacing, other.pixel_spacing, strict=True)
    scaled = max(abs(a / b - 1) for a, b in pitches) > SPACING_TOLERANCE
    traits = {
        "orientation": turned,
        "matrix": (first.rows, first.columns) != (other.rows, other.columns),
        "pixel spacing": scaled,
        "Frame of Reference": first.frame_of_reference_uid != other.frame_of_reference_uid,
    }
    return tuple(trait for trait, differs in traits.items() if differs)


def _traits_that_differ(frames: Sequence[Frame]) -> str:
    found = [trait for other in frames[1:] for trait in _differences(frames[0], other)]
    return ", ".join(dict.fromkeys(found))


def _dominates(ordered: Sequence[Sequence[Frame]]) -> bool:
    return len(ordered) == 1 or len(ordered[0]) > DOMINANCE * len(ordered[1])


def _counts(groups: Sequence[Sequence[Frame]]) -> str:
    shown = [str(len(group)) for group in groups[:4]]
    return " and ".join(shown) + (" and so on" if len(groups) > len(shown) else "")


def _differing(keys: Sequence[tuple[tuple[str, str], ...]]) -> str:
    columns = zip(*keys, strict=True)
    return ", ".join(column[0][0] for column in columns if len(set(column)) > 1)


def _remarks(frames: Sequence[Frame]) -> tuple[str, ...]:
    nowhere = frames[0].frame_of_reference_uid is None
    lossy = any(text(frame.dataset, "LossyImageCompression") == "01" for frame in frames)
    remarks = {
        "no Frame of Reference UID": nowhere,
        "lossy compression (0028,2110) was applied before the images came": lossy,
    }
    return tuple(remark for remark, applies in remarks.items() if applies)


PIXELS = Tag(0x7FE00000)


def header(dataset: Dataset) -> Dataset:
    """The data set up to its pixel data, elements shared, nothing read or converted."""
    start: Dataset = dataset[:PIXELS]
    if hasattr(dataset, "file_meta"):
        start.file_meta = dataset.file_meta
    return start
