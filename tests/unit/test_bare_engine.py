"""Bare networks in the engine: what the full computation gives, within the memory that there is.

The full computation is MONAI's window inference, torch's interpolation of every class and a
decision on the source's grid. Not covered: in which arithmetic (test_bare_arithmetic.py), a GPU,
key points (test_bare_keypoints.py), a process that is killed at its deadline (test_worker.py).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor
from torch.nn import functional

from inference.arrays import windows
from inference.arrays.model import ArrayModel
from inference.arrays.options import Options, Window, parse
from inference.arrays.running import EXACT, Network, Runner
from inference.engine import sliding_window
from inference.engine.precision import Choice
from inference.engine.sliding_window import Windows
from inference.errors import ModelRefused
from inference.models.torchscript import load
from tests.array_models import artifact, scripted
from tests.bare_networks import CLASSES, SHAPE, Small, labels, masks, noisy
from tests.fake_device import FakeDevice

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW = [16, 16, 16]
PLENTY = 1 << 40


def on_device(
    network: Any,
    device: FakeDevice,
    file: Path,
    *,
    choice: Choice = EXACT,
    task: str = "segmentation",
    overlapping: bool = False,
    labelled: list[dict[str, Any]] | None = None,
    **options: Any,
) -> ArrayModel:
    """A network as a model on a device; `file`: any, for the sidecar."""
    file.write_bytes(b"")
    made = artifact(file, labelled or labels(), options=options, task=task, overlapping=overlapping)
    parsed = parse(made.description)
    return ArrayModel(
        requirements=made.requirements,
        description=made.description,
        options=parsed,
        network=Runner(Network(network, 0), parsed, 3, device, choice),
    )


@pytest.mark.parametrize("activation", ["none", "softmax"])
@pytest.mark.parametrize(
    "spacing", [[], [3.3, 2.9, 2.1]], ids=["on the source's grid", "resampled"]
)
@pytest.mark.parametrize("overlapping", [False, True])
def test_the_masks_are_those_of_the_full_computation(
    activation: str, spacing: list[float], overlapping: bool, tmp_path: Path
) -> None:
    """Voxel by voxel, where two classes are not equal up to rounding."""
    seen, network = noisy(), Small().eval()
    options = {
        "input": {"spacing": spacing},
        "window": {"size": WINDOW, "overlap": 0.25, "agreement": 2.0},
        "output": {"activation": activation},
    }
    made = artifact(
        scripted(network, tmp_path / "net.pt"), labels(), options=options, overlapping=overlapping
    )
    found = masks(load({}, made).predict(seen), seen)
    given = torch.from_numpy(seen.volume.array.astype(np.float32))[None, None]
    if spacing:
        steps = zip(SHAPE, seen.volume.spacing, spacing, strict=True)
        size = [round(count * old / new) for count, old, new in steps]
        given = functional.interpolate(given, size, mode="trilinear")
    with torch.inference_mode():
        scores = sliding_window_inference(given, WINDOW, 1, network, overlap=0.25, mode="gaussian")
    assert isinstance(scores, Tensor)
    scores = scores.softmax(1) if activation == "softmax" else scores
    full = functional.interpolate(scores, SHAPE, mode="trilinear")[0]
    for value in range(1, CLASSES):
        if overlapping:
            expected, margin = full[value] >= 0.5, (full[value] - 0.5).abs()
        else:
            ordered = full.sort(0).values
            expected, margin = full.argmax(0) == value, ordered[-1] - ordered[-2]
        differs = torch.from_numpy(found.get(f"C{value}", np.zeros(SHAPE, bool))) != expected
        assert float(margin[differs].max() if differs.any() else 0.0) < 1e-5
        assert float(differs.float().mean()) < 1e-4
        assert expected.any()


def test_memory_is_a_slab_of_the_classes() -> None:
    """However long the stack: a slab is no thicker than a window, and replaced by the next."""
    options = Options(window=Window(size=(8, 8, 8)))
    long = torch.zeros(1, 64, 16, 16)
    cut = windows.windows(options.window, 3, batch=1)
    planes, places = [], set()
    for slab in windows.slabs(
        long, lambda one: one.expand(-1, 9, -1, -1, -1), options, cut, axis=0
    ):
        planes.append(slab.scores.shape[1])
        places.add(slab.scores.untyped_storage().data_ptr())
        assert slab.scores.untyped_storage().nbytes() == 9 * 8 * 16 * 16 * 4
    assert sum(planes) == 64
    assert max(planes) <= 8
    assert len(places) == 1


def test_when_memory_runs_out_less_is_tried_and_it_is_said_and_remembered(tmp_path: Path) -> None:
    """Four windows do not fit, nor two, nor one of 64 voxels a side; one of 32 does."""
    asked: list[tuple[int, ...]] = []
    device = FakeDevice(memory_bytes=32**3 * 4)
    fitting = device.counting(Small(CLASSES).eval())

    def network(batch: Tensor) -> Tensor:
        asked.append((len(batch), *batch.shape[2:]))
        return fitting(batch)

    seen = noisy()
    model = on_device(
        network, device, tmp_path / "f.pt", window={"size": [64, 64, 64], "overlap": 0.25}
    )
    found = model.predict(seen)
    assert found.limitations[-1] == (
        "Memory allowed windows of 32 x 32 x 32 voxels instead of the model's 64 x 64 x 64."
    )
    assert found.segments
    assert str(found.computed) == (
        "float32 on cpu, windows 1 at a time, windows of 32 x 32 x 32 voxels"
    )
    assert {one[0] for one in asked} == {1}  # (one window holds all of this image)
    assert asked[0] == (1, 64, 64, 64)
    asked.clear()
    assert model.predict(seen).limitations == found.limitations
    assert [one[1:] for one in asked[:2]] == [(64, 64, 64), (32, 32, 32)]


def test_smaller_windows_of_one_image_are_not_those_of_the_next(tmp_path: Path) -> None:
    """Memory that others held for a while changes one result; the next is as if it had not been."""
    seen, window = noisy(), {"size": [64, 64, 64], "overlap": 0.25}
    device = FakeDevice(memory_bytes=64**3 * 4)
    network = device.counting(Small(CLASSES).eval())
    model = on_device(network, device, tmp_path / "f.pt", window=window)
    device.used = device.memory_bytes - 32**3 * 4
    assert len(model.predict(seen).limitations) == 2
    device.used = 0
    fresh = on_device(network, device, tmp_path / "f.pt", window=window)
    after, expected = model.predict(seen), fresh.predict(seen)
    assert after.limitations == expected.limitations == ("Only a test.",)
    for one, other in zip(after.segments, expected.segments, strict=True):
        assert np.array_equal(one.mask.array, other.mask.array)


def test_fewer_windows_at_once_give_the_same_and_need_no_word(tmp_path: Path) -> None:
    seen, window = noisy(), {"size": WINDOW}
    tight = FakeDevice(memory_bytes=2 * 16**3 * 4)
    small = on_device(tight.counting(Small().eval()), tight, tmp_path / "f.pt", window=window)
    ample = FakeDevice(memory_bytes=PLENTY)
    large = on_device(Small().eval(), ample, tmp_path / "f.pt", window=window)
    assert small.predict(seen).limitations == ("Only a test.",)
    assert str(small.predict(seen).computed) == "float32 on cpu, windows 2 at a time"
    assert str(large.predict(seen).computed) == "float32 on cpu"
    assert tight.peak == 2 * 16**3 * 4
    one, other = masks(small.predict(seen), seen), masks(large.predict(seen), seen)
    assert all(np.array_equal(one[name], other[name]) for name in other)


def test_windows_go_to_the_device_and_sums_stay_where_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device of which torch knows shapes and no values; another one's tensors do not mix in."""

    def even(size: tuple[int, ...], _windows: Windows, device: torch.device) -> Tensor:
        return torch.ones(size, device=device)

    monkeypatch.setattr(sliding_window, "_weights", even)  # (MONAI's look at their values)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # (has none for it)
    device = FakeDevice(memory_bytes=PLENTY)
    device.torch = torch.device("meta")
    asked: list[tuple[int, str]] = []

    def network(batch: Tensor) -> Tensor:
        asked.append((len(batch), batch.device.type))
        if device.used and len(asked) <= len((4, 2, 1)):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        place = "cpu" if device.used else device.torch  # (its values could not come back)
        return torch.zeros(len(batch), 2, *batch.shape[2:], device=place)

    def places() -> set[str]:
        window = {"size": WINDOW, "weight": "constant"}
        model = on_device(network, device, tmp_path / "f.pt", window=window)
        found: list[str] = model.network.scores(
            torch.zeros(1, 40, 36, 32), lambda slabs, _: [one.scores.device.type for one in slabs]
        )
        return set(found)

    assert places() == {"meta"}
    assert {place for _, place in asked} == {"meta"}
    asked.clear()
    device.used = device.memory_bytes
    assert places() == {"cpu"}
    assert asked[:3] == [(4, "meta"), (2, "meta"), (1, "meta")]
    assert {*asked[3:]} == {(1, "meta")}


def test_what_is_no_lack_of_memory_is_not_tried_again(tmp_path: Path) -> None:
    def broken(_batch: Tensor) -> Tensor:
        raise RuntimeError("a size mismatch")

    device = FakeDevice(memory_bytes=PLENTY)
    model = on_device(broken, device, tmp_path / "f.pt", window={"size": WINDOW})
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.predict(noisy())


class Enough(Exception):  # noqa: N818  (what a deadline is to a process)
    """Time is up."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    def end(_number: int, _frame: FrameType | None) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_deadline_ends_it_between_two_windows_and_the_next_image_is_whole(
    tmp_path: Path,
) -> None:
    asked, slow, network = [], True, Small().eval()

    def patient(batch: Tensor) -> Tensor:
        asked.append(len(batch))
        while slow and len(asked) > 2:
            signal.pause()
        return network(batch)

    seen, device = noisy(), FakeDevice(memory_bytes=PLENTY)
    model = on_device(patient, device, tmp_path / "f.pt", window={"size": WINDOW})
    with deadline(0.5), pytest.raises(Enough):
        model.predict(seen)
    assert len(asked) == 3
    slow = False
    fresh = on_device(network, device, tmp_path / "f.pt", window={"size": WINDOW})
    one, other = masks(model.predict(seen), seen), masks(fresh.predict(seen), seen)
    assert all(np.array_equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("axes", [[0], [1, 2], [0, 1, 2]])
def test_mirrored_images_are_averaged_before_the_activation(
    axes: list[int], tmp_path: Path
) -> None:
    seen, network = noisy(), Small().eval()
    options = {"input": {"mirror": axes}, "output": {"activation": "softmax"}}
    file = scripted(network, tmp_path / "net.pt")
    found = masks(load({}, artifact(file, labels(), options=options)).predict(seen), seen)
    given = torch.from_numpy(seen.volume.array.astype(np.float32))[None, None]
    flips = [
        [axis + 2 for axis in axes if chosen >> axes.index(axis) & 1]
        for chosen in range(2 ** len(axes))
    ]
    with torch.inference_mode():
        each = torch.stack([network(given.flip(flip)).flip(flip) for flip in flips])
        plain = network(given)[0].argmax(0)
    ordered = each.mean(0)[0].sort(0).values
    expected, sure = each.mean(0)[0].argmax(0), ordered[-1] - ordered[-2] > 1e-5
    assert (expected != plain).any()
    for value in range(1, CLASSES):
        same = torch.from_numpy(found[f"C{value}"]) == (expected == value)
        assert same[sure].all()


@pytest.mark.parametrize(
    ("options", "described", "words"),
    [
        ({"input": {"mirror": [3]}}, {}, r"input\.mirror: allowed: axes from 0 to 2, each once"),
        ({"input": {"mirror": [0, 0]}}, {}, r"input\.mirror: allowed: axes from 0 to 2, each on"),
        ({"input": {"mirror": [2], "slicewise": True}}, {}, "axes from 0 to 1"),
        ({"input": {"mirror": [0]}, "output": {"form": "label_map"}}, {}, "only masks and points"),
        ({"input": {"mirror": [0]}}, {"task": "classification"}, "only masks and points"),
        ({"window": {"agreement": -1}}, {}, r"window\.agreement: -1 is not allowed"),
    ],
)
def test_options_of_the_engine_that_are_not_allowed(
    options: dict[str, Any], described: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = scripted(Small(), tmp_path / "net.pt")
    question = ["246456000", "SCT", "Episodicity"]
    with pytest.raises(ModelRefused, match=words):
        load({}, artifact(file, labels(question=question), options=options, **described))
