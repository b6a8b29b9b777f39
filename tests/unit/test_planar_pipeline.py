"""From instances to findings and feature vectors of planar images, and what is refused.

Not covered: the result objects themselves (tests of the encoding), real images
(tests/acceptance/test_planar.py).
"""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from inference import phantom, pipeline, planar, view_features
from inference.encoding import Provenance
from inference.encoding.common import to_bytes
from inference.findings import Findings, Verdict
from inference.models import body_outline
from inference.pipeline import Analysis, Options
from tests.pictures import CINE, CR, PHOTO, gradient, picture
from tests.planar_models import brightest

PROVENANCE = Provenance(
    model_name="brightest", model_version="1.0.0", configuration="c", fingerprint="f"
)
EVEN = np.full((12, 16), 7, np.uint16)


def spot(at: tuple[int, int], shape: tuple[int, int] = (12, 16)) -> NDArray[np.uint16]:
    """Dark but for 3 x 3 pixels, of which the middle one is the brightest."""
    made = np.zeros(shape, np.uint16)
    made[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2] = 900
    made[at] = 1000
    return made


def analysed(datasets: list[Dataset], **options: bool) -> Analysis:
    return pipeline.analyse(datasets, brightest.load({}), PROVENANCE, Options(**options))


def test_each_view_has_its_findings() -> None:
    places = [(3, 4), (8, 10)]
    made = [picture(spot(at), name=str(n)) for n, at in enumerate(places, start=1)]
    analysis = analysed(made)
    assert analysis.findings.verdict is Verdict.MEASURED
    assert analysis.findings.limitations == ("a test's model",)
    assert analysis.reason is None
    assert analysis.stack is None
    found = [one.keypoints[0].position for one in analysis.by_view]
    assert found == [(column, row) for row, column in places]


def test_each_frame_has_its_findings() -> None:
    cine = np.stack([spot((3, 4)), spot((5, 6))]) // 4
    made = picture(cine.astype(np.uint8), CINE, frames=2, Modality="US")
    found = [one.keypoints[0].position for one in analysed([made]).by_view]
    assert found == [(4, 3), (6, 5)]


def test_one_measured_view_is_enough_and_the_others_are_told() -> None:
    made = [picture(spot((3, 4))), *(picture(EVEN, name=str(n)) for n in (2, 3))]
    analysis = analysed(made)
    assert analysis.findings.verdict is Verdict.MEASURED
    assert analysis.reason == "2 of 3 images not analysed: no contrast"


def test_nothing_analysed_gives_a_report_that_says_so() -> None:
    made = [picture(EVEN), picture(EVEN, name="2")]
    analysis = analysed(made)
    assert analysis.findings.verdict is Verdict.NOT_ANALYSED
    assert analysis.reason == "2 of 2 images not analysed: no contrast"
    ((kind, report),) = analysis.objects
    assert kind == "measurement_report"
    assert b"Not analysed: 2 of 2 images not analysed: no contrast" in to_bytes(report)
    assert analysed([picture(EVEN)]).reason == "no contrast"
    assert analysed([picture(EVEN)], report_not_analysed=False).objects == ()


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["withheld", "not_analysed"], "withheld"),
        (["not_analysed", "measured", "withheld"], "measured"),
        (["not_analysed"], "not_analysed"),
    ],
)
def test_the_verdict_on_all(verdicts: list[str], expected: str) -> None:
    each = [
        Findings(verdict=Verdict(one), reason=None if one == "measured" else f"why {one}")
        for one in verdicts
    ]
    together = pipeline.verdict_on(each)
    assert together.verdict == expected
    assert (together.reason is None) == (expected == "measured")


def test_another_modality_is_not_shown_to_the_model() -> None:
    analysis = analysed([picture(spot((3, 4)), Modality="IO")])
    assert analysis.findings.verdict is Verdict.NOT_ANALYSED
    assert analysis.reason == "not a CR or DX or MG or US or XC or OT image but IO"


def test_slices_are_refused_by_a_model_of_planar_images() -> None:
    chest = phantom.datasets(phantom.thorax((4, 16, 16), (30.0, 24.0, 24.0)))
    analysis = analysed(chest)
    assert analysis.findings.verdict is Verdict.NOT_ANALYSED
    assert analysis.reason == "no planar images: 4 x CT Image Storage: not a planar image"
    assert analysis.views is None
    assert len(analysis.objects) == 1


def test_planar_images_of_several_series_are_not_combined() -> None:
    both = pipeline.Companions(role="PA", others={"lateral": [picture(spot((3, 4)), name="2")]})
    analysis = pipeline.analyse(
        [picture(spot((3, 4)))], brightest.load({}), PROVENANCE, Options(), both
    )
    assert analysis.findings.verdict is Verdict.NOT_ANALYSED
    assert analysis.reason == pipeline.NOT_COMBINED


def test_planar_images_are_refused_by_a_model_of_volumes() -> None:
    model = body_outline.load({})
    analysis = pipeline.analyse([picture(spot((3, 4)))], model, PROVENANCE, Options())
    assert analysis.findings.verdict is Verdict.NOT_ANALYSED
    wanted = "no slice images: 1 x Computed Radiography Image Storage: not a slice image"
    assert analysis.reason == wanted


def test_the_same_images_give_the_same_bytes_whatever_their_order() -> None:
    made = [picture(spot((3, 4 + n)), name=str(n)) for n in range(1, 4)]

    def digests(datasets: list[Dataset]) -> list[str]:
        objects = analysed(datasets).objects
        return [hashlib.sha256(to_bytes(one)).hexdigest() for _, one in objects]

    first = digests(made)
    assert len(first) > 1
    assert digests(made[::-1]) == first


def vectors(datasets: list[Dataset]) -> dict[str, NDArray[np.float32]]:
    described = pipeline.describe_views(planar.read(datasets))
    return {one.kind: one.values for one in described}


LENGTHS = {"view_intensity": 224, "view_edges": 288, "view_texture": 24, "header": 256}


def test_lengths_and_values_of_the_feature_vectors() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    pictures = [
        picture(gradient(), CR),
        picture(EVEN, CR),
        picture(colour, PHOTO, colour=True, Modality="XC"),
        picture(np.ones((1, 1), np.uint16)),
        picture(gradient(300, 200)),
    ]
    for one in pictures:
        found = vectors([one])
        assert {kind: values.size for kind, values in found.items()} == LENGTHS
        for values in found.values():
            assert values.dtype == np.float32
            assert np.isfinite(values).all()


def landscape(seed: int) -> NDArray[np.uint16]:
    """Hills and valleys of values up to 1000."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(200, 160)), 12)
    return ((field - field.min()) / np.ptp(field) * 1000).astype(np.uint16)


def test_a_noisy_copy_is_nearer_than_another_picture() -> None:
    noise = np.random.default_rng(0).normal(0, 25, (200, 160))
    plain, other = landscape(1), landscape(2)
    noisy = (plain + noise).clip(0).astype(np.uint16)
    one, copy, another = (vectors([picture(each)]) for each in (plain, noisy, other))
    for kind in ("view_intensity", "view_edges"):
        near = np.linalg.norm(one[kind] - copy[kind])
        assert near < 0.5 * np.linalg.norm(one[kind] - another[kind]), kind


def test_turned_radiographs_are_the_same() -> None:
    plain = picture(gradient(), BitsStored=12, HighBit=11)
    turned = picture(
        4095 - gradient(), BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1"
    )
    for kind, values in vectors([plain]).items():
        assert np.array_equal(values, vectors([turned])[kind]), kind


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("view_intensity", "brightness and colour overlap by"),
        ("view_edges", "outlines agree by"),
        ("view_texture", "texture differs by"),
        ("header", "the header's words agree by"),
    ],
)
def test_likeness_is_told_in_words(kind: str, words: str) -> None:
    one, other = vectors([picture(gradient())]), vectors([picture(spot((3, 4)))])
    assert view_features.explain(kind, one[kind], other[kind]).startswith(words)


def test_an_unknown_kind_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="no kind of feature"):
        view_features.explain("view_smell", np.zeros(1, "f4"), np.zeros(1, "f4"))
