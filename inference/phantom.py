"""Synthetic CT whose every voxel and position is known: the same seed gives the same bytes.

`thorax` is a body that a lung model measures; `markers` is an exact phantom for geometry;
`datasets` writes either as CT Image Storage, `enhanced` as one multi-frame instance.
Coordinates are LPS millimetres (PS3.3 C.7.6.2.1.1); the origin is the middle of the thorax.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from scipy import ndimage

from inference import anatomy

Floats = NDArray[np.float64]
Shorts = NDArray[np.int16]
Mask = NDArray[np.bool_]

NAMESPACE = uuid.UUID("5c1a2f1e-7d0b-4b0f-9a55-1f9f4f3c2d10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the pixels are. `positions`: (n, 3) centre of each slice's first pixel, mm."""

    positions: Floats
    right: tuple[float, float, float] = (1.0, 0.0, 0.0)  # direction of increasing column index
    down: tuple[float, float, float] = (0.0, 1.0, 0.0)  # direction of increasing row index
    pixel_spacing: tuple[float, float] = (1.0, 1.0)  # between rows, between columns (0028,0030)
    rows: int = 64
    columns: int = 64

    @property
    def normal(self) -> Floats:
        """Unit vector of right x down."""
        return np.cross(self.right, self.down)

    def points(self, index: int) -> Floats:
        """Patient coordinates of a slice's pixel centres, (rows, columns, 3)."""
        row = np.arange(self.rows)[:, None, None] * self.pixel_spacing[0] * np.asarray(self.down)
        column = np.arange(self.columns)[None, :, None] * self.pixel_spacing[1]
        points: Floats = self.positions[index] + row + column * np.asarray(self.right)
        return points

    @property
    def axes(self) -> anatomy.Axes:
        """Positions along z, y and x of an axial grid, mm."""
        row = np.arange(self.rows) * self.pixel_spacing[0] + self.positions[0, 1]
        column = np.arange(self.columns) * self.pixel_spacing[1] + self.positions[0, 0]
        return self.positions[:, 2], row, column

    @property
    def affine(self) -> Floats:
        """Index (slice, row, column) to LPS mm; exact for a regular stack only."""
        affine = np.eye(4)
        count = len(self.positions)
        if count > 1:
            affine[:3, 0] = (self.positions[-1] - self.positions[0]) / (count - 1)
        else:
            affine[:3, 0] = self.normal
        affine[:3, 1] = np.asarray(self.down) * self.pixel_spacing[0]
        affine[:3, 2] = np.asarray(self.right) * self.pixel_spacing[1]
        affine[:3, 3] = self.positions[0]
        return affine


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """HU (slice, row, column) on a grid, the masks that are true of them, and their seed."""

    hu: Shorts
    grid: Grid
    seed: int
    truth: Mapping[str, Mask] = field(default_factory=dict)
    markers: tuple[tuple[float, float, float], ...] = ()

    @property
    def affine(self) -> Floats:
        """Index (slice, row, column) to LPS mm."""
        return self.grid.affine

    def keeping(self, indices: Sequence[int]) -> Self:
        """The same phantom with only these slices, in this order."""
        chosen = list(indices)
        truth = {name: mask[chosen] for name, mask in self.truth.items()}
        grid = replace(self.grid, positions=self.grid.positions[chosen])
        return replace(self, hu=self.hu[chosen], grid=grid, truth=truth)


def regular(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    *,
    right: Sequence[float] = (1.0, 0.0, 0.0),
    down: Sequence[float] = (0.0, 1.0, 0.0),
    tilt_degrees: float = 0.0,
) -> Grid:
    """A stack centred on the origin; `spacing` mm (slice, row, column).

    `tilt_degrees` shears it like a tilted gantry: slices stay parallel and move along `down`.
    """
    across, along = np.asarray(right, float), np.asarray(down, float)
    step = np.cross(across, along) * spacing[0]
    step = step + along * spacing[0] * np.tan(np.deg2rad(tilt_degrees))
    centre = step * (shape[0] - 1) + along * spacing[1] * (shape[1] - 1)
    origin = -(centre + across * spacing[2] * (shape[2] - 1)) / 2
    return Grid(
        positions=origin + np.arange(shape[0])[:, None] * step,
        right=(float(across[0]), float(across[1]), float(across[2])),
        down=(float(along[0]), float(along[1]), float(along[2])),
        pixel_spacing=(spacing[1], spacing[2]),
        rows=shape[1],
        columns=shape[2],
    )


MARKERS = ((9.0, 5.0, -6.0), (-10.0, -7.0, 4.0), (3.0, -11.0, 9.0))
MARKER_WIDTH_MM = 2.0  # standard deviation
MARKER_HU = 2000


def markers(
    grid: Grid, *, width_mm: float = MARKER_WIDTH_MM, base: int = 0, seed: int = 0
) -> Phantom:
    """Three Gaussian markers at MARKERS, sampled where each slice really is, without noise."""
    hu = np.stack([_markers_slice(grid.points(k), width_mm) for k in range(len(grid.positions))])
    values = np.rint(hu + base).astype(np.int16)
    return Phantom(hu=values, grid=grid, seed=seed, markers=MARKERS)


def _markers_slice(points: Floats, width_mm: float) -> Floats:
    squared = ((points[:, :, None, :] - np.asarray(MARKERS)) ** 2).sum(axis=-1)
    values: Floats = (MARKER_HU * np.exp(-squared / (2 * width_mm**2))).sum(axis=-1)
    return values


def thorax(
    shape: tuple[int, int, int] = (100, 176, 176),
    spacing: tuple[float, float, float] = (3.0, 2.2, 2.2),
    seed: int = 0,
    *,
    lung_hu: int = -850,
    noise_hu: float = 20.0,
    blur_mm: float = 0.7,
    vessels: int = 60,
    bullae: int = 0,
    table: bool = True,
    padding_hu: int | None = None,
    contrast_hu: int | None = None,
) -> Phantom:
    """An axial chest, slices from feet to head; `shape` and `spacing` mm: (slice, row, column).

    About 390 x 260 x 300 mm hold all of it. `bullae`: number of -985 HU spheres in each lung.
    `padding_hu`: value outside the scanner's circle of reconstruction.
    `contrast_hu`: of the blood, in vessels that are drawn only then (anatomy.LARGE, TUBES_MM).
    `truth`: body, right_lung, left_lung (with their vessels, without airways), airway (lumen); with
    contrast agent also vessels (all blood), aorta, superior_vena_cava, tube_1.0 to tube_4.0.
    """
    grid = regular(shape, spacing)
    generator = np.random.default_rng(seed)
    hu, truth = anatomy.draw(
        grid.axes,
        generator,
        lung_hu=lung_hu,
        vessels=vessels,
        bullae=bullae,
        table=table,
        contrast_hu=contrast_hu,
    )
    sigma = [blur_mm / step for step in spacing]
    hu = ndimage.gaussian_filter(hu, sigma) if blur_mm else hu
    hu += generator.standard_normal(hu.shape, dtype=np.float32) * np.float32(noise_hu)
    if padding_hu is not None:
        hu[:, _outside_circle(grid)] = padding_hu
    values = np.rint(np.clip(hu, -1024 if padding_hu is None else padding_hu, 3071))
    return Phantom(hu=values.astype(np.int16), grid=grid, seed=seed, truth=truth)


def _outside_circle(grid: Grid) -> Mask:
    row = np.linspace(-1, 1, grid.rows)[:, None]
    column = np.linspace(-1, 1, grid.columns)[None, :]
    outside: Mask = row**2 + column**2 > 1
    return outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """How a phantom is written; the defaults are a plain unsigned 16-bit CT series."""

    series: str = "series"  # names the series: other names give other Series and SOP Instance UIDs
    study: str = "study"
    modality: str = "CT"
    kernel: str = "STANDARD"
    thickness_mm: float | None = None  # None: the distance between the slices
    spacing_between_slices_mm: float | None = None  # the attribute only, may be wrong on purpose
    slopes: tuple[float, ...] = (1.0,)  # cycled over the slices
    intercepts: tuple[float, ...] = (-1024.0,)
    signed: bool = False
    bits_stored: int = 16
    padding_value: int | None = None  # stored value (0028,0120)
    padding_range_limit: int | None = None  # (0028,0121)
    photometric: str = "MONOCHROME2"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    acquisition_number: int = 1
    position_jitter_mm: float = 0.0
    orientation_jitter: float = 0.0
    frame_of_reference: str = "shared"  # "each": another one on every slice
    description: str = "Phantom chest"
    patient_id: str = "PHANTOM"
    patient_name: str = "Phantom^Thorax"
    first_number: int = 1
    implicit_vr: bool = False


PLAIN = Scan()


def uid(phantom: Phantom, *names: object) -> UID:
    """A UID under 2.25 (PS3.5 B.2) that only the phantom's seed and the names decide."""
    name = "/".join(map(str, (phantom.seed, *names)))
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, name).int}")


def datasets(phantom: Phantom, scan: Scan = PLAIN) -> list[Dataset]:
    """One CT Image Storage data set a slice, in the phantom's slice order, with file meta."""
    generator = np.random.default_rng(phantom.seed + 1)
    return [_instance(phantom, scan, index, generator) for index in range(len(phantom.hu))]


def _instance(phantom: Phantom, scan: Scan, index: int, generator: np.random.Generator) -> Dataset:
    dataset = _common(phantom, scan, uid(phantom, scan.series, "instance", index), CTImageStorage)
    number = index + scan.first_number
    dataset.InstanceNumber = number
    dataset.AcquisitionNumber = scan.acquisition_number
    if scan.frame_of_reference == "each":
        dataset.FrameOfReferenceUID = uid(phantom, scan.study, "frame of reference", number)
    jitter = generator.uniform(-1, 1, 9)
    position = phantom.grid.positions[index] + jitter[:3] * scan.position_jitter_mm
    cosines = np.asarray([*phantom.grid.right, *phantom.grid.down])
    dataset.ImagePositionPatient = decimals(position)
    dataset.ImageOrientationPatient = decimals(cosines + jitter[3:] * scan.orientation_jitter)
    dataset.update(_measures(phantom, scan))
    slope = scan.slopes[index % len(scan.slopes)]
    intercept = scan.intercepts[index % len(scan.intercepts)]
    dataset.RescaleSlope, dataset.RescaleIntercept = decimals((slope, intercept))
    dataset.RescaleType = "HU"
    stored = _stored(phantom.hu[index], scan, slope, intercept)
    dataset.PixelData = stored.tobytes()
    return dataset


def enhanced(phantom: Phantom, scan: Scan = PLAIN) -> Dataset:
    """The phantom as one Enhanced CT Image Storage instance (PS3.3 A.38), a frame a slice."""
    dataset = _common(phantom, scan, uid(phantom, scan.series, "enhanced"), EnhancedCTImageStorage)
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = len(phantom.hu)
    shared = Dataset()
    measures = _measures(phantom, scan)
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([Dataset()])
    cosines = decimals([*phantom.grid.right, *phantom.grid.down])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = cosines
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = [_frame(phantom, scan, index) for index in range(len(phantom.hu))]
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence([item for item, _ in frames])
    dataset.PixelData = b"".join(pixels for _, pixels in frames)
    return dataset


def _frame(phantom: Phantom, scan: Scan, index: int) -> tuple[Dataset, bytes]:
    slope = scan.slopes[index % len(scan.slopes)]
    intercept = scan.intercepts[index % len(scan.intercepts)]
    item, position, values, content = Dataset(), Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = decimals(phantom.grid.positions[index])
    values.RescaleSlope, values.RescaleIntercept = decimals((slope, intercept))
    values.RescaleType = "HU"
    content.FrameAcquisitionNumber = scan.acquisition_number
    content.DimensionIndexValues = [index + 1]
    frame_type = Dataset()
    frame_type.FrameType = [*scan.image_type, "NONE"]
    item.FrameContentSequence = DicomSequence([content])
    item.PlanePositionSequence = DicomSequence([position])
    item.PixelValueTransformationSequence = DicomSequence([values])
    item.CTImageFrameTypeSequence = DicomSequence([frame_type])
    return item, _stored(phantom.hu[index], scan, slope, intercept).tobytes()


def decimals(values: Sequence[float] | Floats) -> list[str]:
    """Numbers as DS: at most 16 characters (PS3.5 6.2), some ten significant digits."""
    return [f"{value:.9g}"[:16] for value in values]


def _stored(hu: Shorts, scan: Scan, slope: float, intercept: float) -> NDArray[np.integer[Any]]:
    values = np.rint((hu.astype(np.float64) - intercept) / slope)
    half = 2 ** (scan.bits_stored - 1)
    low, high = (-half, half - 1) if scan.signed else (0, 2 * half - 1)
    if values.min() < low or values.max() > high:
        raise ValueError(f"HU {hu.min()} to {hu.max()} do not fit {scan.bits_stored} bits")
    return values.astype("<i2" if scan.signed else "<u2")


def _measures(phantom: Phantom, scan: Scan) -> Dataset:
    measures = Dataset()
    measures.PixelSpacing = decimals(phantom.grid.pixel_spacing)
    step = float(phantom.affine[:3, 0] @ phantom.grid.normal)
    thickness = abs(step) if scan.thickness_mm is None else scan.thickness_mm
    measures.SliceThickness = decimals([thickness])[0]
    if scan.spacing_between_slices_mm is not None:
        measures.SpacingBetweenSlices = decimals([scan.spacing_between_slices_mm])[0]
    return measures


def _common(phantom: Phantom, scan: Scan, sop_instance_uid: UID, sop_class_uid: UID) -> Dataset:
    dataset = Dataset()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if scan.implicit_vr else ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = list(scan.image_type)
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20260102"
    dataset.ContentDate = "20260102"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "030405"
    dataset.ContentTime = "030405"
    dataset.AccessionNumber = f"A{phantom.seed}"
    dataset.Modality = scan.modality
    dataset.Manufacturer = "Phantom Works"
    dataset.ManufacturerModelName = "Thorax"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Phantom study"
    dataset.SeriesDescription = scan.description
    dataset.PatientName = scan.patient_name
    dataset.PatientID = scan.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.BodyPartExamined = "CHEST"
    dataset.KVP = "120"
    dataset.ConvolutionKernel = scan.kernel
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = uid(phantom, scan.study, "study")
    dataset.SeriesInstanceUID = uid(phantom, scan.study, scan.series)
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.FrameOfReferenceUID = uid(phantom, scan.study, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = scan.photometric
    dataset.Rows, dataset.Columns = phantom.grid.rows, phantom.grid.columns
    dataset.BitsAllocated = 16
    dataset.BitsStored = scan.bits_stored
    dataset.HighBit = scan.bits_stored - 1
    dataset.PixelRepresentation = int(scan.signed)
    if scan.padding_value is not None:
        dataset.add_new("PixelPaddingValue", "SS" if scan.signed else "US", scan.padding_value)
    if scan.padding_range_limit is not None:
        limit = scan.padding_range_limit
        dataset.add_new("PixelPaddingRangeLimit", "SS" if scan.signed else "US", limit)
    return dataset
