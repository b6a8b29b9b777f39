"""Bundles of the common kind: the engine's labels are those of the bundle's own parts, what it
does not know runs as the bundle has it, and a forward pass ends at its deadline.

Windows are 32 voxels and the images small, so that both sides run on one core. Not covered: speed
and memory (benchmarks/inference.py), GPUs.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch
from torch import nn

from inference import phantom
from inference.bundles import fast, grids, recipe
from inference.bundles.recognition import recognised
from inference.engine.device import Cpu
from inference.engine.effort import Effort
from inference.engine.precision import Choice, Precision
from inference.engine.resampling import Oblique
from inference.errors import OutOfMemory
from inference.findings import Acquisition, Image, Verdict
from inference.models import Artifact, monai_bundle
from tests.bundles import artifact, make
from tests.fake_device import FakeDevice
from tests.workplace import Workplace

SMALL = {"inferer::roi_size": [32, 32, 32]}
NEVER = 2.0  # no agreement is enough: float32
COMMON = ("spleen_ct_segmentation", "wholeBody_ct_segmentation")

pytestmark = [pytest.mark.shared_data, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module", params=COMMON)
def common(request: Any, tmp_path_factory: Any, data: Path) -> Artifact:
    place = make(request.param, tmp_path_factory.mktemp("bundles"), data)
    return artifact(place, {"options": {"override": SMALL, "agreement": NEVER}})


def chest(degrees: float = 0.0, shape: tuple[int, int, int] = (12, 30, 32)) -> Image:
    """A thorax whose slices are turned by some degrees about the patient's long axis."""
    turn = np.deg2rad(degrees)
    made = phantom.thorax(shape, (5.0, 2.3, 2.1), seed=5)
    affine = made.affine.copy()
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine[:3, :3] = rotation @ affine[:3, :3]
    return Image(
        volume=hd.Volume(made.hu, affine, "PATIENT"), acquisition=Acquisition(modality="CT")
    )


def own(described: Artifact, image: Image) -> np.ndarray[Any, Any]:
    """The labels of the bundle's own parts, (slice, row, column)."""
    built = recipe.build(
        described.files, described.description.options, trusted=False, device="cpu"
    )
    with warnings.catch_warnings(action="ignore"):
        sample = recipe.prepared(built, grids.tensor(image))
        result = recipe.finished(built, sample, recipe.predicted(built, sample))
    values = grids.on_grid(result, grids.of_image(image), seen=sample[built.image_key])
    return values[0].transpose(2, 1, 0).astype(np.uint8)


def engine(described: Artifact, device: Any = None) -> fast.FastBundle:
    chosen = device or Cpu()
    built = recipe.build(
        described.files, described.description.options, trusted=False, device="cpu"
    )
    found = fast.load(built, described.description, chosen)
    assert found is not None
    return found


def in_bfloat16(described: Artifact) -> monai_bundle.BundleModel:
    """The model as on a machine with bfloat16, in which no agreement is too small."""
    options = {**described.description.options, "agreement": 0.0}
    anything = replace(described, description=replace(described.description, options=options))
    built = recipe.build(described.files, options, trusted=False, device="cpu")
    return monai_bundle.BundleModel(
        recipe=built,
        description=described.description,
        requirements=described.requirements,
        quick=engine(anything, FakeDevice(memory_bytes=1 << 40, bfloat16=True)),
    )


@pytest.mark.parametrize("degrees", [0.0, 7.0])
def test_labels_are_those_of_the_bundles_own_parts(common: Artifact, degrees: float) -> None:
    image = chest(degrees)
    found = engine(common).labels(image)
    expected = own(common, image)
    assert found.labels.shape == image.volume.spatial_shape == expected.shape
    assert np.mean(found.labels == expected) >= 0.99999
    assert not found.limits


def test_a_volume_smaller_than_a_window(common: Artifact) -> None:
    image = chest(shape=(6, 20, 22))
    assert np.mean(engine(common).labels(image).labels == own(common, image)) >= 0.9999


def test_scores_of_another_size_are_left_to_the_bundle_before_an_arithmetic_is_named(
    common: Artifact,
) -> None:
    """Else float32 would run, and results would say bfloat16."""
    options = {**common.description.options, "agreement": 0.0}
    built = recipe.build(common.files, options, trusted=False, device="cpu")
    halved = nn.Sequential(built.network, nn.AvgPool3d(2)).eval()
    device = FakeDevice(memory_bytes=1 << 40, bfloat16=True)
    description = replace(common.description, options=options)
    assert fast.load(built, description, device) is not None
    assert fast.load(replace(built, network=halved), description, device) is None


def test_a_volume_between_all_axes_runs_as_the_bundle_has_it(common: Artifact) -> None:
    """Two of the patient's axes are nearest to one of the volume's: the engine refuses to guess."""
    image = chest(shape=(12, 20, 22))
    affine = np.array(image.volume.affine)
    sixty = np.array([[2.0, -1.0, 2.0], [2.0, 2.0, -1.0], [-1.0, 2.0, 2.0]]) / 3
    affine[:3, :3] = sixty @ affine[:3, :3][:, [2, 1, 0]]
    turned = replace(image, volume=hd.Volume(image.volume.array, affine, "PATIENT"))
    with pytest.raises(Oblique):
        engine(common).labels(turned)
    findings = monai_bundle.load({}, common).predict(turned)
    assert findings.verdict is Verdict.MEASURED
    half = in_bfloat16(common)
    assert str(half.predict(image).computed) == "bfloat16 on cpu"
    exact = half.predict(turned)
    assert str(exact.computed) == "float32 on cpu", "the bundle's own parts computed it"
    assert [one.mask.array.sum() for one in exact.segments] == [
        one.mask.array.sum() for one in findings.segments
    ]
    found = sum(int(one.mask.array.sum()) for one in findings.segments)
    assert found == int(np.count_nonzero(own(common, turned)))


def test_what_memory_allowed_is_remembered_and_said(common: Artifact) -> None:
    device = FakeDevice(memory_bytes=1 << 40)
    model, efforts = engine(common, device), []
    labels = model._label

    def counted(seen: Any, grid: Any, effort: Effort) -> Any:
        efforts.append(effort)
        if effort.windows.batch > 1 or not effort.on_host:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return labels(seen, grid, effort)

    model._effort = replace(model._effort, on_host=False)
    model._label = counted  # type: ignore[method-assign]
    image = chest(shape=(6, 20, 22))
    assert not model.labels(image).limits
    assert [(one.windows.batch, one.on_host) for one in efforts] == [
        (4, False), (2, False), (1, False), (1, True)
    ]  # fmt: skip
    model.labels(image)
    assert len(efforts) == 5


def test_smaller_windows_are_said_in_the_result(common: Artifact) -> None:
    model = engine(common)
    shrunk = replace(model._effort.windows, size=(16, 16, 16))
    model._effort = replace(model._effort, windows=shrunk)
    found = model.findings(chest(shape=(6, 20, 22)))
    words = "Memory allowed windows of 16 x 16 x 16 voxels instead of the model's 32 x 32 x 32."
    assert words in found.limitations
    assert str(found.computed) == "float32 on cpu, windows of 16 x 16 x 16 voxels"


class Exhausted(nn.Module):
    """Memory runs out in it."""

    def forward(self, _batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("std::bad_alloc")


def test_memory_that_runs_out_while_precisions_are_compared_chooses_none(common: Artifact) -> None:
    """Else the bundle would run without the engine, or in float32, for this once."""
    built = recipe.build(common.files, common.description.options, trusted=False, device="cpu")
    device = FakeDevice(memory_bytes=1 << 40, bfloat16=True)
    usual = replace(common.description, options={"override": SMALL})
    with pytest.raises(OutOfMemory, match="agreement = 2"):
        fast.load(replace(built, network=Exhausted()), usual, device)


def test_bfloat16_only_where_it_agrees(common: Artifact) -> None:
    device = FakeDevice(memory_bytes=1 << 40, bfloat16=True)
    options = {**common.description.options, "agreement": 0.0}
    anything = replace(common, description=replace(common.description, options=options))
    chosen = engine(anything, device).choice
    assert chosen.precision is Precision.BFLOAT16
    assert chosen.agreement is not None
    strict = {**options, "agreement": min(1.0, chosen.agreement + 1e-6)}
    if chosen.agreement < 1:
        description = replace(common.description, options=strict)
        refused = engine(replace(common, description=description), device).choice
        assert refused == Choice(precision=Precision.FLOAT32, agreement=chosen.agreement)
    assert engine(common, device).choice == Choice(precision=Precision.FLOAT32)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("spleen_ct_segmentation", True),
        ("wholeBody_ct_segmentation", True),
        ("swin_unetr_btcv_segmentation", True),
        ("segmentation_template", False),
        ("ventricular_short_axis_3label", False),
        ("classification_template", False),
        ("endoscopic_inbody_classification", False),
    ],
)
def test_which_bundles_are_of_the_common_kind(
    tmp_path: Path, data: Path, name: str, *, known: bool
) -> None:
    described = artifact(make(name, tmp_path, data))
    built = recipe.build(
        described.files, described.description.options, trusted=False, device="cpu"
    )
    assert (recognised(built) is not None) is known


def test_a_setting_that_the_engine_has_no_equal_of_is_not_recognised(common: Artifact) -> None:
    built = recipe.build(common.files, common.description.options, trusted=False, device="cpu")
    assert recognised(built) is not None
    built.inferer.with_coord = True  # type: ignore[attr-defined]
    assert recognised(built) is None


def test_a_forward_pass_ends_at_its_deadline(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    place.receive(phantom.datasets(phantom.thorax((12, 32, 32), (10.0, 10.0, 10.0))))
    place.close("computes")
    worker = place.worker("computes", deadline_seconds=4, attempts=1)
    try:
        assert worker.step()
        (ended,) = (one for series in place.series() for one in series.outcomes)
    finally:
        worker.close()
        place.database.close()
    assert ended.reason == "exceeded its deadline of 4 s"
