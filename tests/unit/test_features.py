"""Feature vectors: the same image, the same bytes; a noisy copy is nearer than another region.

Not covered: whether likeness helps a clinician; search over many vectors.
"""

from functools import cache

import highdicom as hd
import numpy as np
import pytest

from inference import features
from inference.features import FeatureVector, describe, explain
from inference.findings import Acquisition, Findings, Image, Verdict
from inference.models import lung_ct
from inference.phantom import thorax

LENGTHS = {"intensity": 160, "edges": 864, "texture": 36, "shape": 64, "header": 256}
NOTHING = Findings(verdict=Verdict.NOT_ANALYSED, reason="not a chest")
CT = Acquisition(modality="CT", slice_thickness_mm=3.0, convolution_kernel="STANDARD")


def image(hu: np.ndarray, affine: np.ndarray, modality: str = "CT") -> Image:
    volume = hd.Volume(np.ascontiguousarray(hu), affine, "PATIENT")
    acquisition = CT if modality == "CT" else Acquisition(modality=modality)
    return Image(volume=volume, acquisition=acquisition)


def chest() -> Image:
    phantom = thorax()
    return image(phantom.hu, phantom.affine)


def noisy() -> Image:
    phantom = thorax()
    noise = np.random.default_rng(1).normal(0, 60, phantom.hu.shape)
    return image(np.clip(phantom.hu + noise, -1024, 3000).astype(np.int16), phantom.affine)


def resampled() -> Image:
    phantom = thorax()
    affine = phantom.affine @ np.diag([1.0, 2.0, 2.0, 1.0])
    return image(phantom.hu[:, ::2, ::2], affine)


def belly() -> Image:
    """Another region: soft tissue from end to end with pockets of gas."""
    phantom = thorax()
    hu = phantom.hu.copy()
    for name in ("right_lung", "left_lung", "airway"):
        hu[phantom.truth[name]] = 50
    hu[20:50, 60:80, 70:110] = -990
    return image(hu, phantom.affine)


@cache
def vectors(name: str) -> dict[str, FeatureVector]:
    made = {"chest": chest, "noisy": noisy, "resampled": resampled, "belly": belly}[name]()
    findings = lung_ct.load({}).predict(made)
    text = "CT abdomen routine" if name == "belly" else "CT chest lung routine"
    return {vector.kind: vector for vector in describe(made, findings, text)}


def distance(kind: str, one: str, other: str) -> float:
    return float(np.linalg.norm(vectors(one)[kind].values - vectors(other)[kind].values))


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("copy", ["noisy", "resampled"])
def test_a_copy_is_nearer_than_another_region(kind: str, copy: str) -> None:
    assert distance(kind, "chest", copy) < 0.5 * distance(kind, "chest", "belly")


@pytest.mark.parametrize("kind", LENGTHS)
def test_lengths_and_values(kind: str) -> None:
    vector = vectors("chest")[kind]
    assert vector.values.dtype == np.float32
    assert vector.values.shape == (LENGTHS[kind],)
    assert np.isfinite(vector.values).all()
    assert vector.version == features.VERSION


def test_the_same_image_gives_the_same_bytes() -> None:
    again = describe(chest(), NOTHING, "CT chest")
    once_more = describe(chest(), NOTHING, "CT chest")
    assert [v.values.tobytes() for v in again] == [v.values.tobytes() for v in once_more]


@pytest.mark.parametrize(
    "shape", [(1, 200, 160), (3, 64, 64), (40, 40, 40)], ids=["plane", "few slices", "cube"]
)
def test_any_image_has_vectors_of_the_same_lengths(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(2).integers(0, 500, shape).astype(np.int16)
    found = describe(image(values, np.eye(4), "MR"), NOTHING, "")
    assert {v.kind: v.values.size for v in found} == LENGTHS
    assert all(np.isfinite(v.values).all() for v in found)


def test_an_empty_image_is_described_too() -> None:
    found = describe(image(np.full((20, 30, 30), -1000, np.int16), np.eye(4)), NOTHING, "")
    assert all(np.isfinite(v.values).all() for v in found)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("intensity", "densities overlap by"),
        ("edges", "from the front"),
        ("texture", "most in"),
        ("shape", "body"),
        ("header", "words agree by"),
    ],
)
def test_reasons_are_words(kind: str, words: str) -> None:
    one, other = vectors("chest")[kind].values, vectors("belly")[kind].values
    assert words in explain(kind, one, other)
    assert explain(kind, one, one) != explain(kind, one, other)


def test_no_reason_for_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="allowed: intensity"):
        explain("taste", np.zeros(1, np.float32), np.zeros(1, np.float32))
