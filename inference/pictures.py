"""A planar image as its header states it: its frames, spacing and view, or why it is not one.

Spacing (PS3.3 10.7.1.3), between rows and between columns, mm:

- radiographs: Pixel Spacing when it was calibrated (Pixel Spacing Calibration Type, or it differs
  from Imager Pixel Spacing); else what holds at the detector, divided by the Estimated Radiographic
  Magnification Factor when that is stated, and said to be at the detector when it is not;
- ultrasound: the scale of the two-dimensional regions (C.8.5.5) when they have one;
- others: Pixel Spacing, or Nominal Scanned Pixel Spacing, which holds on the film.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.uid import UID

from inference.attributes import number, numbers, text, value
from inference.frames import Unsuitable

PROCESSING = frozenset(
    {
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
    }
)
"""What a detector gave, before it was made to be looked at (Presentation Intent Type)."""

RADIOGRAPHS = PROCESSING | {
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalIntraOralXRayImageStorageForPresentation,
}
ULTRASOUND = frozenset(
    {
        uid.UltrasoundImageStorage,
        uid.UltrasoundMultiFrameImageStorage,
        UID("1.2.840.10008.5.1.4.1.1.6"),  # both retired
        UID("1.2.840.10008.5.1.4.1.1.3"),
    }
)
PHOTOGRAPHS = frozenset(
    {
        uid.VLEndoscopicImageStorage,
        uid.VLMicroscopicImageStorage,
        uid.VLSlideCoordinatesMicroscopicImageStorage,
        uid.VLPhotographicImageStorage,
        uid.DermoscopicPhotographyImageStorage,
        uid.OphthalmicPhotography8BitImageStorage,
        uid.OphthalmicPhotography16BitImageStorage,
    }
)
CAPTURES = frozenset(
    {
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
PLANAR_IMAGES = RADIOGRAPHS | ULTRASOUND | PHOTOGRAPHS | CAPTURES
MULTI_FRAME = frozenset(
    {
        uid.UltrasoundMultiFrameImageStorage,
        UID("1.2.840.10008.5.1.4.1.1.3"),
        uid.OphthalmicPhotography8BitImageStorage,
        uid.OphthalmicPhotography16BitImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
TRUE_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
OTHER_COLOUR = ("YBR_PARTIAL_420", "YBR_PARTIAL_422", "HSV", "ARGB", "CMYK", "XYB")
COLOUR_SPACES = (*GREY, PALETTE, *TRUE_COLOUR, *OTHER_COLOUR)
COLOUR_BITS = 8
SIDES = ("L", "R", "B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """Between rows and between columns, mm; `at_detector`: not in the patient. `note`: a remark."""

    millimetres: tuple[float, float] | None = None
    at_detector: bool = False
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One instance of planar images; all its frames have one size, spacing and view."""

    dataset: Dataset  # with its pixel data
    name: str  # how a refusal calls it: "image 12"
    order: tuple[float, str]  # Instance Number (infinite when not stated), then SOP Instance UID
    rows: int
    columns: int
    frames: int
    photometric: str  # one of GREY, TRUE_COLOUR or PALETTE
    for_processing: bool
    spacing: Spacing
    view: str | None  # "PA", "CC", "MLO", or words
    laterality: str | None  # one of SIDES

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def pixels(self) -> int:
        """Of all frames together."""
        return self.frames * self.rows * self.columns


def picture_of(dataset: Dataset) -> Picture:
    """The planar images of a data set; raises Unsuitable with the reason when it holds none."""
    sop_class = UID(text(dataset, "SOPClassUID") or "")
    if sop_class not in PLANAR_IMAGES:
        raise Unsuitable(f"{sop_class.name or 'an object without SOP class'}: not a planar image")
    if text(dataset, "SOPInstanceUID") is None:
        raise Unsuitable("no SOP Instance UID")
    if "PixelData" not in dataset:
        raise Unsuitable("no pixel data")
    rows, columns = number(dataset, "Rows") or 0, number(dataset, "Columns") or 0
    if min(rows, columns) <= 0:
        raise Unsuitable(f"{rows:.0f} rows and {columns:.0f} columns")
    place = number(dataset, "InstanceNumber")
    return Picture(
        dataset=dataset,
        name="an image without Instance Number" if place is None else f"image {place:.0f}",
        order=(float("inf") if place is None else place, str(dataset.SOPInstanceUID)),
        rows=int(rows),
        columns=int(columns),
        frames=_frames(dataset, sop_class),
        photometric=_photometric(dataset),
        for_processing=sop_class in PROCESSING,
        spacing=_spacing(dataset, sop_class),
        view=_view(dataset),
        laterality=_laterality(dataset),
    )


def _frames(dataset: Dataset, sop_class: UID) -> int:
    stated = number(dataset, "NumberOfFrames")
    count = 1 if stated is None else int(stated)
    if count < 1 or (count > 1 and sop_class not in MULTI_FRAME):
        raise Unsuitable(f"{count} frames in an object of {sop_class.name}")
    return count


def _photometric(dataset: Dataset) -> str:
    """A colour space that is read, with the samples that belong to it."""
    found = text(dataset, "PhotometricInterpretation") or ""
    samples = number(dataset, "SamplesPerPixel")
    if found in (*GREY, PALETTE) and samples == 1:
        return found
    if found not in TRUE_COLOUR or samples != len("RGB"):
        space = found if found in COLOUR_SPACES else "an unknown colour space"
        raise Unsuitable(f"{space} of {samples or 0:.0f} samples per pixel is not read")
    bits = number(dataset, "BitsAllocated") or 0
    if bits != COLOUR_BITS:
        raise Unsuitable(f"colour of {bits:.0f} bits; {COLOUR_BITS} are read")
    return found


def _spacing(dataset: Dataset, sop_class: UID) -> Spacing:
    if sop_class in RADIOGRAPHS:
        return _of_radiograph(dataset)
    if sop_class in ULTRASOUND and (regions := list(_regions(dataset))):
        return _of_regions(regions)
    stated = _pair(dataset, "PixelSpacing")
    if stated is not None:
        return Spacing(millimetres=stated)
    film = _pair(dataset, "NominalScannedPixelSpacing")
    return Spacing(millimetres=film, at_detector=film is not None)


SAME_SPACING = 1e-4  # relative difference of two spacings that mean the same


def _of_radiograph(dataset: Dataset) -> Spacing:
    stated, imager = _pair(dataset, "PixelSpacing"), _pair(dataset, "ImagerPixelSpacing")
    if stated is not None and _calibrated(dataset, stated, imager):
        return Spacing(millimetres=stated)
    detector = imager or stated
    if detector is None:
        return Spacing()
    factor = number(dataset, "EstimatedRadiographicMagnificationFactor") or 0
    if factor < 1:
        return Spacing(millimetres=detector, at_detector=True)
    return Spacing(millimetres=(detector[0] / factor, detector[1] / factor))


def _calibrated(
    dataset: Dataset, stated: tuple[float, float], imager: tuple[float, float] | None
) -> bool:
    """Whether Pixel Spacing is more than what holds at the detector."""
    if text(dataset, "PixelSpacingCalibrationType") is not None:
        return True
    return imager is not None and not _alike(stated, imager)


def _alike(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(abs(a / b - 1) <= SAME_SPACING for a, b in zip(one, other, strict=True))


CENTIMETRES = 3  # Physical Units (0018,6024), (0018,6026)
TWO_DIMENSIONAL = 1  # Region Spatial Format (0018,6012)


def _regions(dataset: Dataset) -> Iterator[tuple[float, float]]:
    """The scale of each two-dimensional region, mm."""
    found = value(dataset, "SequenceOfUltrasoundRegions")
    for region in found if isinstance(found, pydicom.Sequence) else ():
        units = {number(region, f"PhysicalUnits{direction}Direction") for direction in ("X", "Y")}
        two_dimensional = number(region, "RegionSpatialFormat") == TWO_DIMENSIONAL
        down, across = number(region, "PhysicalDeltaY"), number(region, "PhysicalDeltaX")
        if two_dimensional and units == {CENTIMETRES} and down and across:
            yield abs(down) * 10, abs(across) * 10


def _of_regions(scales: list[tuple[float, float]]) -> Spacing:
    if all(_alike(scales[0], scale) for scale in scales):
        return Spacing(millimetres=scales[0])
    return Spacing(note="its ultrasound regions have different scales: no spacing is taken")


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    found = numbers(dataset, keyword, 2)
    return (found[0], found[1]) if found is not None and min(found) > 0 else None


VIEWS = {  # codes of CID 4010 and 4014 that have a common short name: SNOMED CT, then SNOMED RT
    "399162004": "CC",
    "399368009": "MLO",
    "399260004": "ML",
    "399352003": "LM",
    "399099002": "LMO",
    "399192008": "XCCL",
    "399101009": "XCCM",
    "399196006": "FB",
    "399348003": "AP",
    "272479007": "PA",
    "399067008": "LATERAL",
    "399173006": "LL",
    "399198007": "RL",
    "R-10242": "CC",
    "R-10226": "MLO",
    "R-10224": "ML",
    "R-10228": "LM",
    "R-10206": "AP",
    "R-10214": "PA",
    "R-40888": "PA",
    "R-102CD": "LATERAL",
}


def _view(dataset: Dataset) -> str | None:
    """View Position (0018,5101), else View Code Sequence (0054,0220) in short or in its words."""
    stated = text(dataset, "ViewPosition")
    if stated is not None:
        return stated
    found = value(dataset, "ViewCodeSequence")
    if not isinstance(found, pydicom.Sequence) or not len(found):
        return None
    code = text(found[0], "CodeValue") or ""
    return VIEWS.get(code) or text(found[0], "CodeMeaning")


def _laterality(dataset: Dataset) -> str | None:
    """Image Laterality (0020,0062), else Laterality (0020,0060)."""
    stated = text(dataset, "ImageLaterality") or text(dataset, "Laterality")
    return stated if stated in SIDES else None
