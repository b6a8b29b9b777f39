"""The parts of nnU-Net's path on arrays, each against its definition.

Not covered: that they make nnU-Net's labels together (tests/integration/test_nnunet_reference.py).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize
from torch import nn

from inference.engine.averaging import Mirrored
from inference.engine.sliding_window import Slab
from inference.errors import InputRefused, ModelError, ModelRefused
from inference.nnunet import architectures, folder, labels, options, plans, resampling
from inference.nnunet import sliding_window as windows
from inference.nnunet.plans import Channel, Resampling, Scheme
from inference.nnunet.preprocessing import bounding_box, normalised
from inference.nnunet.restoration import Held
from inference.nnunet.sliding_window import Windows
from tests import nnunet_folders
from tests.nnunet_folders import CASCADE, COARSE, FINE, Net, Study

LINEAR = Resampling(method="spline", order=1, order_separate=0, separate=None)
CUBIC = Resampling(method="spline", order=3, order_separate=0, separate=None)
TORCH = Resampling(method="linear", order=1, order_separate=0, separate=None)
CPU = torch.device("cpu")
THIN = {"spacing": (1.0, 1.0, 1.0), "wanted": (1.2, 0.8, 0.8)}
THICK = {"spacing": (5.0, 1.0, 1.0), "wanted": (4.0, 0.8, 0.8)}

sizes = st.tuples(*[st.integers(2, 9)] * 3)


def noise(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("spacing", "wanted", "axis"),
    [
        ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0), None),
        ((5.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        ((1.0, 1.0, 1.0), (1.0, 4.0, 1.0), 1),
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),  # just not thick
        ((0.2, 1.0, 1.0), (1.0, 1.0, 1.0), None),  # two axes are as thick
    ],
)
def test_the_axis_of_thick_slices_goes_by_itself(
    spacing: tuple[float, ...], wanted: tuple[float, ...], axis: int | None
) -> None:
    assert resampling.separate_axis(LINEAR, spacing, wanted) == axis


def test_plans_may_say_whether_it_does() -> None:
    never = Resampling(method="spline", order=3, order_separate=0, separate=False)
    always = Resampling(method="spline", order=3, order_separate=0, separate=True)
    assert resampling.separate_axis(never, (9.0, 1.0, 1.0), (1.0, 1.0, 1.0)) is None
    assert resampling.separate_axis(always, (2.0, 1.0, 1.0), (1.0, 1.0, 1.0)) == 0


@settings(max_examples=40, deadline=None)
@given(old=sizes, new=sizes, thick=st.booleans())
def test_classes_are_resampled_as_images_are(
    old: tuple[int, int, int], new: tuple[int, int, int], thick: bool
) -> None:
    """The fast way for logits, in parts of two planes, against splines in float64."""
    grids = THICK if thick else THIN
    array = noise(old).astype(np.float16)
    expected = resampling.image(array, new, LINEAR, **grids)
    way = resampling.linear(old, new, LINEAR, **grids, device=CPU)
    assert way is not None
    channel = torch.from_numpy(array)
    parts = [way.part(channel, start, min(start + 2, new[0])) for start in range(0, new[0], 2)]
    found = torch.cat(parts).numpy()
    assert found.shape == new
    assert found.dtype == np.float16
    assert np.abs(found.astype(np.float64) - expected).max() < 4e-3


def test_splines_are_those_of_scikit_image() -> None:
    array = noise((6, 9, 8))
    found = resampling.image(array, (5, 13, 11), CUBIC, **THIN)
    expected = resize(array.astype(float), (5, 13, 11), 3, mode="edge", anti_aliasing=False)
    assert np.array_equal(found, expected.astype(np.float32))


def test_thick_slices_are_copied_never_mixed() -> None:
    array = noise((4, 9, 8))
    found = resampling.image(array, (8, 9, 8), CUBIC, spacing=(5, 1, 1), wanted=(2.5, 1, 1))
    assert np.array_equal(found, np.repeat(array, 2, axis=0))


def test_other_rules_go_through_torch_or_leave_the_array() -> None:
    array = noise((6, 8, 8))
    found = resampling.image(array, (3, 16, 16), TORCH, **THIN)
    assert found.shape == (3, 16, 16)
    apart = resampling.image(array, (12, 8, 8), TORCH, **THICK)
    assert np.array_equal(apart, np.repeat(array, 2, axis=0))
    none = Resampling(method="none", order=1, order_separate=0, separate=None)
    assert resampling.image(array, (3, 16, 16), none, **THIN) is array
    assert resampling.linear((6, 8, 8), (3, 16, 16), TORCH, **THIN, device=CPU) is None


@settings(max_examples=40, deadline=None)
@given(old=sizes, new=sizes, thick=st.booleans())
def test_label_maps_keep_their_labels(
    old: tuple[int, int, int], new: tuple[int, int, int], thick: bool
) -> None:
    array = np.random.default_rng(1).integers(-1, 3, old).astype(np.int16)
    found = resampling.labels(array, new, LINEAR, **(THICK if thick else THIN))
    assert found.shape == new
    assert set(np.unique(found)) <= set(np.unique(array))


def test_between_equal_shares_the_nearest_voxel_decides() -> None:
    row = np.array([[[1, 1, 2, 2]]], np.int16)
    found = resampling.labels(row, (1, 1, 2), LINEAR, **THIN)
    assert found.ravel().tolist() == [1, 2]


@given(size=st.integers(8, 200), patch=st.integers(4, 64), step=st.sampled_from([0.25, 0.5, 1.0]))
def test_windows_reach_both_ends_and_leave_no_gap(size: int, patch: int, step: float) -> None:
    size = max(size, patch)
    found = windows.starts(size, patch, step)
    assert found[0] == 0
    assert found[-1] == size - patch
    assert max(np.diff(found), default=0) <= max(1, np.ceil(patch * step))


def test_window_starts_are_the_published_ones() -> None:
    assert windows.starts(110, 64, 0.5) == [0, 23, 46]
    assert windows.starts(64, 64, 0.5) == [0]


def test_weights_are_largest_in_the_middle_and_nowhere_zero() -> None:
    found = windows.weights((16, 64, 64))
    assert found.dtype == torch.half
    assert found.max() == found[8, 32, 32] == windows.LARGEST_WEIGHT
    assert found.min() > 0


class Doubled(nn.Module):
    """Two classes: the image and its double; knows neither place nor neighbours."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat((image[:, :1], 2 * image[:, :1]), 1)


@pytest.mark.parametrize("shape", [(3, 12, 11), (20, 33, 40)])
@pytest.mark.parametrize("patch", [(8, 16, 16), (16, 16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_together_are_the_whole_image(
    shape: tuple[int, int, int], patch: tuple[int, ...], batch: int
) -> None:
    image = torch.from_numpy(noise((1, *shape)))
    rule = Windows(patch=patch)
    network = Mirrored(Doubled(), tuple(range(len(patch))))
    slabs = list(windows.slabs(image, network, rule, batch=batch))
    found = windows.summed([windows.slabs(image, network, rule, batch=batch)], shape)
    assert sum(slab.scores.shape[1] for slab in slabs) == shape[0]
    assert found.shape == (2, *shape)
    inner = (slice(2, -2) if shape[0] > 4 else slice(None), slice(4, -4), slice(4, -4))
    assert torch.allclose(found[1].float()[inner], 2 * image[0][inner], atol=0.02)


def test_an_answer_that_is_no_number_is_an_error() -> None:
    image = torch.full((1, 8, 16, 16), float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        next(windows.slabs(image, Doubled(), Windows(patch=(8, 16, 16))))


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("patch", [(8, 16, 16), (16, 16)])
def test_networks_are_averaged_alike_side_by_side_and_one_after_the_other(
    count: int, patch: tuple[int, ...]
) -> None:
    image = torch.from_numpy(noise((1, 20, 24, 20)))
    rule = Windows(patch=patch)
    networks = [nn.Sequential(Doubled(), Scaled(1 + index / 7)) for index in range(count)]
    runs = [windows.slabs(image, network, rule) for network in networks]
    found = windows.summed([windows.averaged(runs, image.shape[1:], rule)], image.shape[1:])
    alone = [windows.summed([windows.slabs(image, one, rule)], (20, 24, 20)) for one in networks]
    expected = alone[0].clone()
    for other in alone[1:]:
        expected += other
    assert torch.equal(found, expected / count)


class Scaled(nn.Module):
    """A multiple."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.factor


SLICED = st.lists(st.integers(1, 7), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(slabs=SLICED, new=st.integers(1, 30), step=st.integers(1, 5), thick=st.booleans())
def test_slabs_of_any_thickness_give_the_planes_of_the_whole(
    slabs: list[int], new: int, step: int, *, thick: bool
) -> None:
    """What is handed out lies in memory that the next slab is written into, as the engine's does.

    Part by part, the resampled planes are those of the whole volume.
    """
    old = sum(slabs)
    logits = torch.from_numpy(noise((2, old, 6, 5))).half()
    grids = THICK if thick else THIN
    way = resampling.linear((old, 6, 5), (new, 7, 6), LINEAR, **grids, device=CPU)
    assert way is not None
    memory = torch.zeros(2, max(slabs), 6, 5, dtype=torch.half)

    def given_slabs() -> Iterator[Slab]:
        start = 0
        for count in slabs:
            memory[:, :count] = logits[:, start : start + count]
            yield Slab(start=start, scores=memory[:, :count])
            start += count

    held, parts = Held(given_slabs()), []
    for start in range(0, new, step):
        stop = min(start + step, new)
        low, high = way.needed(start, stop)
        block = held.between(low, high)
        parts.append(torch.stack([way.part(one, start, stop, first=low) for one in block]))
    expected = torch.stack([way.part(one, 0, new) for one in logits])
    assert torch.equal(torch.cat(parts, dim=1), expected)


def channel(scheme: Scheme, *, masked: bool = False) -> Channel:
    found = plans.Intensities(mean=40.0, deviation=20.0, lowest=-100.0, highest=200.0)
    return Channel(name="x", scheme=scheme, masked=masked, intensities=found)


def test_values_are_normalised_by_each_scheme() -> None:
    image = np.array([[[-500.0, 0.0, 40.0, 900.0]]], np.float32)
    inside = image != 0
    ct = normalised(image, channel(Scheme.CT), inside)
    assert ct.ravel().tolist() == [-7.0, -2.0, 0.0, 8.0]
    scaled = normalised(image, channel(Scheme.Z_SCORE), inside)
    assert scaled.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(1)
    masked = normalised(image, channel(Scheme.Z_SCORE, masked=True), inside)
    assert masked[~inside].tolist() == [0.0]
    assert masked[inside].mean() == pytest.approx(0, abs=1e-6)
    rescaled = normalised(image, channel(Scheme.RESCALE), inside)
    assert (rescaled.min(), rescaled.max()) == (0, 1)
    assert np.array_equal(normalised(image, channel(Scheme.NONE), inside), image)
    colours = normalised(np.abs(image) / 4, channel(Scheme.RGB), inside)
    assert colours.max() == pytest.approx(900 / 4 / 255)
    with pytest.raises(InputRefused, match="colours"):
        normalised(image, channel(Scheme.RGB), inside)


def test_a_box_is_the_smallest() -> None:
    mask = np.zeros((5, 6, 7), np.bool_)
    mask[1, 2:4, 3] = mask[3, 3, 6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 4), slice(3, 7))


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({}, "labels"),
        ({"labels": {"liver": 1}}, "background is not 0"),
        ({"labels": {"background": 1, "liver": 2}}, "background is not 0"),
        ({"labels": {"background": 0, "liver": 2}}, "without a gap"),
        ({"labels": {"background": 0, "all": [1, 2], "core": 2}}, "regions_class_order"),
        ({"labels": {"background": 0, "liver": "x"}}, "labels"),
    ],
)
def test_labels_that_nnunet_does_not_write_are_refused(dataset: Any, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        labels.parse(dataset)


def test_plans_inherit_and_are_read_old_and_new() -> None:
    study = Study(nets=(COARSE, FINE, CASCADE))
    parsed = plans.parse(nnunet_folders.plans(study), nnunet_folders.dataset(study))
    found = parsed.configuration("3d_cascade_fullres")
    assert found.previous == "3d_lowres"
    assert found.patch == tuple(FINE.patch)
    with pytest.raises(ModelRefused, match="no configuration 2d"):
        parsed.configuration("2d")
    former = Study(former=True)
    old = plans.parse(nnunet_folders.plans(former), nnunet_folders.dataset(former))
    new = plans.parse(nnunet_folders.plans(Study()), nnunet_folders.dataset(Study()))
    pair = [one.configuration("3d_fullres") for one in (old, new)]
    networks = [
        architectures.build(one.network, one.arguments, channels=1, classes=3) for one in pair
    ]
    assert str(networks[0]) == str(networks[1])
    assert pair[0].channels == pair[1].channels


def test_a_configuration_that_inherits_from_itself_is_refused() -> None:
    raw = nnunet_folders.plans(Study())
    raw["configurations"]["3d_fullres"]["inherits_from"] = "3d_fullres"
    parsed = plans.parse(raw, nnunet_folders.dataset(Study()))
    with pytest.raises(ModelRefused, match="inherits from itself"):
        parsed.configuration("3d_fullres")


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"])
@pytest.mark.parametrize("extra", [{}, {"dropout_op": "torch.nn.Dropout3d"}])
def test_networks_have_nnunets_names_and_the_size_of_their_input(kind: str, extra: Any) -> None:
    study = Study(nets=(Net(kind=kind),))
    arguments = nnunet_folders.plans(study)["configurations"]["3d_fullres"]["architecture"]
    network = architectures.build(kind, arguments["arch_kwargs"] | extra, channels=2, classes=3)
    names = set(network.state_dict())
    first = "encoder.stages.0.0.convs.0" if kind == "PlainConvUNet" else "encoder.stem.convs.0"
    assert {f"{first}.conv.weight", f"{first}.norm.bias", "decoder.seg_layers.1.weight"} <= names
    residual = {"ResidualUNet": "decoder.stages.0.blocks.0.conv1.conv.weight"}
    assert residual.get(kind, "decoder.stages.0.convs.0.conv.weight") in names
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, 8, 16, 16)).shape == (1, 3, 8, 16, 16)


def test_a_folder_is_read_by_its_names() -> None:
    names = [
        f"nnUNetTrainer__nnUNetPlans__{name}/{file}"
        for name in ("2d", "3d_fullres")
        for file in ("plans.json", "dataset.json", "fold_0/checkpoint_best.pth")
    ]
    names += [
        "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth",
        "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_all/checkpoint_final.pth",
        "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_1/progress.png",
    ]
    full, flat = folder.results(names, top="Dataset001")
    assert (full.configuration, flat.configuration) == ("3d_fullres", "2d")
    assert [name.rpartition("__")[2] for name in full.checkpoints] == [
        "3d_fullres/fold_0/checkpoint_final.pth"
    ]
    assert flat.checkpoints[0].endswith("fold_0/checkpoint_best.pth")
    assert folder.results(["a.txt"], top="x") == ()
    renamed = ["plans.json", "dataset.json", "fold_all/checkpoint_final.pth"]
    (only,) = folder.results(renamed, top="liver")
    assert (only.trainer, only.configuration) == (None, None)
    assert only.checkpoints == ("fold_all/checkpoint_final.pth",)


@pytest.mark.parametrize(
    ("letters", "dicom"), [("RAS", "HAR"), ("LPS", "HPL"), ("LAI", "FAL"), ("PSR", "RHP")]
)
def test_directions_in_dicoms_letters(letters: str, dicom: str) -> None:
    """nibabel names (x, y, z), we (slice, row, column)."""
    assert options.parse({"orientation": letters}).orientation == letters
    assert options.patient_orientation(letters) == dicom
