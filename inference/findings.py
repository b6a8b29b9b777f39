"""What a model found, as frozen values; a mask never travels without its affine."""

from dataclasses import dataclass, field
from enum import StrEnum

import highdicom as hd
from pydicom.sr.coding import Code


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
    """

    volume: hd.Volume
    acquisition: Acquisition
    padding: hd.Volume | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentDefinition:
    """One kind of segment that a model can produce: how it is coded and shown."""

    label: str  # at most 64 characters (LO)
    category: Code
    type: Code
    modifier: Code | None = None  # laterality (CID 244)
    colour: tuple[int, int, int] = (255, 0, 0)  # sRGB; encoded as CIELab


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segmented structure: boolean mask on the grid of the image, never empty."""

    definition: SegmentDefinition
    mask: hd.Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A number with its coded meaning.

    `segment`: label of the segment it belongs to; None when it belongs to several together, which
    `together` names, or to the whole image.
    """

    name: Code
    value: float
    unit: Code  # UCUM
    derivation: Code | None = None  # mean, standard deviation, ... (CID 7464)
    segment: str | None = None
    together: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """Measurements that are not given, and why."""

    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A model's answer.

    `reason` is stated whenever the verdict is not MEASURED; `limitations` go with any verdict.
    """

    verdict: Verdict
    reason: str | None = None
    segments: tuple[Segment, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    limitations: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if (self.reason is None) != (self.verdict is Verdict.MEASURED):
            raise ValueError("a reason is stated exactly when the verdict is not 'measured'")
