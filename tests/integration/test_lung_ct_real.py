"""lung_ct on two real studies: a chest that is measured, an abdomen that is not analysed.

The chest's voxel counts were pinned after its masks had been looked at slice by slice. They show
that nothing changed unseen, not that the borders are those an expert would draw: there is no
reference segmentation of it. Not covered: other scanners, diseased lungs, thin slices.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from inference import volume
from inference.features import describe
from inference.findings import Findings, Image, Verdict
from inference.models import lung_ct

pytestmark = pytest.mark.shared_data

VOXELS = {
    "Right lung": 1_224_242,
    "Left lung": 984_513,
    "Trachea and main bronchi": 22_013,
}


def image(archive: Path) -> Image:
    with tarfile.open(archive, "r:xz") as packed:
        files = [packed.extractfile(member) for member in packed if member.isfile()]
        return volume.read([pydicom.dcmread(io.BytesIO(f.read())) for f in files if f]).image


@pytest.fixture(scope="module")
def chest(data: Path) -> Image:
    return image(data / "ct-chest-ge.tar.xz")


@pytest.fixture(scope="module")
def findings(chest: Image) -> Findings:
    return lung_ct.load({}).predict(chest)


def test_the_chest_is_measured_with_its_voxel_counts(findings: Findings) -> None:
    assert findings.verdict is Verdict.MEASURED
    found = {s.definition.label: int(np.count_nonzero(s.mask.array)) for s in findings.segments}
    assert found == VOXELS


def test_its_limits_are_in_words(findings: Findings) -> None:
    text = " ".join(findings.limitations)
    assert "The right lung reaches the lowest slice (22% of its largest cross-section)" in text
    assert "The left lung reaches the lowest slice (4% of its largest cross-section)" in text
    assert "its lowest recesses are missing" in text
    assert "The kernel LUNG enhances edges" in text
    assert "Contrast agent is in the vessels" in text  # the header does not say so


def test_what_is_measured_is_plausible(findings: Findings) -> None:
    numbers = {(m.segment, m.name.value): m.value for m in findings.measurements}
    assert numbers[None, "LUNGSVOL"] == pytest.approx(4457.2, abs=0.1)
    assert numbers["Trachea and main bronchi", "118565006"] == pytest.approx(44.4, abs=0.1)
    for lung in ("Right lung", "Left lung"):
        assert -830 < numbers[lung, "112031"] < -780
        assert 8.0 < numbers[lung, "LAA950"] < 8.3  # too high: a lung kernel
        assert -927 < numbers[lung, "PERC15"] < -924


def test_the_lungs_lie_on_their_sides_and_the_trachea_between(
    chest: Image, findings: Findings
) -> None:
    places = {}
    for segment in findings.segments:
        indices = np.argwhere(segment.mask.array).mean(axis=0)
        places[segment.definition.label] = float((chest.volume.affine @ [*indices, 1])[0])
    assert places["Right lung"] < places["Trachea and main bronchi"] < places["Left lung"]


def test_the_abdomen_is_not_analysed_and_why(data: Path, chest: Image, findings: Findings) -> None:
    abdomen = image(data / "ct-abdomen-pelvis-ge-lowdose.tar.xz")
    refused = lung_ct.load({}).predict(abdomen)
    assert refused.verdict is Verdict.NOT_ANALYSED
    assert "only a part of the lungs lies in the stack and no trachea" in str(refused.reason)
    for one, other in zip(
        describe(chest, findings, "chest"), describe(abdomen, refused, "abdomen"), strict=True
    ):
        assert np.linalg.norm(one.values - other.values) > 0.5
