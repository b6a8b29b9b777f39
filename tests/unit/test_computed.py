"""A result says how it was computed, and computed otherwise it is another instance of its series.

From a model's answer to the objects; what an engine says of itself is in test_residency.py,
test_bare_engine.py and integration/test_engine.py. Not covered: GPUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import Dataset

from inference import pipeline, volume
from inference.arrays.model import ArrayModel
from inference.arrays.options import parse
from inference.arrays.running import Network, Runner
from inference.encoding.common import to_bytes
from inference.findings import Computation, Findings, Image, PlanarImage, Verdict
from inference.pipeline import Analysis, Options
from inference.planar import Views
from inference.requirements import Requirements
from tests import encoded
from tests.array_models import artifact, label
from tests.fake_device import FakeDevice
from tests.pictures import picture

WHOLE = Computation(arithmetic="bfloat16", device="cpu")
EXACT = replace(WHOLE, arithmetic="float32")
SMALL = replace(WHOLE, lessened="windows of 64 x 64 x 64 voxels")
PARAMETERS = "111002"  # DCM: Algorithm Parameters


@dataclass
class Answers:
    """A model that finds the same each time, computed as is said of each image in turn."""

    computed: Sequence[Computation | None]
    dimensions: int = 3
    refuses: bool = False

    def __post_init__(self) -> None:
        self.left = list(self.computed)
        self.requirements = Requirements(modalities=("CT", "CR"), dimensions=self.dimensions)

    def predict(self, image: Image | PlanarImage) -> Findings:
        computed = self.left.pop(0)
        if self.refuses:
            words = "nothing to look at"
            return Findings(verdict=Verdict.NOT_ANALYSED, reason=words, computed=computed)
        if isinstance(image, PlanarImage):
            return Findings(verdict=Verdict.MEASURED, computed=computed)
        found = encoded.findings(volume.read(encoded.series()))
        return replace(found, computed=computed)


def analysed(*computed: Computation | None, refuses: bool = False) -> Analysis:
    model = Answers(computed=computed, refuses=refuses)
    return pipeline.analyse(encoded.series(), model, encoded.PROVENANCE, Options())


def instances(analysis: Analysis) -> list[str]:
    return [str(made.SOPInstanceUID) for _, made in analysis.objects]


def of_series(analysis: Analysis) -> list[str]:
    return [str(made.SeriesInstanceUID) for _, made in analysis.objects]


def stated(report: Dataset) -> set[str]:
    """Algorithm Parameters anywhere in a report."""
    found: set[str] = set()
    for item in report.get("ContentSequence", []):
        name = item.get("ConceptNameCodeSequence")
        if name and name[0].CodeValue == PARAMETERS:
            found.add(str(item.TextValue))
        found |= stated(item)
    return found


def test_what_is_computed_otherwise_is_another_instance_of_the_same_series() -> None:
    """A result with smaller windows, or of an image for which half precision is not used."""
    ways = [None, WHOLE, EXACT, SMALL, replace(WHOLE, device="cuda")]
    analyses = [analysed(way) for way in ways]
    assert len({tuple(instances(one)) for one in analyses}) == len(ways)
    assert len({uid for one in analyses for uid in instances(one)}) == 2 * len(ways)
    assert len({tuple(of_series(one)) for one in analyses}) == 1
    tracked = {
        tuple(segment.TrackingUID for segment in one.objects[0][1].SegmentSequence)
        for one in analyses
    }
    assert len(tracked) == 1, "a finding is the same, however it was computed"


def test_computed_alike_the_objects_are_the_same_bytes() -> None:
    one, other = analysed(SMALL), analysed(SMALL)
    assert [to_bytes(made) for _, made in one.objects] == [
        to_bytes(made) for _, made in other.objects
    ]


def test_segmentation_and_report_say_how_they_were_computed() -> None:
    (_, seg), (_, report) = analysed(SMALL).objects
    words = "computed in bfloat16 on cpu, windows of 64 x 64 x 64 voxels"
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmParameters == words
    assert stated(report) == {words}
    (_, seg), (_, report) = analysed(None).objects
    assert (
        "AlgorithmParameters"
        not in (seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0])
    )
    assert stated(report) == set()


def test_a_report_of_nothing_says_it_too() -> None:
    (_, report) = planar(SMALL).objects[-1]
    words = "Computed in bfloat16 on cpu, windows of 64 x 64 x 64 voxels."
    assert stated(report) == set()
    assert words in encoded.texts(report)
    assert not any("Computed" in line for line in encoded.texts(planar(None).objects[-1][1]))


def test_a_refusal_is_the_same_wherever_no_network_was_asked() -> None:
    assert instances(analysed(None, refuses=True)) == instances(analysed(None, refuses=True))
    assert instances(analysed(None, refuses=True)) != instances(analysed(WHOLE, refuses=True))


def planar(*computed: Computation | None) -> Analysis:
    made = [
        picture(np.full((12, 16), number, np.uint16), name=str(number))
        for number in range(1, len(computed) + 1)
    ]
    model = Answers(computed=computed, dimensions=2)
    found = pipeline.analyse(made, model, encoded.PROVENANCE, Options())
    assert isinstance(found.views, Views)
    return found


def test_planar_images_that_were_computed_alike_need_no_list() -> None:
    assert pipeline.computed(planar(WHOLE, WHOLE).by_view) == "bfloat16 on cpu"
    assert pipeline.computed(planar(None, WHOLE).by_view) == "bfloat16 on cpu"
    assert pipeline.computed(planar(None, None).by_view) is None


def test_which_of_the_planar_images_were_computed_otherwise_is_said() -> None:
    one, other = planar(WHOLE, SMALL, WHOLE), planar(SMALL, WHOLE, WHOLE)
    assert pipeline.computed(one.by_view) == (
        "bfloat16 on cpu (images 1, 3); bfloat16 on cpu, windows of 64 x 64 x 64 voxels (images 2)"
    )
    assert len({*instances(one), *instances(other), *instances(planar(WHOLE, WHOLE, WHOLE))}) == 3


@pytest.fixture
def tight(tmp_path: Path) -> Any:
    """A network whose window, all of the series, memory holds or does not: model, device."""
    file = tmp_path / "net.pt"
    file.write_bytes(b"")
    options = {"window": {"size": [64, 64, 64]}}
    made = artifact(file, [label(1, "Bright")], options=options)
    device = FakeDevice(memory_bytes=64**3 * 4)
    device.windows = 1
    torch.manual_seed(0)
    convolution = torch.nn.Conv3d(1, 2, 3, padding=1).requires_grad_(requires_grad=False)
    parsed = parse(made.description)
    runner = Runner(Network(device.counting(convolution), 0), parsed, 3, device)
    return ArrayModel(
        requirements=made.requirements,
        description=made.description,
        options=parsed,
        network=runner,
    ), device


def test_with_less_memory_the_same_study_gives_other_identifiers(tight: Any) -> None:
    """The engine itself runs out of memory, once; with memory again they are the first ones."""
    model, device = tight

    def run() -> list[str]:
        return instances(pipeline.analyse(encoded.series(), model, encoded.PROVENANCE, Options()))

    first = run()
    device.used = device.memory_bytes - 32**3 * 4
    small = run()
    device.used = 0
    assert not {*small} & {*first}
    assert run() == first
