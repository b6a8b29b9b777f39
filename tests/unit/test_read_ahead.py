"""When the next study is read, what it may take, and what becomes of it; threads, no processes.

Not covered: reservations (contracts/test_storage_reservations), real studies and real children
(integration/test_read_ahead).
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import highdicom as hd
import numpy as np
import pytest

from inference.engine.residency import GIB, Residents
from inference.findings import Acquisition, Findings, Image, Verdict
from inference.models import Model
from inference.requirements import Requirements
from service import runs
from service.next_job import has_company
from service.read_ahead import Held, ReadAhead
from service.retry import Policy
from service.runs import Admitted
from service.tasks import Task
from tests.fake_device import FakeDevice

SOON = 10.0  # seconds; a failure takes as long, a success does not


def task(*names: str, model: str = "a", generation: int = 1) -> Task:
    return Task(
        model=model,
        paths=tuple(map(Path, names)),
        fingerprint="f",
        generation=generation,
        predecessor=None,
    )


class Reader:
    """Reads when it is let; counts what it was asked."""

    def __init__(self, size: int = 5) -> None:
        self.size = size
        self.asked: list[tuple[Path, ...]] = []
        self.let = threading.Event()
        self.begun = threading.Event()
        self.let.set()

    def __call__(self, wanted: Task, room: int) -> Held[str] | None:
        self.asked.append(wanted.paths)
        self.begun.set()
        assert self.let.wait(SOON)
        if self.size > room:
            return None
        return Held(value=str(wanted.paths[0]), size=self.size, seconds=1.0)


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.let.set()


def settled(ahead: ReadAhead[str]) -> None:
    """Whatever was begun has ended."""
    ahead._thread.submit(lambda: None).result(SOON)


def taken(ahead: ReadAhead[str], wanted: Task) -> str | None:
    reading = ahead.take(wanted)
    held = None if reading is None else reading.result(SOON)
    return None if held is None else held.value


def test_it_is_read_while_another_runs_and_not_before(reader: Reader) -> None:
    ahead = ReadAhead(reader)
    ahead.want(task("x"))
    assert not reader.begun.wait(0.05)
    with ahead.beside(10):
        assert reader.begun.wait(SOON)
    assert taken(ahead, task("x")) == "x"
    assert ahead.size == 0


def test_it_is_read_when_it_is_named_while_another_runs(reader: Reader) -> None:
    ahead = ReadAhead(reader)
    with ahead.beside(10):
        ahead.want(task("x"))
        assert reader.begun.wait(SOON)
    assert taken(ahead, task("x", generation=2)) == "x", "only what is read decides"


@pytest.mark.parametrize("other", [task("x", "late"), task("x", model="b")])
def test_what_was_read_is_never_given_for_anything_else(reader: Reader, other: Task) -> None:
    ahead = ReadAhead(reader)
    ahead.want(task("x"))
    with ahead.beside(10):
        settled(ahead)
    assert taken(ahead, other) is None
    assert taken(ahead, task("x")) == "x", "and stays for its own"
    assert taken(ahead, task("x")) is None, "once"


def test_what_is_too_large_is_left_to_its_own_turn(reader: Reader) -> None:
    ahead = ReadAhead(reader)
    ahead.want(task("x"))
    with ahead.beside(4):
        assert reader.begun.wait(SOON)
    assert taken(ahead, task("x")) is None


def test_without_room_nothing_is_begun(reader: Reader) -> None:
    ahead = ReadAhead(reader)
    ahead.want(task("x"))
    with ahead.beside(0):
        assert not reader.begun.wait(0.05)
    assert not ahead.company
    with ahead.beside(10):
        settled(ahead)
    assert taken(ahead, task("x")) == "x"


def test_whatever_goes_wrong_is_left_to_its_own_turn() -> None:
    def fails(_wanted: Task, _room: int) -> Held[str] | None:
        raise MemoryError

    ahead = ReadAhead(fails)
    ahead.want(task("x"))
    with ahead.beside(10):
        settled(ahead)
    assert taken(ahead, task("x")) is None


def test_a_run_knows_whether_it_had_company(reader: Reader) -> None:
    ahead = ReadAhead(reader)
    with ahead.beside(10):
        pass
    assert not ahead.company
    ahead.want(task("x"))
    for _ in "begun", "held":
        with ahead.beside(10):
            pass
        assert ahead.company
        settled(ahead)
        assert ahead.size == reader.size
    ahead.want(None)
    with ahead.beside(10):
        pass
    assert not ahead.company


def test_a_reading_that_hangs_keeps_up_no_other_task(reader: Reader) -> None:
    reader.let.clear()
    ahead = ReadAhead(reader)
    ahead.want(task("stuck"))
    with ahead.beside(10):
        assert reader.begun.wait(SOON)
        ahead.want(task("x"))
        assert ahead.take(task("x")) is None, "it is read now"
        assert ahead.size == 10, "what is being read counts until it ends"
    assert reader.asked == [(Path("stuck"),)]


def test_what_is_wanted_no_more_is_not_begun(reader: Reader) -> None:
    reader.let.clear()
    ahead = ReadAhead(reader)
    ahead.want(task("one"))
    with ahead.beside(10):
        assert reader.begun.wait(SOON)
        ahead.want(task("two"))
        ahead.want(task("three"))
        reader.let.set()
        assert taken(ahead, task("three")) in ("three", None)
    assert (Path("two"),) not in reader.asked


class Loaded:
    requirements = Requirements(modalities=("CT",))

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def predict(self, _image: Image) -> Findings:
        self._act()
        return Findings(verdict=Verdict.MEASURED)


class Host(FakeDevice):
    is_host = True


VOXELS = 1000
IMAGE = Image(
    volume=hd.Volume(np.zeros((10, 10, 10), np.int16), np.eye(4), "PATIENT"),
    acquisition=Acquisition(modality="CT"),
)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A host whose every free byte may be taken; `rooms`: what reading beside a run was given."""
    device = Host(memory_bytes=8 * GIB)
    monkeypatch.setattr(runs, "free_host_bytes", lambda: 64 * GIB)
    residents: Residents[Model] = Residents(device)
    found = SimpleNamespace(device=device, residents=residents, rooms=[], size=GIB)

    def read(_wanted: Task, room: int) -> Held[str]:
        found.rooms.append(room)
        return Held(value="x", size=found.size, seconds=1.0)

    found.ahead = ReadAhead(read)
    return found


def run(memory: Any, *, peak: int) -> None:
    """A run of a model, with a next task at hand."""
    memory.residents.model("a", lambda: cast("Model", Loaded(lambda: None)))

    def act() -> None:
        memory.device.peak = peak

    admitted = Admitted("a", cast("Model", Loaded(act)), memory.residents, memory.ahead)
    admitted.predict(IMAGE)
    settled(memory.ahead)


def test_the_first_run_of_a_model_is_alone_and_measured(memory: Any) -> None:
    memory.ahead.want(task("x"))
    run(memory, peak=7 * GIB)
    assert memory.rooms == []
    assert memory.residents.needs.expected("a", VOXELS) == 7 * GIB


def test_beside_a_run_there_is_what_the_budget_leaves(memory: Any) -> None:
    run(memory, peak=7 * GIB)
    memory.ahead.want(task("x"))
    run(memory, peak=8 * GIB)
    assert taken(memory.ahead, task("x")) == "x"
    assert memory.rooms == [GIB]
    assert memory.residents.needs.expected("a", VOXELS) == 7 * GIB, "not measured in company"


def test_beside_a_small_run_there_is_no_more_than_the_cap(memory: Any) -> None:
    run(memory, peak=GIB)
    memory.ahead.want(task("x"))
    run(memory, peak=GIB)
    assert taken(memory.ahead, task("x")) == "x"
    assert memory.rooms == [runs.MOST_AHEAD_BYTES]


def test_what_is_held_goes_when_another_run_wants_the_memory(memory: Any) -> None:
    run(memory, peak=GIB)
    memory.ahead.want(task("x"))
    run(memory, peak=GIB)
    assert memory.ahead.size == GIB
    memory.residents.needs.record("a", VOXELS, 8 * GIB)
    run(memory, peak=8 * GIB)
    assert taken(memory.ahead, task("x")) is None


def test_on_a_gpu_the_runs_memory_is_its_own(memory: Any) -> None:
    memory.device.is_host = False
    memory.ahead.want(task("x"))
    run(memory, peak=7 * GIB)
    assert taken(memory.ahead, task("x")) == "x"
    assert memory.residents.needs.expected("a", VOXELS) == 7 * GIB


@pytest.mark.parametrize(
    ("attempt", "attempts", "company"),
    [(1, 3, True), (2, 3, False), (1, 2, True), (1, 1, False), (1, None, True)],
)
def test_a_job_is_put_at_risk_once_at_most(
    attempt: int, attempts: int | None, *, company: bool
) -> None:
    nothing = Policy(first=None, maximum=None, attempts=attempts)  # type: ignore[arg-type]
    assert has_company(attempt, nothing) is company
