"""Success is never answered for what is not on disk and catalogued, whatever fails, wherever.

Each step of the way in fails in turn (exception, SIGKILL); then the object is sent again.
Not covered: a power cut (what fsync promises is believed), a full disk (test_receive_refusals.py).
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import CatalogueUnavailable, OutOfSpace, StorageError
from tests.objects import CT, EXPLICIT, ct, data_set_bytes, uid
from tests.peers import unused_port
from tests.raw_peer import RawPeer
from tests.receiver import Plan, Receiver, faulty, receiving, receiving_process

STEPS = (
    "new_part",
    "adopt",
    "adopted",
    "sync",
    "synced",
    "register",
    "registered",
)
"""A present participle is before the step, a past one after it."""
PROBLEMS = (
    OutOfSpace("full"),
    CatalogueUnavailable("away"),
    StorageError("torn"),
    OSError(5, "io"),
)


def send(port: int, name: str, **elements: object) -> int:
    with RawPeer(port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        status = peer.store(1, CT, uid(name), data_set_bytes(ct(name, **elements)))
        peer.release()
        return status


def durable(receiver: Receiver, name: str) -> bool:
    """Whether the row is committed and its file whole."""
    rows = [row for row in receiver.rows() if row.sop_instance_uid == uid(name)]
    return [receiver.file(row).endswith(data_set_bytes(ct(name))) for row in rows] == [True]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails(tmp_path: Path, step: str) -> None:
    plan = Plan()
    store, catalogue = faulty(plan)
    with receiving(tmp_path, store=store, catalogue=catalogue) as receiver:
        for number, problem in enumerate(PROBLEMS):
            fails_then_works(receiver, plan, step, problem, f"{number}")
        receiver.nothing_half()


def fails_then_works(
    receiver: Receiver, plan: Plan, step: str, problem: Exception, name: str
) -> None:
    plan.at[step] = raising(problem)
    failure = 0xA700 if isinstance(problem, OutOfSpace) else 0x0110
    assert send(receiver.port, name) == failure
    assert receiver.parts() == []
    plan.at.clear()
    for each in (f"{name} other", name):
        assert send(receiver.port, each) == 0x0000
        assert durable(receiver, each)


def raising(problem: Exception) -> Callable[[], None]:
    def run() -> None:
        raise problem

    return run


@pytest.mark.parametrize("step", ["quarantine", "quarantine_object"])
def test_a_quarantine_that_fails_is_a_failure_still(tmp_path: Path, step: str) -> None:
    plan = Plan()
    store, catalogue = faulty(plan)
    with receiving(tmp_path, store=store, catalogue=catalogue) as receiver:
        plan.at[step] = raising(OutOfSpace("full"))
        assert send(receiver.port, "a", StudyInstanceUID=None) == 0xC000
        assert receiver.parts() == []
        assert send(receiver.port, "b") == 0x0000
        assert durable(receiver, "b")


def test_success_comes_after_every_step(tmp_path: Path) -> None:
    plan = Plan()
    store, catalogue = faulty(plan)
    with receiving(tmp_path, store=store, catalogue=catalogue) as receiver:
        plan.at["registered"] = lambda: time.sleep(0.5)
        began = time.monotonic()
        assert send(receiver.port, "a") == 0x0000
        assert time.monotonic() - began >= 0.5
        assert tuple(plan.passed) == STEPS


def test_a_slow_commit_holds_nobody_back_who_only_sends(tmp_path: Path) -> None:
    plan = Plan()
    store, catalogue = faulty(plan)
    with receiving(tmp_path, store=store, catalogue=catalogue) as receiver:
        gate = threading.Event()
        plan.at["register"] = lambda: gate.wait(10) and None
        found: dict[str, int] = {}
        threads = [
            threading.Thread(target=lambda n=n: found.update({n: send(receiver.port, n)}))
            for n in "abcdefgh"
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 8
        while len(receiver.kept()) < 8 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(receiver.kept()) == 8
        assert found == {}
        gate.set()
        for thread in threads:
            thread.join(10)
        assert set(found.values()) == {0x0000}
        assert plan.passed.count("register") <= 3
        receiver.nothing_half()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(tmp_path: Path, step: str) -> None:
    root, port = tmp_path / "node", unused_port()
    with receiving_process(root, port, die_at=step) as receiver:
        with pytest.raises(OSError):  # noqa: PT011  (closed or reset, as it comes)
            send(port, "a")
        assert [row for row in receiver.rows() if not receiver.file(row)] == []
    with receiving(root) as receiver:
        assert send(receiver.port, "a") == 0x0000
        assert durable(receiver, "a")
        left = receiver.parts()
        assert len(left) <= 1  # what the kill left under way: maintenance sweeps it
        assert len(receiver.kept()) == len(receiver.rows()) == 1


def test_killed_at_any_moment(tmp_path: Path) -> None:
    root, moment = tmp_path / "node", random.Random(7)
    answered: set[str] = set()
    for turn in range(3):
        port = unused_port()
        with receiving_process(root, port) as receiver:
            timer = threading.Timer(
                moment.uniform(0.05, 0.6), os.kill, (receiver.pid, signal.SIGKILL)
            )
            timer.start()
            answered |= send_until_it_breaks(port, f"turn {turn}")
            timer.join()
    with receiving(root) as receiver:
        assert answered
        files = {row.sop_instance_uid: receiver.file(row) for row in receiver.rows()}
        lost = [
            name
            for name in answered
            if not files.get(uid(name), b"").endswith(data_set_bytes(ct(name)))
        ]
        assert lost == []


def send_until_it_breaks(port: int, prefix: str) -> set[str]:
    """The names that were answered Success."""
    answered = set()
    with RawPeer(port) as peer:
        try:
            peer.associate([(CT, [EXPLICIT])])
            for number in range(2000):
                name = f"{prefix} {number}"
                if peer.store(1, CT, uid(name), data_set_bytes(ct(name))) == 0x0000:
                    answered.add(name)
        except OSError:
            return answered
    return answered
