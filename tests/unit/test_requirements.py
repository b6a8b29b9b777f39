"""What a model requires is asked of every image before the model is, in one place, in words.

Not covered: what a model refuses for itself (tests of the models), the requirements of a sidecar
and of a configuration (test_config.py).
"""

import hashlib
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest

from inference import phantom, pipeline
from inference.encoding import Provenance
from inference.encoding.common import to_bytes
from inference.findings import Acquisition, Findings, Image, PlanarImage, Verdict
from inference.requirements import Requirements
from service.analysis import Analyst
from service.tasks import Analysed, Computed, ModelSetup, Setup, Task

PROVENANCE = Provenance(model_name="m", model_version="1", configuration="c", fingerprint="f")
AXIAL = np.diag([5.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]  # (slice, row, column) to LPS mm
EVERYTHING = Requirements(
    modalities=("CT", "PT"), axial=True, min_slices=10, max_spacing_mm=5.0, min_extent_mm=50.0
)


class Asked:
    """A model that must not be asked, unless it is `willing`."""

    def __init__(self, requirements: Requirements, *, willing: bool = False) -> None:
        self.requirements = requirements
        self.willing = willing

    def predict(self, image: Image | PlanarImage) -> Findings:
        assert self.willing, image
        return Findings(verdict=Verdict.MEASURED)


def stack(slices: int = 12, *, modality: str = "CT", affine: np.ndarray = AXIAL) -> Image:
    volume = hd.Volume(np.zeros((slices, 4, 4), np.int16), affine, "PATIENT")
    return Image(volume=volume, acquisition=Acquisition(modality=modality))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (stack(modality="MR"), "not a CT or PT image but MR"),
        (stack(modality=""), "not a CT or PT image but of no stated modality"),
        (stack(affine=np.diag([5.0, 1.0, 1.0, 1.0])), "the slices are not axial"),
        (stack(9), "9 slices; at least 10 are needed"),
        (
            stack(affine=AXIAL @ np.diag([1.2, 1, 1, 1])),
            "slices lie 6.0 mm apart; at most 5.0 mm are allowed",
        ),
        (
            stack(affine=AXIAL @ np.diag([0.5, 1, 1, 1])),
            "the stack covers 30 mm; 50 mm are needed",
        ),
        (
            PlanarImage(pixels=np.zeros((4, 4), np.int16), acquisition=Acquisition(modality="DX")),
            "not a CT or PT image but DX",
        ),
    ],
)
def test_a_model_is_not_asked_about_an_image_that_lacks_what_it_requires(
    image: Image | PlanarImage, reason: str
) -> None:
    found = pipeline.found_in(image, Asked(EVERYTHING))
    assert (found.verdict, found.reason) == (Verdict.NOT_ANALYSED, reason)


def test_a_model_is_asked_about_any_other() -> None:
    assert pipeline.found_in(stack(), Asked(EVERYTHING, willing=True)).verdict is Verdict.MEASURED


def test_the_report_has_the_reason() -> None:
    datasets = phantom.datasets(phantom.thorax((8, 40, 40), (12.0, 10.0, 10.0)))
    model = Asked(Requirements(modalities=("MR",)))
    analysis = pipeline.analyse(datasets, model, PROVENANCE, pipeline.Options())
    assert analysis.reason == "not a MR image but CT"
    ((kind, report),) = analysis.objects
    assert kind == "measurement_report"
    assert b"Not analysed: not a MR image but CT" in to_bytes(report)


def test_such_a_series_is_still_found_by_its_likeness(tmp_path: Path) -> None:
    """Its feature vectors are those of the image; nothing was computed on a device."""
    paths = []
    for number, dataset in enumerate(
        phantom.datasets(phantom.thorax((8, 40, 40), (12.0, 10.0, 10.0)))
    ):
        paths.append(tmp_path / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    lung = ModelSetup(
        name="lung",
        kind="lung_ct",
        title="lung",
        version="1.0.0",
        configuration=hashlib.sha256(b"lung").hexdigest(),
        settings={},
    )
    setup = Setup(
        models=(lung,),
        node_name="N",
        device_serial="0",
        software_version="0",
        not_for_diagnosis=True,
        report_not_analysed=True,
    )
    task = Task(
        model="lung", paths=tuple(paths), fingerprint="f" * 64, generation=1, predecessor=None
    )
    answer = Analyst(setup).answer(task)
    assert isinstance(answer, Analysed)
    assert (answer.verdict, answer.reason) == (
        "not_analysed",
        "8 slices; at least 20 are needed",
    )
    assert answer.vectors
    assert answer.computed == Computed()
