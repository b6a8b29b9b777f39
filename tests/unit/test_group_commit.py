"""Nobody is woken before the commit, one bad instance fails alone, closing loses nothing.

Not covered: the database (tests/contracts), the disk (tests/integration/test_receive.py).
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from service.group_commit import Closed, GroupCommit
from storage.errors import CatalogueUnavailable
from storage.records import Instance, Registration


def instance(name: str) -> Instance:
    return Instance(
        study_instance_uid="1.1",
        series_instance_uid="1.2",
        sop_instance_uid=name,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=name,
        key=f"key {name}",
        size=1,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        calling_ae_title="CT1",
        header={},
    )


class Ledger:
    """What was synced and registered, in order; slow or broken on request."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[str, ...]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.problems: dict[str, Exception] = {}

    def sync(self, keys: Sequence[str]) -> None:
        self.events.append(("sync", tuple(keys)))

    def register(self, instances: Sequence[Instance]) -> tuple[Registration, ...]:
        self.gate.wait(10)
        names = tuple(each.sop_instance_uid for each in instances)
        for name in names:
            if name in self.problems:
                raise self.problems[name]
        self.events.append(("register", names))
        return (Registration.NEW,) * len(names)


def commit_all(group: GroupCommit, names: Sequence[str]) -> dict[str, object]:
    """Commits each in a thread of its own; what each returned or raised."""
    found: dict[str, object] = {}

    def run(name: str) -> None:
        try:
            found[name] = group.commit(instance(name))
        except Exception as problem:  # noqa: BLE001  (what it raised is the finding)
            found[name] = problem

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def test_synced_before_registered_and_registered_before_return() -> None:
    ledger = Ledger()
    group = GroupCommit(sync=ledger.sync, register=ledger.register)
    assert group.commit(instance("a")) is Registration.NEW
    assert ledger.events == [("sync", ("key a",)), ("register", ("a",))]
    group.close()


def test_what_arrives_during_a_transaction_is_the_next_group() -> None:
    ledger = Ledger()
    group = GroupCommit(sync=ledger.sync, register=ledger.register)
    ledger.gate.clear()
    timer = threading.Timer(0.3, ledger.gate.set)
    timer.start()
    found = commit_all(group, [f"{n}" for n in range(20)])
    timer.join()
    group.close()
    assert set(found.values()) == {Registration.NEW}
    sizes = [len(names) for event, names in ledger.events if event == "register"]
    assert sum(sizes) == 20
    assert len(sizes) <= 3


def test_one_bad_instance_fails_alone() -> None:
    ledger = Ledger()
    ledger.problems["bad"] = ValueError("bad")
    ledger.gate.clear()
    group = GroupCommit(sync=ledger.sync, register=ledger.register)
    timer = threading.Timer(0.2, ledger.gate.set)
    timer.start()
    found = commit_all(group, ["a", "bad", "b"])
    timer.join()
    group.close()
    assert isinstance(found.pop("bad"), ValueError)
    assert set(found.values()) == {Registration.NEW}


def test_an_unreachable_catalogue_fails_the_group_at_once() -> None:
    ledger = Ledger()
    ledger.problems["a"] = CatalogueUnavailable("away")
    group = GroupCommit(sync=ledger.sync, register=ledger.register)
    with pytest.raises(CatalogueUnavailable):
        group.commit(instance("a"))
    assert group.commit(instance("b")) is Registration.NEW
    group.close()


class Ended(BaseException):
    """What ends a thread, as SystemExit does."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_waits_for_a_writer_that_dies_gets_an_error() -> None:
    ledger = Ledger()
    ledger.problems["0"] = Ended()  # type: ignore[assignment]
    ledger.gate.clear()
    group = GroupCommit(sync=ledger.sync, register=ledger.register)
    first = threading.Thread(target=commit_all, args=(group, ["first"]))
    first.start()
    wait_until(lambda: bool(ledger.events))
    found: dict[str, object] = {}
    others = threading.Thread(
        target=lambda: found.update(commit_all(group, ["0", "1", "2"])), daemon=True
    )
    others.start()
    wait_until(lambda: len(group._arrivals) == 3)
    ledger.gate.set()
    others.join(5)
    assert not others.is_alive()
    assert all(isinstance(each, RuntimeError) for each in found.values())
    assert len(found) >= 2  # the writer itself was ended
    assert group.commit(instance("later")) is Registration.NEW
    group.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_too_few_answers_are_no_success() -> None:
    group = GroupCommit(sync=lambda _: None, register=lambda _: ())
    with pytest.raises(RuntimeError):
        group.commit(instance("a"))
    group.close()


def test_after_close_nothing_is_committed() -> None:
    ledger = Ledger()
    group = GroupCommit(sync=ledger.sync, register=ledger.register)
    group.close()
    group.close()
    with pytest.raises(Closed):
        group.commit(instance("a"))
    assert ledger.events == []


def test_close_waits_for_what_has_arrived() -> None:
    ledger = Ledger()
    group = GroupCommit(sync=ledger.sync, register=ledger.register)
    ledger.gate.clear()
    timer = threading.Timer(0.3, ledger.gate.set)
    callers = threading.Thread(target=commit_all, args=(group, ["a", "b", "c"]))
    callers.start()
    while not ledger.events:
        time.sleep(0.01)
    time.sleep(0.1)  # the others arrive while the first waits at the gate
    timer.start()
    group.close()
    registered = [name for event, names in ledger.events if event == "register" for name in names]
    assert sorted(registered) == ["a", "b", "c"]
    callers.join(10)
