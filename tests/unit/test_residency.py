"""Which models stay loaded, which run is admitted, what is tried when memory runs out, on a device
that counts: a fake in the place of the machine, never of the engine's own parts.

Not covered: what torch and the system count (integration/test_engine.py), real GPUs.
"""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from inference.engine import device as devices
from inference.engine.effort import Effort, first_that_fits, lessened, managed, smaller
from inference.engine.residency import GIB, Needs, Residents, evicted
from inference.engine.sliding_window import Windows, slabs
from inference.errors import ModelRefused
from tests.fake_device import FakeDevice

WINDOWS = Windows(size=(96, 96, 64), overlap=(0.5, 0.5, 0.5), batch=4)


def loading(device: FakeDevice, name: str, size: int) -> Callable[[], str]:
    def load() -> str:
        device.used += size
        return name

    return load


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def exhausted() -> str:
    raise MemoryError


def test_the_least_recently_used_leaves_first() -> None:
    device = FakeDevice(memory_bytes=100)
    residents: Residents[str] = Residents(device)
    for name in ("a", "b", "a", "c"):
        residents.model(name, loading(device, name, 40))
    assert residents.names == ("a", "c")
    assert device.released == 1


def test_a_model_is_loaded_once_while_it_stays() -> None:
    device, loads = FakeDevice(memory_bytes=100), []
    residents: Residents[str] = Residents(device)
    for _ in range(3):
        residents.model("a", lambda: loads.append("a") or "a")
    assert loads == ["a"]


def test_a_model_larger_than_the_budget_is_alone() -> None:
    device = FakeDevice(memory_bytes=100)
    residents: Residents[str] = Residents(device, budget=50)
    for name, size in (("a", 20), ("b", 20), ("large", 70)):
        residents.model(name, loading(device, name, size))
    assert residents.names == ("large",)


def test_only_as_many_leave_as_have_to() -> None:
    sizes = {"old": 10, "middle": 30, "new": 10}
    assert evicted(sizes, 20, 100) == ()
    assert evicted(sizes, 60, 100) == ("old",)
    assert evicted(sizes, 61, 100) == ("old", "middle")
    assert evicted(sizes, 500, 100) == ("old", "middle", "new")


def test_a_run_is_expected_to_take_what_those_alike_took() -> None:
    needs = Needs()
    needs.record("a", 1000, 50)
    needs.record("a", 1000, 40)
    assert needs.expected("a", 1000) == 50
    assert needs.expected("a", 1500) == 75
    assert needs.expected("a", 5000) is None
    assert needs.expected("b", 1000) is None


def test_a_run_that_will_not_fit_is_refused_with_both_numbers() -> None:
    device = FakeDevice(memory_bytes=8 * GIB)
    residents: Residents[str] = Residents(device)
    residents.model("a", loading(device, "a", GIB))
    residents.admit("a", 1000)  # the first is tried
    residents.ran("a", 1000, 5 * GIB)
    residents.admit("a", 1500)
    with pytest.raises(ModelRefused, match=r"about 9\.0 GiB of fake; 8\.0 GiB are allowed"):
        residents.admit("a", 2000)


def test_others_leave_for_a_run() -> None:
    device = FakeDevice(memory_bytes=8 * GIB)
    residents: Residents[str] = Residents(device)
    residents.model("a", loading(device, "a", GIB))
    residents.ran("a", 1000, 6 * GIB)
    residents.model("b", loading(device, "b", 4 * GIB))
    residents.model("a", loading(device, "a", 0))
    residents.admit("a", 1000)
    assert residents.names == ("a",)


def test_what_is_tried_when_memory_runs_out() -> None:
    efforts: list[Effort] = []
    effort: Effort | None = Effort(windows=WINDOWS, on_host=False)
    while effort is not None:
        efforts.append(effort)
        effort = smaller(effort)
    assert [(one.windows.batch, one.on_host, one.windows.size) for one in efforts] == [
        (4, False, (96, 96, 64)),
        (2, False, (96, 96, 64)),
        (1, False, (96, 96, 64)),
        (1, True, (96, 96, 64)),
        (1, True, (64, 64, 32)),
        (1, True, (32, 32, 32)),
    ]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        caused(RuntimeError("applying transform Spacingd"), MemoryError()),
    ],
)
def test_what_worked_is_said(error: Exception) -> None:
    def run(effort: Effort) -> str:
        if not effort.on_host:
            raise error
        return "done"

    result, effort = managed(run, Effort(windows=WINDOWS, on_host=False))
    assert result == "done"
    assert (effort.windows.batch, effort.on_host) == (1, True)


def test_what_did_not_fit_beside_others_is_loaded_alone() -> None:
    device, tries = FakeDevice(memory_bytes=100), []
    residents: Residents[str] = Residents(device)
    residents.model("a", loading(device, "a", 60))

    def load() -> str:
        tries.append(residents.names)
        if residents.names:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return loading(device, "b", 60)()

    assert residents.model("b", load) == "b"
    assert tries == [("a",), ()]
    assert (residents.names, device.released) == (("b",), 1)
    with pytest.raises(MemoryError):
        Residents[str](device).model("c", exhausted)


class Knotted:
    """A model whose parts refer to each other, as a bundle's do."""

    def __init__(self) -> None:
        self.itself = self


def test_a_model_that_was_set_aside_leaves_memory_too() -> None:
    residents: Residents[Knotted] = Residents(devices.choose("cpu"))
    held = weakref.ref(residents.model("a", Knotted))
    gc.freeze()  # (as a child does when it has loaded its models)
    residents.forget("a")
    assert held() is None


def test_what_fails_otherwise_is_not_loaded_again() -> None:
    device, tries = FakeDevice(memory_bytes=100), []
    residents: Residents[str] = Residents(device)
    residents.model("a", loading(device, "a", 60))

    def load() -> str:
        tries.append(1)
        raise ModelRefused("its files changed")

    with pytest.raises(ModelRefused):
        residents.model("b", load)
    assert (tries, residents.names) == ([1], ("a",))


def test_other_errors_are_not_tried_again() -> None:
    tries = []

    def run(effort: Effort) -> None:
        tries.append(effort)
        raise RuntimeError("shapes must match")

    with pytest.raises(RuntimeError, match="shapes"):
        managed(run, Effort(windows=WINDOWS, on_host=True))
    assert len(tries) == 1


def test_what_was_done_with_less_is_said_in_words() -> None:
    meant = Effort(windows=WINDOWS, on_host=False)
    assert lessened(meant, meant) == ""
    said, effort = [], smaller(meant)
    while effort is not None:
        said.append(lessened(effort, meant))
        effort = smaller(effort)
    assert said == [
        "windows 2 at a time",
        "windows 1 at a time",
        "windows 1 at a time, sums on the host",
        "windows 1 at a time, sums on the host, windows of 64 x 64 x 32 voxels",
        "windows 1 at a time, sums on the host, windows of 32 x 32 x 32 voxels",
    ]
    host = Effort(windows=replace(WINDOWS, batch=1), on_host=True)
    assert lessened(host, host) == ""


def test_when_nothing_is_left_to_try_the_error_is_the_devices() -> None:
    def run(effort: Effort) -> None:
        raise MemoryError(str(effort.windows.size))

    with pytest.raises(MemoryError, match="32, 32, 32"):
        managed(run, Effort(windows=WINDOWS, on_host=True))


def test_the_efforts_of_a_caller_are_tried_in_their_order() -> None:
    tries: list[int] = []

    def run(effort: int) -> str:
        tries.append(effort)
        if effort > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "done"

    assert first_that_fits(run, (4, 2, 1, 0)) == ("done", 1)
    assert tries == [4, 2, 1]
    with pytest.raises(torch.OutOfMemoryError):
        first_that_fits(run, (4, 2))


def test_fewer_windows_at_once_give_the_same_scores() -> None:
    image = torch.rand(1, 20, 20, 20)
    network = torch.nn.Conv3d(1, 2, 3, padding=1).requires_grad_(requires_grad=False)
    windows = Windows(size=(8, 8, 8), overlap=(0.5, 0.5, 0.5), batch=4)
    device = FakeDevice(memory_bytes=2 * 8**3 * 4)  # two windows

    def run(effort: Effort) -> torch.Tensor:
        counted = device.counting(network)
        found = slabs(image, counted, effort.windows, axis=0)
        return torch.cat([slab.scores.clone() for slab in found], dim=1)

    found, effort = managed(run, Effort(windows=windows, on_host=False))
    assert effort.windows.batch == 2
    whole = replace(windows, batch=1)
    expected = torch.cat([slab.scores.clone() for slab in slabs(image, network, whole, axis=0)], 1)
    torch.testing.assert_close(found, expected)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelRefused, match="cuda:99 is not there"):
        devices.choose("cuda:99")


def test_float32_on_a_gpu_is_float32_and_the_same_each_time() -> None:
    """Torch's own setting is TF32, whose numbers have ten bits of fraction."""
    backends = torch.backends.cudnn
    before = backends.allow_tf32, backends.deterministic
    try:
        backends.allow_tf32, backends.deterministic = True, False
        devices.exactly()
        assert not backends.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert backends.deterministic
        assert not backends.benchmark
    finally:
        backends.allow_tf32, backends.deterministic = before


def test_the_processor_is_the_device_without_a_gpu() -> None:
    chosen = devices.choose("cpu")
    assert chosen.name == "cpu"
    assert chosen.memory_bytes > chosen.used_bytes() > 0
    chosen.begin()
    assert chosen.peak_bytes() >= 0
