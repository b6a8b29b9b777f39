"""What a model found, as frozen values; a mask never travels without its affine.

Places are in the patient, LPS mm, for an `Image`; in pixels (column, row; centres are whole
numbers) for a `PlanarImage`, which lies nowhere in the patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code

Point = tuple[float, ...]
"""(x, y, z) in the patient, LPS mm; or (column, row) in a planar image."""


class Verdict(StrEnum):
    """The three honest answers of a model."""

    MEASURED = "measured"
    WITHHELD = "withheld"
    NOT_ANALYSED = "not_analysed"


SEVERAL = " and "  # between the kernels of a stack whose slices have several


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """What a model may know of how the image was made; never an identifier."""

    modality: str
    slice_thickness_mm: float | None = None  # the reconstructed thickness, not the spacing
    convolution_kernel: str | None = None
    manufacturer: str | None = None
    contrast_agent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A regular stack in the patient: what a model sees.

    `volume`: axes (slice, row, column), affine to LPS mm (PS3.3 C.7.6.2.1.1); CT values in HU.
    `padding`: True where the scanner had no data (Pixel Padding), same axes; None without any.
    `roles`: for a model that wants several series, each by its role and on the grid of `volume`,
    which is the first of them; empty for any other model.
    """

    volume: hd.Volume
    acquisition: Acquisition
    padding: hd.Volume | None = None
    roles: Mapping[str, hd.Volume] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanarImage:
    """One projection, ultrasound frame or photograph: pixels that lie nowhere in the patient.

    `pixels`: axes (row, column) of float32 or int16 after the modality LUT, larger is brighter
    (MONOCHROME1 is turned); or (row, column, 3) of uint8 RGB. `spacing`: between rows and columns,
    mm, None when the image states none; `at_detector`: it was measured there, not in the patient.
    """

    pixels: NDArray[np.int16] | NDArray[np.float32] | NDArray[np.uint8]
    acquisition: Acquisition
    spacing: tuple[float, float] | None = None
    at_detector: bool = False
    view: str | None = None  # View Position: "PA", "CC", ...
    laterality: str | None = None  # Image Laterality: "L", "R", "B"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentDefinition:
    """One kind of structure that a model can find: how it is coded and shown."""

    label: str  # at most 64 characters (LO)
    category: Code
    type: Code
    modifier: Code | None = None  # laterality (CID 244)
    colour: tuple[int, int, int] = (255, 0, 0)  # sRGB; encoded as CIELab


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segmented structure: boolean mask on the grid of the image or a crop of it, never empty.

    A crop is part of that grid by its affine (`regions`): a hundred structures need not be a
    hundred whole images. In a planar image it is a `regions.Region` of (row, column).
    """

    definition: SegmentDefinition
    mask: hd.Volume
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box: its middle and the vectors from one side to the opposite one, of any orientation.

    In the patient three vectors (LPS mm), in a planar image two (column, row; pixels).
    """

    centre: Point
    edges: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A structure found somewhere: where, and how sure the model is (0 to 1).

    `segment`: label of the segment that is its mask. Such a segment is one object of this image;
    one of the same label in another image is another object.
    """

    definition: SegmentDefinition
    box: Box
    probability: float
    segment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keypoint:
    """A landmark at a point."""

    definition: SegmentDefinition
    position: Point
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """An answer to a question about the whole image, with its calibrated probability (0 to 1)."""

    question: Code
    answer: Code
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A number with its coded meaning.

    `segment`: label of the segment it belongs to; None when it belongs to several together, which
    `together` names, or to the whole image. `interval`: 95 % prediction interval, same unit.
    """

    name: Code
    value: float
    unit: Code  # UCUM
    derivation: Code | None = None  # mean, standard deviation, ... (CID 7464)
    segment: str | None = None
    together: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """Measurements that are not given, and why."""

    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Computation:
    """How a network came to an answer: all that gives it other bits, and so makes another result.

    `lessened`: what it did with less than was meant, because memory ran out; "" for nothing.
    """

    arithmetic: str  # float32, bfloat16, float16
    device: str  # cpu, cuda
    lessened: str = ""

    def __str__(self) -> str:
        """In words: "bfloat16 on cpu, windows of 64 x 64 x 64 voxels"."""
        return ", ".join(filter(None, (f"{self.arithmetic} on {self.device}", self.lessened)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A model's answer.

    `reason` is stated whenever the verdict is not MEASURED; `limitations` go with any verdict.
    `computed`: how this very answer was; None of what is computed alike everywhere.
    """

    verdict: Verdict
    reason: str | None = None
    segments: tuple[Segment, ...] = ()
    detections: tuple[Detection, ...] = ()
    keypoints: tuple[Keypoint, ...] = ()
    classifications: tuple[Classification, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    limitations: tuple[str, ...] = field(default=())
    computed: Computation | None = None

    def __post_init__(self) -> None:
        if (self.reason is None) != (self.verdict is Verdict.MEASURED):
            raise ValueError("a reason is stated exactly when the verdict is not 'measured'")


def not_found(names: Sequence[str]) -> tuple[str, ...]:
    """A sentence on what a model looked for in vain; () for nothing."""
    return (f"Not found: {', '.join(names)}.",) if names else ()
