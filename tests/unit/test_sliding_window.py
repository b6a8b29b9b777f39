"""Slabs and labels against MONAI's full computation: properties over shapes, windows and grids.

Not covered: that a bundle's parts are recognised (integration/test_engine.py), GPUs.
"""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.meta_tensor import MetaTensor
from monai.inferers.utils import sliding_window_inference
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Activationsd, AsDiscreted, Invertd
from monai.transforms.spatial.dictionary import Orientationd, Spacingd
from scipy.spatial.transform import Rotation

from inference.engine import labelling
from inference.engine.labelling import Rule
from inference.engine.resampling import LPS_TO_RAS, Axes, Axis, Mapping, Oblique, mapping
from inference.engine.sliding_window import (
    Slab,
    Tiling,
    UnevenScores,
    Windows,
    longest_axis,
    slabs,
    tiled,
)

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
MANY = settings(max_examples=15, deadline=None, derandomize=True)
SPACINGS = st.integers(600, 3000).map(lambda value: value / 1000 + 0.00037)
"""No voxel lies in the middle of two others: there MONAI's nearest is what rounding makes it."""
AXIAL = np.eye(4)[[2, 1, 0, 3]]
"""Index (slice, row, column) to LPS, 1 mm."""


class Blur(torch.nn.Module):
    """Another answer at each place of a window, so that a window put wrongly shows."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv3d(channels, classes, 3, padding=1)
        self.register_buffer("place", torch.rand(1, classes, 40, 40, 40))

    @torch.no_grad()
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        rows, columns, planes = batch.shape[2:]
        found: torch.Tensor = self.convolution(batch) * self.place[..., :rows, :columns, :planes]
        return found


@MANY
@given(
    shape=st.tuples(*[st.integers(3, 30)] * 3),
    size=st.tuples(*[st.integers(3, 20)] * 3),
    overlap=st.tuples(*[st.sampled_from((0.0, 0.25, 0.5, 0.6, 0.8))] * 3),
    gaussian=st.booleans(),
    padding=st.sampled_from(("constant", "replicate")),
    axis=st.integers(0, 2),
    batch=st.integers(1, 3),
)
def test_slabs_in_order_are_the_scores_of_the_whole(
    shape: tuple[int, ...],
    size: tuple[int, ...],
    overlap: tuple[float, ...],
    *,
    gaussian: bool,
    padding: str,
    axis: int,
    batch: int,
) -> None:
    network = Blur(2, 4)
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    mode = "gaussian" if gaussian else "constant"
    expected = sliding_window_inference(
        image[None], size, 2, network, overlap=overlap, mode=mode, padding_mode=padding
    )[0]
    windows = Windows(size=size, overlap=overlap, gaussian=gaussian, padding=padding, batch=batch)
    found, ended = [], 0
    for slab in slabs(image, network, windows, axis=axis):
        assert slab.start == ended
        ended += slab.scores.shape[axis + 1]
        found.append(slab.scores.clone())
    together = torch.cat(found, dim=axis + 1)
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


def test_the_whole_of_an_axis_is_a_window_whose_size_is_not_given() -> None:
    image, network = torch.randn(1, 9, 8, 7), Blur(1, 2)
    windows = Windows(size=(4, -1, 4), overlap=(0.5, 0.5, 0.5))
    found = torch.cat([slab.scores.clone() for slab in slabs(image, network, windows, axis=0)], 1)
    expected = sliding_window_inference(image[None], (4, -1, 4), 1, network, overlap=0.5)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_buffer_is_one_slab() -> None:
    image, network = torch.zeros(1, 64, 8, 8), Blur(1, 3)
    windows = Windows(size=(8, 8, 8), overlap=(0.5, 0.5, 0.5))
    storage = {
        slab.scores.untyped_storage().nbytes() for slab in slabs(image, network, windows, axis=0)
    }
    assert storage == {3 * 8 * 8 * 8 * 4}


def test_a_network_that_changes_the_size_is_refused() -> None:
    windows = Windows(size=(8, 8, 8), overlap=(0.5, 0.5, 0.5))
    halve = torch.nn.AvgPool3d(2)
    with pytest.raises(UnevenScores):
        list(slabs(torch.zeros(1, 8, 8, 8), halve, windows, axis=0))


def test_slabs_lie_along_the_longest_axis_and_of_equals_along_the_last() -> None:
    assert longest_axis((300, 100, 100), (96, 96, 96)) == 0
    assert longest_axis((100, 100, 105), (96, 96, 96)) == 2
    assert longest_axis((110, 100, 100), (96, 96, 96)) == 2


GRIDS = st.tuples(
    st.tuples(*[st.integers(6, 24)] * 3),
    st.tuples(SPACINGS, SPACINGS, SPACINGS),
    st.permutations((0, 1, 2)),
    st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3),
    st.floats(-20, 20),
)
PIXDIMS = st.sampled_from(((1.5, 1.5, 2.0), (1.0, 2.3, 0.9), (3.0, 3.0, 3.0)))


def affine_of(grid: Any) -> np.ndarray[Any, Any]:
    """Index (slice, row, column) to LPS mm: turned, flipped and tilted as the draw says."""
    _, spacing, order, signs, degrees = grid
    turn = Rotation.from_euler("zyx", [degrees, degrees / 2, -degrees / 3], degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() @ (np.eye(3)[list(order)] * signs) * np.asarray(spacing)
    affine[:3, 3] = (-100.0, 35.5, 900.25)
    return affine


def stock(values: np.ndarray[Any, Any], affine: Any, pixdim: Any) -> tuple[Any, dict[str, Any]]:
    """MONAI's chain and the sample that it makes of the volume."""
    chain = Compose([Orientationd("image", "RAS", labels=None), Spacingd("image", pixdim)])
    image = torch.from_numpy(values.astype(np.float32))[None]
    with warnings.catch_warnings(action="ignore"):
        return chain, chain({"image": MetaTensor(image, affine=LPS_TO_RAS @ affine)})


@MANY
@given(grid=GRIDS, pixdim=PIXDIMS)
def test_resampling_has_the_grid_and_values_of_spacing(grid: Any, pixdim: Any) -> None:
    shape, affine = grid[0], affine_of(grid)
    values = np.random.default_rng(3).integers(-1000, 2000, shape).astype(np.int16)
    _, expected = stock(values, affine, pixdim)
    found = mapping(affine, shape, pixdim)
    assert found.shape == tuple(expected["image"].shape[1:])
    np.testing.assert_allclose(found.affine, expected["image"].affine.numpy(), atol=1e-6)
    difference = found.apply(values, CPU) - expected["image"].as_tensor()[0]
    assert float(difference.abs().max()) < 2e-3  # HU, of 3000: float32 against float64


def test_axes_that_are_not_at_right_angles_are_left_to_others() -> None:
    sheared = np.diag([2.0, 1.0, 1.0, 1.0])
    sheared[1, 0] = 0.3  # a tilted gantry
    with pytest.raises(Oblique):
        mapping(sheared, (8, 8, 8), (1.5, 1.5, 2.0))


RULES = {
    "softmax, linear, largest": Rule(activation="softmax", threshold=None, interpolated=True),
    "largest, nearest": Rule(activation="softmax", threshold=None, interpolated=False),
    "sigmoid, linear, above": Rule(activation="sigmoid", threshold=0.5, interpolated=True),
    "above, nearest": Rule(activation="sigmoid", threshold=0.5, interpolated=False),
}


def full(sample: dict[str, Any], chain: Any, logits: torch.Tensor, rule: Rule) -> torch.Tensor:
    """MONAI's own postprocessing, all classes at full resolution."""
    softmax = rule.activation == "softmax"
    activate = Activationsd("pred", softmax=softmax, sigmoid=not softmax)
    nearest = not rule.interpolated
    invert = Invertd("pred", transform=chain, orig_keys="image", nearest_interp=nearest)
    argmax = rule.threshold is None
    decide = AsDiscreted("pred", argmax=argmax, threshold=None if argmax else rule.threshold)
    last = [decide, invert] if nearest else [invert, decide]
    said = MetaTensor(logits).copy_meta_from(sample["image"])
    with warnings.catch_warnings(action="ignore"):
        found: torch.Tensor = Compose([activate, *last])({**sample, "pred": said})["pred"]
    return found.as_tensor()


def in_slabs(logits: torch.Tensor, axis: int, seed: int) -> Iterator[Slab]:
    """Slabs of uneven thickness."""
    generator, start = np.random.default_rng(seed), 0
    while start < logits.shape[axis + 1]:
        planes = min(int(generator.integers(1, 7)), logits.shape[axis + 1] - start)
        yield Slab(start=start, scores=logits.narrow(axis + 1, start, planes))
        start += planes


def blobs(classes: int, grid: Mapping, seed: int) -> torch.Tensor:
    """Logits that are smooth, as networks have them: regions of one class with borders."""
    coarse = [max(2, extent // 3) for extent in grid.shape]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, classes, *coarse, generator=generator)
    found: torch.Tensor = torch.nn.functional.interpolate(noise, grid.shape, mode="trilinear")
    return found[0] * 4


@pytest.mark.parametrize("words", RULES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    grid=GRIDS,
    pixdim=PIXDIMS,
    classes=st.integers(2, 5),
    axis=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_labels_are_those_of_the_full_computation(
    words: str, grid: Any, pixdim: Any, classes: int, axis: int, seed: int
) -> None:
    rule, shape, affine = RULES[words], grid[0], affine_of(grid)
    chain, sample = stock(np.zeros(shape, np.int16), affine, pixdim)
    found = mapping(affine, shape, pixdim)
    logits = blobs(classes, found, seed)
    expected = full(sample, chain, logits, rule)
    labels = labelling.label(in_slabs(logits, axis, seed), found, rule, axis=axis)
    expected = expected[0] if rule.threshold is None else expected
    unlike = int((labels.float() != expected).sum())
    assert unlike <= max(1, labels.numel() // 100_000)  # a tie that rounding decides


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_of_each_class_between_grids_of_the_same_edges(
    activation: str | None, overlapping: bool, seed: int
) -> None:
    """As torch interpolates every class; a likeliest class below its own is nobody's."""
    generator = torch.Generator().manual_seed(seed)
    size, shape, each = (9, 7, 11), (17, 23, 8), (0.1, 0.4, 0.45)
    logits = torch.randn(1, 3, *size, generator=generator) * 2
    axes = [
        Axis(source=at, flipped=False, count=count, length=length, step=count / length, edges=True)
        for at, (count, length) in enumerate(zip(shape, size, strict=True))
    ]
    rule = Rule(
        activation=activation,
        threshold=each if overlapping else None,
        interpolated=True,
        least=() if overlapping else each,
    )
    grid = Axes(axes=(axes[0], axes[1], axes[2]))
    labels = labelling.label(in_slabs(logits[0], seed % 3, seed), grid, rule, axis=seed % 3)
    likely = {"softmax": logits.softmax(1), "sigmoid": logits.sigmoid(), None: logits}[activation]
    full = torch.nn.functional.interpolate(likely, shape, mode="trilinear")[0]
    needed = torch.tensor(each).reshape(3, 1, 1, 1)
    best = full.argmax(0)
    sure = full.gather(0, best[None])[0] >= torch.tensor(each)[best]
    expected = full >= needed if overlapping else torch.where(sure, best, 3)
    assert overlapping or activation is None or (expected == 3).any()
    assert int((labels.to(expected.dtype) != expected).sum()) <= 1  # a tie that rounding decides


def test_most_of_a_large_region_is_not_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The box around what is mixed decides how much is computed; the labels stay right."""
    grid = mapping(AXIAL, (20, 60, 60), (2.0, 2.0, 2.0))
    logits = torch.zeros(3, *grid.shape)
    logits[0] = 1.0
    logits[2, 10:14, 20:24, 3:6] = 5.0
    computed = []
    between = labelling._between

    def counted(scores: torch.Tensor, weights: labelling.Cell) -> torch.Tensor:
        found = between(scores, weights)
        computed.append(found.numel())
        return found

    rule = RULES["softmax, linear, largest"]
    monkeypatch.setattr(labelling, "_between", counted)
    labels = labelling.label(in_slabs(logits, 2, 0), grid, rule, axis=2)
    assert sum(computed) < 3 * labels.numel() / 20
    assert labels.unique().tolist() == [0, 2]


def test_of_equal_scores_the_first_is_the_largest() -> None:
    scores = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 3.0], [0.0, 0.0, 3.0]])
    assert labelling.largest(scores).tolist() == [0, 0, 1]


def test_more_classes_than_a_byte_holds() -> None:
    scores = torch.zeros(300, 2)
    scores[299, 1] = 1.0
    found = labelling.largest(scores)
    assert found.tolist() == [0, 299]
    assert found.dtype is torch.int16


@MANY
@given(axis=st.integers(0, 2), repeated=st.booleans(), half=st.booleans())
def test_windows_of_any_rule_are_summed_once_each(axis: int, *, repeated: bool, half: bool) -> None:
    """Uneven starts, some of them twice, weights of float32 and float16, against one large sum."""
    image = torch.from_numpy(np.random.default_rng(axis).random((1, 14, 13, 12), np.float32))
    starts = tuple((0, 3, 3, size - 6) if repeated else (0, 5, size - 6) for size in (14, 13, 12))
    weights = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(1)) + 0.5
    weights = weights.half() if half else weights
    network = Blur(1, 3)
    expected = torch.zeros(3, 14, 13, 12)
    counted = torch.zeros(14, 13, 12)
    for corner in itertools.product(*starts):
        place = tuple(slice(start, start + 6) for start in corner)
        window = image[(slice(None), *place)]
        expected[(slice(None), *place)] += network(window[None])[0] * weights
        counted[place] += weights
    tiling = Tiling(starts=starts, weights=weights)
    found = list_of(tiled(image, network, tiling, axis=axis, batch=2))
    joined = torch.cat(found, dim=axis + 1)
    assert joined.dtype == weights.dtype
    torch.testing.assert_close(
        joined.float(), expected / counted, rtol=0, atol=0.02 if half else 1e-5
    )


def list_of(found: Iterator[Slab]) -> list[torch.Tensor]:
    """Scores that stay when the next slab comes."""
    return [slab.scores.clone() for slab in found]
