"""Planar images of a series as a few short vectors that find similar ones.

Kinds: `view_intensity` (histograms of red, green and blue, and of four quarters), `view_edges`
(gradients of the picture), `view_texture` (grey-level co-occurrence in it); they are means over the
images, at most MOST_VIEWS of them, spread evenly. They are never compared with those of volumes,
whose kinds are others; `header` (the words of the header) is the same for both. Lengths in the
patient are not used: many pictures state none.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference import features
from inference.blocks import blocks, pool
from inference.features import BINS, GREYS, HARALICK, FeatureVector, Values
from inference.findings import PlanarImage

VERSION = "1"
SIDE = 128  # a picture is described at about so many pixels a side
MOST_VIEWS = 16
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
CHANNELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one picture says."""

    intensity: Values
    edges: Values
    texture: Values


def places(count: int) -> tuple[int, ...]:
    """Which of so many images describe their series, ascending."""
    spread = np.linspace(0, count - 1, min(count, MOST_VIEWS)).round()
    return tuple(int(place) for place in spread)


def vectors(images: Iterable[PlanarImage], header_text: str) -> tuple[FeatureVector, ...]:
    """One vector of every kind, of at least one image; each is looked at before the next comes."""
    looks = [look(image) for image in images]
    made = {
        "view_intensity": [one.intensity for one in looks],
        "view_edges": [one.edges for one in looks],
        "view_texture": [one.texture for one in looks],
    }
    means = tuple(
        FeatureVector(kind=kind, version=VERSION, values=np.mean(found, axis=0, dtype=np.float32))
        for kind, found in made.items()
    )
    words = features.words(header_text)
    return (*means, FeatureVector(kind="header", version=features.VERSION, values=words))


def look(image: PlanarImage) -> Look:
    """One picture, its brightness from the 1st to the 99th percentile, or its colours."""
    channels = _scaled(image)
    grey = channels @ LUMINANCE
    return Look(
        intensity=_intensity(channels, grey), edges=features.gradients(grey), texture=_texture(grey)
    )


def _scaled(image: PlanarImage) -> Values:
    """(row, column, 3) from 0 to 1, at about SIDE pixels a side."""
    if image.pixels.dtype == np.uint8:
        planes = [_reduced(image.pixels[..., channel], (0.0, 255.0)) for channel in range(CHANNELS)]
        return np.stack(planes, axis=-1)
    grey = _reduced(image.pixels, features.percentiles(image.pixels))
    return np.repeat(grey[..., np.newaxis], CHANNELS, axis=-1)


def _reduced(plane: NDArray[np.generic], limits: tuple[float, float]) -> Values:
    """Block means of a plane, from 0 to 1."""
    volume = plane[np.newaxis]
    steps = (1.0, *(SIDE / size for size in plane.shape))
    grid = blocks((1, *plane.shape), steps, cell_mm=1.0)
    means: Values = pool(volume, grid, limits=limits)[0]
    zoom = [SIDE / size for size in means.shape]
    square = ndimage.zoom(means, zoom, order=1, mode="nearest", grid_mode=True)
    scaled: Values = ((square - limits[0]) / max(limits[1] - limits[0], 1e-6)).astype(np.float32)
    return scaled


def _intensity(channels: Values, grey: Values) -> Values:
    """Of each channel, then of the quarters: upper left, upper right, lower left, lower right."""
    whole = [features.histogram(channels[..., channel]) for channel in range(CHANNELS)]
    halves = np.array_split(grey, 2)
    quarters = [quarter for half in halves for quarter in np.array_split(half, 2, axis=1)]
    return np.concatenate([*whole, *(features.histogram(quarter) for quarter in quarters)])


DIRECTIONS = ((0, 1), (1, 0), (1, 1))


def _texture(grey: Values) -> Values:
    """Haralick's features in four directions."""
    levels = np.clip(grey * GREYS, 0, GREYS - 1).astype(np.intp)
    everywhere = np.ones(levels.shape, np.bool_)
    matrices = [features.pairs(levels, everywhere, step) for step in DIRECTIONS]
    matrices.append(features.pairs(levels[:, ::-1], everywhere, (1, 1)))
    return np.concatenate([features.haralick(one) for one in matrices]).astype(np.float32)


def explain(kind: str, a: Values, b: Values) -> str:
    """Why two vectors of this kind, of pictures or of volumes, are near or far, in words.

    Raises ValueError for no kind.
    """
    reasons = {
        "view_intensity": _explain_intensity,
        "view_edges": _explain_edges,
        "view_texture": _explain_texture,
    }
    return reasons[kind](a, b) if kind in reasons else features.explain(kind, a, b)


QUARTERS = ("upper left", "upper right", "lower left", "lower right")


def _explain_intensity(a: Values, b: Values) -> str:
    pairs = zip(a.reshape(-1, BINS), b.reshape(-1, BINS), strict=True)
    shares = [features.overlap(x, y) for x, y in pairs]
    colours, quarters = shares[:CHANNELS], shares[CHANNELS:]
    worst = int(np.argmin(quarters))
    return (
        f"brightness and colour overlap by {min(colours):.0%}, "
        f"least in the {QUARTERS[worst]} ({quarters[worst]:.0%})"
    )


def _explain_edges(a: Values, b: Values) -> str:
    return f"outlines agree by {features.overlap(a, b):.0%}"


def _explain_texture(a: Values, b: Values) -> str:
    apart = np.abs(a.reshape(-1, len(HARALICK)) - b.reshape(-1, len(HARALICK))).mean(axis=0)
    return f"texture differs by {apart.mean():.2f}, most in {HARALICK[int(apart.argmax())]}"
