"""An image as a few short vectors that find similar studies: the same image, the same bytes.

Kinds: `intensity` (histograms of the body, whole and in four levels), `edges` (gradients of three
projections), `texture` (grey-level co-occurrence in the segmented region), `shape` (extents,
segments, measurements), `header` (the words of the header). Vectors of one kind and version have
one length and are compared by Euclidean distance. Everything is computed at 4 mm, so noise and
resampling matter little. They describe likeness of images, not of diseases.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import hog

from inference import regions
from inference.blocks import Blocks, Densities, blocks, pool, share
from inference.findings import Findings, Image, Measurement
from inference.regions import Box, Region

VERSION = "1"
CELL_MM = 4.0
CT_RANGE = (-1024.0, 1024.0)
CT_BODY_HU = -500.0
OTHER_BODY = 0.1  # of the range between the 1st and the 99th percentile

Mask = NDArray[np.bool_]
Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureVector:
    """`values`: float32, one dimension; comparable within one (kind, version)."""

    kind: str
    version: str
    values: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An image at CELL_MM, grey from 0 to 1, axes (head, back, left), and what it alone says."""

    grey: Densities
    body: Mask
    intensity: Values
    edges: Values


def describe(image: Image, findings: Findings, header_text: str) -> tuple[FeatureVector, ...]:
    """One vector of every kind. `header_text`: descriptions and protocol, no identifiers."""
    return vectors(look(image), outlines(findings, image.volume), findings, header_text)


def vectors(
    view: View, segments: Sequence[Mask], findings: Findings, header_text: str
) -> tuple[FeatureVector, ...]:
    """As `describe`, of what `look` and `outlines` gave: they are most of the computation."""
    made = {
        "intensity": view.intensity,
        "edges": view.edges,
        "texture": _texture(view, segments),
        "shape": _shape(view.body, segments, findings.measurements),
        "header": words(header_text),
    }
    return tuple(
        FeatureVector(kind=kind, version=VERSION, values=values.astype(np.float32))
        for kind, values in made.items()
    )


def look(image: Image) -> View:
    """What does not depend on what is found in the image."""
    upright = image.volume.to_patient_orientation("HPL")
    is_ct = image.acquisition.modality == "CT"
    limits = CT_RANGE if is_ct else percentiles(upright.array)
    grid = _blocks(upright)
    coarse = _resampled(pool(upright.array, grid, limits=limits), grid)
    grey = (coarse - limits[0]) / max(limits[1] - limits[0], 1e-6)
    floor = (CT_BODY_HU - limits[0]) / (limits[1] - limits[0]) if is_ct else OTHER_BODY
    body = _filled(grey > floor)
    return View(grey=grey, body=body, intensity=_intensity(grey, body), edges=_edges(grey, body))


def _blocks(volume: hd.Volume | hd.VolumeGeometry) -> Blocks:
    """Of about CELL_MM."""
    (slices, rows, columns), (depth, height, width) = volume.spatial_shape, volume.spacing
    spacing = (float(depth), float(height), float(width))
    return blocks((slices, rows, columns), spacing, cell_mm=CELL_MM)


def percentiles(values: NDArray[np.generic]) -> tuple[float, float]:
    """The 1st and the 99th, never the same, of about a million of the values."""
    step = max(1, values.size // 1_000_000)
    low, high = np.percentile(values.ravel()[::step].astype(np.float32), (1, 99))
    return float(low), float(max(high, low + 1e-6))


def _resampled(means: Densities, grid: Blocks) -> Densities:
    """Block means to CELL_MM by linear interpolation: no aliasing, no dependence on the grid."""
    zoom = [
        max(1, round(size * step / CELL_MM)) / size
        for size, step in zip(means.shape, grid.spacing, strict=True)
    ]
    coarse: Densities = ndimage.zoom(means, zoom, order=1, mode="nearest", grid_mode=True)
    return coarse


def outlines(findings: Findings, volume: hd.Volume) -> tuple[Mask, ...]:
    """The segments in an image of this volume at CELL_MM, in the axes of a view."""
    upright = volume.get_geometry().to_patient_orientation("HPL")
    grid = _blocks(upright)
    return tuple(
        _coarse(regions.on_grid(one.mask.to_patient_orientation("HPL"), upright), grid)
        for one in findings.segments
    )


def _coarse(region: Region, grid: Blocks) -> Mask:
    """What of it remains at CELL_MM; only the blocks that it touches are counted."""
    cells = grid.cells(region.box)
    shares = np.zeros(grid.shape, np.float32)
    shares[cells] = share(*_within(region, grid, grid.coarse_box(cells)))
    coarse: Mask = _resampled(shares, grid) >= 0.5
    return coarse


def _within(region: Region, grid: Blocks, box: Box) -> tuple[Mask, Blocks]:
    """The region in a box of whole blocks, and these blocks."""
    depth, height, width = (part.stop - part.start for part in box)
    inside = tuple(
        slice(own.start - outer.start, own.stop - outer.start)
        for own, outer in zip(region.box, box, strict=True)
    )
    mask = np.zeros((depth, height, width), np.bool_)
    mask[inside] = region.mask
    return mask, replace(grid, fine=(depth, height, width))


def _filled(tissue: Mask) -> Mask:
    labels, count = ndimage.label(tissue)
    if count == 0:
        return np.ones(tissue.shape, np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body: Mask = labels == int(sizes.argmax())
    for level in body:
        level[:] = ndimage.binary_fill_holes(level)
    return body


BINS = 32
LEVELS = 4


def _intensity(grey: Densities, body: Mask) -> Values:
    """Square roots of smoothed histograms (Hellinger): (1 + LEVELS) x BINS."""
    levels = zip(np.array_split(grey, LEVELS), np.array_split(body, LEVELS), strict=True)
    return np.concatenate([histogram(part[inside]) for part, inside in [(grey, body), *levels]])


def histogram(values: Values) -> Values:
    """The square roots of the smoothed shares of BINS grey levels from 0 to 1."""
    counts = np.histogram(values, bins=BINS, range=(0.0, 1.0))[0].astype(np.float64)
    smooth = ndimage.gaussian_filter1d(counts, 1.0, mode="nearest")
    roots: Values = np.sqrt(smooth / max(smooth.sum(), 1.0)).astype(np.float32)
    return roots


PROJECTION = 64
HOG_CELL = 16
ORIENTATIONS = 8
BLOCK = 2


def _edges(grey: Densities, body: Mask) -> Values:
    """Histograms of oriented gradients (Dalal, Triggs 2005) of three mean projections.

    A mean projection of the body shows what a radiograph shows; a maximum would hide the lungs.
    """
    box = ndimage.find_objects(body.astype(np.uint8))[0]
    return np.concatenate([gradients(_projection(grey[box], body[box], axis)) for axis in range(3)])


def _projection(grey: Densities, body: Mask, axis: int) -> Values:
    depth = np.maximum(body.sum(axis=axis), 1)
    mean: Values = (np.where(body, grey, 0.0).sum(axis=axis) / depth).astype(np.float32)
    return mean


def gradients(plane: Values) -> Values:
    """Histograms of oriented gradients of a picture (rows, columns), length 1."""
    zoom = [PROJECTION / size for size in plane.shape]
    square = ndimage.zoom(plane, zoom, order=1, mode="nearest", grid_mode=True)
    values = hog(
        ndimage.gaussian_filter(square, 1.0),
        orientations=ORIENTATIONS,
        pixels_per_cell=(HOG_CELL, HOG_CELL),
        cells_per_block=(BLOCK, BLOCK),
    )
    length = float(np.linalg.norm(values))
    scaled: Values = (values / length if length else values).astype(np.float32)
    return scaled


GREYS = 16
DIRECTIONS = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))
HARALICK = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")


def _texture(view: View, segments: Sequence[Mask]) -> Values:
    """Haralick's features in six directions, of the segments or, without any, of the body."""
    region = np.zeros(view.body.shape, np.bool_)
    for mask in segments:
        region |= mask
    region = region if region.any() else view.body
    levels = np.minimum((view.grey * GREYS).astype(np.intp), GREYS - 1)
    features = [haralick(pairs(levels, region, step)) for step in DIRECTIONS]
    return np.concatenate(features).astype(np.float32)


def pairs(levels: NDArray[np.intp], region: Mask, step: Sequence[int]) -> NDArray[np.float64]:
    """The symmetric, normalised co-occurrence matrix of neighbours that both lie in the region."""
    here = tuple(slice(0, size - move) for size, move in zip(levels.shape, step, strict=True))
    there = tuple(slice(move, size) for size, move in zip(levels.shape, step, strict=True))
    both = region[here] & region[there]
    index = levels[here][both] * GREYS + levels[there][both]
    counts = np.bincount(index, minlength=GREYS * GREYS).reshape(GREYS, GREYS).astype(np.float64)
    counts += counts.T
    matrix: NDArray[np.float64] = counts / max(counts.sum(), 1.0)
    return matrix


def haralick(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """HARALICK of one matrix, each scaled to about 0..1."""
    i, j = np.indices(matrix.shape)
    mean = float((i * matrix).sum())
    variance = float(((i - mean) ** 2 * matrix).sum())
    covariance = float(((i - mean) * (j - mean) * matrix).sum())
    positive = matrix[matrix > 0]
    apart = np.abs(i - j)
    return np.array(
        [
            float((apart**2 * matrix).sum()) / GREYS,
            float((apart * matrix).sum()) / GREYS * 4,
            float((matrix / (1 + apart**2)).sum()),
            float(np.sqrt((matrix**2).sum())),
            covariance / variance if variance > 0 else 1.0,
            float(-(positive * np.log2(positive)).sum()) / (2 * np.log2(GREYS)),
        ]
    )


SEGMENT_SLOTS = 4
SEGMENT_NUMBERS = 7  # volume, three extents, centre relative to the body
MEASUREMENT_SLOTS = 32
EXTENT_UNIT_MM = 300.0
VOLUME_UNIT_CM3 = 3000.0


def _shape(body: Mask, segments: Sequence[Mask], measurements: Sequence[Measurement]) -> Values:
    """The body's extents and volume, then each segment's, then measurements in hashed places."""
    box = ndimage.find_objects(body.astype(np.uint8))[0]
    start = np.array([part.start for part in box], np.float64)
    size = np.array([part.stop - part.start for part in box], np.float64)
    numbers = [*(size * CELL_MM / EXTENT_UNIT_MM), _litres(body)]
    slots = np.zeros((SEGMENT_SLOTS, SEGMENT_NUMBERS))
    for slot, mask in zip(slots, segments, strict=False):
        if mask.any():
            slot[:] = _segment_numbers(mask, start, size)
    return np.concatenate([numbers, slots.ravel(), _hashed(measurements)]).astype(np.float32)


def _litres(mask: Mask) -> float:
    return float(mask.sum()) * CELL_MM**3 / 1000 / VOLUME_UNIT_CM3


def _segment_numbers(
    mask: Mask, start: NDArray[np.float64], size: NDArray[np.float64]
) -> list[float]:
    places = np.nonzero(mask)
    extents = [(float(np.ptp(axis)) + 1) * CELL_MM / EXTENT_UNIT_MM for axis in places]
    centre = (np.array([axis.mean() for axis in places]) - start) / size
    return [_litres(mask), *extents, *(float(value) for value in centre)]


def _hashed(measurements: Sequence[Measurement]) -> NDArray[np.float64]:
    slots = np.zeros(MEASUREMENT_SLOTS)
    for item in measurements:
        name = f"{item.segment}|{item.name.scheme_designator}|{item.name.value}"
        slots[zlib.crc32(name.encode()) % MEASUREMENT_SLOTS] += np.arcsinh(item.value / 100) / 10
    return slots


HEADER_SLOTS = 256
GRAM = 3


def words(text: str) -> Values:
    """Three-letter pieces of the words, hashed and counted; length 1, or 0 for no text."""
    counts = np.zeros(HEADER_SLOTS)
    for word in re.findall(r"\w+", text.lower()):
        padded = f" {word} "
        for at in range(len(padded) - GRAM + 1):
            counts[zlib.crc32(padded[at : at + GRAM].encode()) % HEADER_SLOTS] += 1
    length = float(np.linalg.norm(np.sqrt(counts)))
    values: Values = (np.sqrt(counts) / length if length else counts).astype(np.float32)
    return values


def explain(kind: str, a: Values, b: Values) -> str:
    """Why two vectors of this kind are near or far, in words; raises ValueError for no kind."""
    reasons = {
        "intensity": _explain_intensity,
        "edges": _explain_edges,
        "texture": _explain_texture,
        "shape": _explain_shape,
        "header": _explain_header,
    }
    if kind not in reasons:
        raise ValueError(f"{kind} is no kind of feature; allowed: {', '.join(reasons)}")
    return reasons[kind](a, b)


def overlap(a: Values, b: Values) -> float:
    """The cosine of two vectors that are not negative, 0 to 1."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b)) / lengths if lengths else 0.0


def _explain_intensity(a: Values, b: Values) -> str:
    places = ("whole", "lowest quarter", "second quarter", "third quarter", "highest quarter")
    shares = [overlap(x, y) for x, y in zip(a.reshape(-1, BINS), b.reshape(-1, BINS), strict=True)]
    worst = int(np.argmin(shares[1:])) + 1
    return (
        f"densities overlap by {shares[0]:.0%}, least in the {places[worst]} ({shares[worst]:.0%})"
    )


def _explain_edges(a: Values, b: Values) -> str:
    names = ("from above", "from the front", "from the side")
    parts = [
        f"{name} {overlap(x, y):.0%}"
        for name, x, y in zip(names, np.split(a, 3), np.split(b, 3), strict=True)
    ]
    return f"outlines agree seen {', '.join(parts)}"


def _explain_texture(a: Values, b: Values) -> str:
    size = len(HARALICK)
    apart = np.abs(a.reshape(-1, size).mean(axis=0) - b.reshape(-1, size).mean(axis=0))
    return f"texture differs by {apart.mean():.2f}, most in {HARALICK[int(apart.argmax())]}"


def _explain_shape(a: Values, b: Values) -> str:
    one, other = (
        " x ".join(f"{value * EXTENT_UNIT_MM:.0f}" for value in vector[:3]) for vector in (a, b)
    )
    segments = [
        float(vector[4 : 4 + SEGMENT_SLOTS * SEGMENT_NUMBERS : SEGMENT_NUMBERS].sum())
        * VOLUME_UNIT_CM3
        for vector in (a, b)
    ]
    return (
        f"body {one} mm against {other} mm; "
        f"segments {segments[0]:.0f} cm3 against {segments[1]:.0f} cm3"
    )


def _explain_header(a: Values, b: Values) -> str:
    return f"the header's words agree by {overlap(a, b):.0%}"
