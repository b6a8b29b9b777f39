"""A slice image as its header states it, alone or a frame among many, or why it is not one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.dataset import Dataset
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

from inference.attributes import number, numbers, text, value, values

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


class Unsuitable(Exception):  # noqa: N818  (a reason to set aside, not a failure)
    """Why a data set is set aside."""


def frames_of(dataset: Dataset) -> list[Frame]:
    """The slice images of a data set; raises Unsuitable with the reason when it holds none."""
    sop_class = UID(text(dataset, "SOPClassUID") or "")
    if sop_class not in SLICE_IMAGES:
        raise Unsuitable(f"{sop_class.name or 'an object without SOP class'}: not a slice image")
    if text(dataset, "SOPInstanceUID") is None:
        raise Unsuitable("no SOP Instance UID")
    if "PixelData" not in dataset:
        raise Unsuitable("no pixel data")
    samples = number(dataset, "SamplesPerPixel")
    photometric = text(dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unsuitable(f"not a greyscale image ({photometric or 'no colour space'})")
    _refuse_types(values(dataset, "ImageType"))
    return list(_multi_frame(dataset)) if sop_class in MULTI_FRAME else [_single_frame(dataset)]


def _refuse_types(types: Sequence[str]) -> None:
    what = next((NOT_SLICES[item] for item in types if item in NOT_SLICES), None)
    if what is not None:
        raise Unsuitable(f"{what}, not a slice image")


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
        raise Unsuitable(f"{count:.0f} frames in a single-frame image")
    types = values(dataset, "ImageType")
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
        raise Unsuitable("a multi-frame image without functional groups")
    if number(dataset, "NumberOfFrames") != len(per_frame):
        raise Unsuitable(
            f"{text(dataset, 'NumberOfFrames') or 'no'} frames stated, {len(per_frame)} described"
        )
    shared = _item(dataset, "SharedFunctionalGroupsSequence") or Dataset()
    for index, item in enumerate(per_frame):
        groups = Groups(item, shared)
        types = _frame_types(groups) or values(dataset, "ImageType")
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
    return next((values(place, "FrameType") for place in places if "FrameType" in place), ())


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
        raise Unsuitable(f"{rows:.0f} rows and {columns:.0f} columns, {spacing} mm apart")
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
        thickness_mm=_thickness(groups),
    )


def _thickness(groups: Groups) -> float | None:
    stated = number(groups.place("PixelMeasuresSequence", "SliceThickness"), "SliceThickness")
    return stated if stated is not None and stated > 0 else None


WORDS = {
    "ImagePositionPatient": "Image Position (Patient)",
    "ImageOrientationPatient": "Image Orientation (Patient)",
    "PixelSpacing": "Pixel Spacing",
}


def _needed(groups: Groups, sequence: str, keyword: str, count: int) -> tuple[float, ...]:
    found = numbers(groups.place(sequence, keyword), keyword, count)
    if found is None:
        raise Unsuitable(f"no usable {WORDS[keyword]}")
    return found


def _cosines(groups: Groups) -> tuple[float, ...]:
    """The six cosines when they are two perpendicular unit vectors to 1e-2, else unsuitable."""
    cosines = _needed(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    right, down = np.asarray(cosines[:3]), np.asarray(cosines[3:])
    lengths = np.array([right @ right - 1, down @ down - 1, right @ down])
    if np.abs(lengths).max() > 1e-2:
        raise Unsuitable("Image Orientation (Patient) is not two perpendicular unit vectors")
    return cosines
