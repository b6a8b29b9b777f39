"""The outbox: what is due is delivered once, in order, whatever the destinations and we go through.

Does not cover what a PACS can do wrong in an association (test_delivery_dicom.py) nor PostgreSQL
(tests/contracts covers the same verbs over both databases).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.destinations import Answer, Destination, Outcome, Outgoing, dicom, folder
from service.retry import Policy
from service.sender import Sender, Terms
from service.stopping import Stop
from storage.records import Delivery, DeliveryState
from tests.outbox import Outbox, copy_of, open_outbox
from tests.peers import (
    StoragePeer,
    dcmtk_storescp,
    pynetdicom_storage,
    silent_peer,
    unused_port,
)

SOON = Policy(first=timedelta(seconds=0.2), maximum=timedelta(seconds=0.4))


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    opened = open_outbox(tmp_path / "node")
    yield opened
    opened.database.close()


@pytest.fixture
def pair(data: Path) -> Callable[[int], list[bytes]]:
    """A segmentation and its report, under UIDs of their own."""
    example = data / "seg-sr-dcmqi" / "sr-example"
    return lambda number: [copy_of(example / name, number) for name in ("seg.dcm", "sr.dcm")]


def pacs(port: int, ae_title: str = "PACS", **changes: object) -> dicom.Destination:
    """A PACS that is waited for some seconds only."""
    settings = dicom.Settings(
        ae_title=ae_title,
        host="127.0.0.1",
        port=port,
        connection_seconds=2,
        association_seconds=2,
        response_seconds=5,
        network_seconds=5,
    )
    return dicom.Destination(replace(settings, **changes), "HOUNSFIELD")  # type: ignore[arg-type]


def sender(
    outbox: Outbox,
    destinations: Mapping[str, Destination],
    *,
    policy: Policy = SOON,
    lease: float = 60,
    stop: Stop | None = None,
) -> Sender:
    """A sender over the outbox."""
    return Sender(
        queue=outbox.queue,
        store=outbox.store,
        destinations=destinations,
        terms=Terms(policy=policy, lease=timedelta(seconds=lease)),
        stop=stop or Stop(),
    )


@contextmanager
def running(
    outbox: Outbox, destinations: Mapping[str, Destination], *, lease: float = 60
) -> Iterator[None]:
    """The deliver role, in a thread; told to stop at the end, and has to."""
    stop = Stop()
    role = sender(outbox, destinations, stop=stop, lease=lease)
    thread = threading.Thread(target=role.run, args=(lambda: None,))
    thread.start()
    try:
        yield
    finally:
        stop.ask()
        thread.join(timeout=20)
        assert not thread.is_alive()


def eventually(check: Callable[[], bool], *, seconds: float = 10) -> None:
    """Until the check holds."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def states(outbox: Outbox) -> list[str]:
    """The states of all deliveries, by job and order."""
    return [each.state.value for each in outbox.deliveries()]


def arrivals(peer: StoragePeer) -> Counter[str]:
    """How often each SOP instance came to the scripted PACS."""
    return Counter(path.name.split()[0] for path in peer.received())


def test_results_of_many_jobs_leave_in_order_over_one_association(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    with pynetdicom_storage(tmp_path / "pacs") as peer:
        uids = [
            uid
            for number in range(5)
            for uid in outbox.finish(number, pair(number), destinations=["pacs"])
        ]
        assert sender(outbox, {"pacs": pacs(peer.port)}).step("pacs") == 10
        assert states(outbox) == ["sent"] * 10
        came = sorted(peer.received(), key=lambda path: int(path.name.split()[-1]))
        assert [path.name.split()[0] for path in came] == uids
        assert sender(outbox, {"pacs": pacs(peer.port)}).step("pacs") == 0


def test_a_pacs_that_is_down_gets_everything_once_it_is_up(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    port = unused_port()
    uids = outbox.finish(1, pair(1), destinations=["pacs"])
    with running(outbox, {"pacs": pacs(port)}):
        eventually(lambda: outbox.deliveries()[0].attempts >= 2)
        waiting = outbox.deliveries()[0]
        assert waiting.state is DeliveryState.DUE
        assert "refused the connection" in (waiting.last_error or "")
        with pynetdicom_storage(tmp_path / "pacs", port=port) as peer:
            eventually(lambda: states(outbox) == ["sent", "sent"])
            assert arrivals(peer) == Counter(uids)
            assert outbox.deliveries()[0].last_error is None


def test_a_pacs_that_restarts_loses_nothing_and_gets_nothing_twice(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    port = unused_port()
    uids = [
        uid
        for number in range(6)
        for uid in outbox.finish(number, pair(number), destinations=["pacs"])
    ]
    with running(outbox, {"pacs": pacs(port)}):
        with pynetdicom_storage(tmp_path / "pacs", port=port, drop=6):
            eventually(lambda: states(outbox).count("sent") == 5)
        with pynetdicom_storage(tmp_path / "pacs", port=port) as peer:
            eventually(lambda: states(outbox) == ["sent"] * 12)
            assert arrivals(peer) == Counter(uids)


@pytest.mark.parametrize(
    "flags", [("--refuse",), ("--abort-during",), ("--abort-after",), ("--sleep-during", "30")]
)
def test_a_bad_pacs_blocks_no_other_and_gets_all_when_it_is_good(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    port, good = unused_port(), tmp_path / "good"
    bad = pacs(port, "STORESCP", response_seconds=1, network_seconds=1)
    destinations = {"bad": bad, "good": folder.Destination(good)}
    uids = outbox.finish(1, pair(1), destinations=["bad", "good"])
    with running(outbox, destinations):
        with dcmtk_storescp(tmp_path / "pacs", *flags, port=port):
            eventually(lambda: len(list(good.glob("*.dcm"))) == 2, seconds=3)
            eventually(lambda: _of(outbox, "bad")[0].last_error is not None)
            assert {each.state for each in _of(outbox, "bad")} == {DeliveryState.DUE}
        with dcmtk_storescp(tmp_path / "pacs", port=port) as peer:
            eventually(lambda: states(outbox) == ["sent", "committed"] * 2)
            assert len(peer.received()) == len(uids)


def _of(outbox: Outbox, destination: str) -> list[Delivery]:
    return [each for each in outbox.deliveries() if each.destination == destination]


def test_a_half_dead_host_blocks_no_other_and_not_the_end(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    outbox.finish(1, pair(1), destinations=["dead", "good"])
    with silent_peer() as port:
        dead = pacs(port, association_seconds=60)
        good = tmp_path / "good"
        stop = Stop()
        role = sender(outbox, {"dead": dead, "good": folder.Destination(good)}, stop=stop)
        thread = threading.Thread(target=role.run, args=(lambda: None,))
        thread.start()
        eventually(lambda: len(list(good.glob("*.dcm"))) == 2, seconds=3)
        stop.ask()
        started = time.monotonic()
        thread.join(timeout=30)
        assert time.monotonic() - started < 10


def test_a_pacs_that_is_back_gets_at_once_what_waits_for_hours(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    port = unused_port()
    policy = Policy(first=timedelta(hours=1), maximum=timedelta(hours=1))
    role = sender(outbox, {"pacs": pacs(port)}, policy=policy)
    for number in range(3):
        outbox.finish(number, pair(number), destinations=["pacs"])
        role.step("pacs")
    assert states(outbox) == ["due"] * 6
    with pynetdicom_storage(tmp_path / "pacs", port=port):
        assert role.step("pacs") == 0
        outbox.finish(4, pair(4), destinations=["pacs"])
        assert role.step("pacs") == 2
        assert role.step("pacs") == 6
    assert states(outbox) == ["sent"] * 8


def test_a_full_pacs_is_tried_again_until_it_has_room(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    uids = outbox.finish(1, pair(1), destinations=["pacs"])
    with (
        pynetdicom_storage(tmp_path / "pacs", status="0xA700") as peer,
        running(outbox, {"pacs": pacs(peer.port)}),
    ):
        eventually(lambda: outbox.deliveries()[0].attempts >= 2)
        assert "0xA700, out of resources" in (outbox.deliveries()[0].last_error or "")
        assert outbox.deliveries()[1].attempts <= 1  # the report waits for its segmentation
        (tmp_path / "pacs" / "status").write_text("0")
        eventually(lambda: states(outbox) == ["sent", "sent"])
        assert arrivals(peer) == Counter(uids)


def test_what_a_pacs_refuses_is_tried_again_seldom(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    outbox.finish(1, pair(1), destinations=["pacs"])
    policy = Policy(first=timedelta(seconds=1), maximum=timedelta(hours=1))
    with pynetdicom_storage(tmp_path / "pacs", accept="reports") as peer:
        sender(outbox, {"pacs": pacs(peer.port)}, policy=policy).step("pacs")
        segmentation, report = outbox.deliveries()
        assert segmentation.due_at > datetime.now(UTC) + timedelta(minutes=40)
        assert "does not accept Segmentation Storage" in (segmentation.last_error or "")
        assert report.state is DeliveryState.DUE
        assert report.attempts == 0
        assert peer.received() == []


def test_giving_up_is_stated_and_can_be_undone(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    outbox.finish(1, pair(1), destinations=["pacs"])
    policy = replace(SOON, give_up_after=timedelta(0))
    sender(outbox, {"pacs": pacs(unused_port())}, policy=policy).step("pacs")
    segmentation, report = outbox.deliveries()
    assert {segmentation.state, report.state} == {DeliveryState.FAILED}
    assert "refused the connection" in (segmentation.last_error or "")
    assert "segmentation before it failed" in (report.last_error or "")
    assert outbox.queue.redeliver(now=datetime.now(UTC), failed=True) == 2
    with pynetdicom_storage(tmp_path / "pacs") as peer:
        sender(outbox, {"pacs": pacs(peer.port)}).step("pacs")
        assert states(outbox) == ["sent", "sent"]


def test_a_result_file_that_is_gone_fails_at_once(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    outbox.finish(1, pair(1), destinations=["good"])
    outbox.store.delete(outbox.deliveries()[0].result.key)
    sender(outbox, {"good": folder.Destination(tmp_path / "good")}).step("good")
    assert states(outbox) == ["failed", "failed"]
    assert "missing in the instance store" in (outbox.deliveries()[0].last_error or "")


class Defective:
    """A destination whose code is wrong."""

    def send(self, results: Sequence[Outgoing]) -> Generator[Outcome, None, None]:
        """Deliver one, then raise."""
        yield Outcome(outgoing=results[0], answer=Answer.SENT)
        raise LookupError("no such thing")

    def echo(self) -> None:
        """Nothing."""


def test_a_destination_that_raises_harms_one_object_only(
    outbox: Outbox, pair: Callable[[int], list[bytes]]
) -> None:
    for number in (1, 2):
        outbox.finish(number, pair(number), destinations=["defective"])
    sender(outbox, {"defective": Defective()}).step("defective")
    assert states(outbox) == ["sent", "due", "due", "due"]
    raised = outbox.deliveries()[1]
    assert "LookupError" in (raised.last_error or "")
    assert [each.attempts for each in outbox.deliveries()] == [1, 1, 0, 0]


def test_a_sender_killed_after_the_answer_sends_the_same_instance_again(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    uids = outbox.finish(1, pair(1), destinations=["pacs"])
    with pynetdicom_storage(tmp_path / "pacs") as peer:
        script = Path(__file__).parents[1] / "killed_sender.py"
        arguments = [str(tmp_path / "node"), str(peer.port), peer.ae_title, "1"]
        killed = subprocess.run(
            [sys.executable, script, *arguments],
            timeout=30,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert killed.returncode == -signal.SIGKILL
        assert arrivals(peer) == Counter(uids[:1])
        assert states(outbox) == ["due", "due"]
        with running(outbox, {"pacs": pacs(peer.port)}):
            eventually(lambda: states(outbox) == ["sent", "sent"])
        assert arrivals(peer) == Counter([uids[0], *uids])
        assert len({path.read_bytes() for path in peer.received()}) == len(uids)


def test_two_senders_never_send_the_same_object_while_both_live(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    uids = outbox.finish(1, pair(1), destinations=["pacs"])
    with pynetdicom_storage(tmp_path / "pacs", stall=2) as peer:
        destinations = {"pacs": pacs(peer.port)}
        with running(outbox, destinations, lease=0.9), running(outbox, destinations, lease=0.9):
            eventually(lambda: states(outbox) == ["sent", "sent"])
        assert arrivals(peer) == Counter(uids)


def test_a_clean_stop_gives_back_what_it_did_not_send(
    outbox: Outbox, pair: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    for number in range(3):
        outbox.finish(number, pair(number), destinations=["pacs"])
    with pynetdicom_storage(tmp_path / "pacs", stall=0.5) as peer:
        with running(outbox, {"pacs": pacs(peer.port)}):
            eventually(lambda: "sent" in states(outbox))
        sent = states(outbox).count("sent")
        assert 1 <= sent < 6
        assert [each.attempts for each in outbox.deliveries()] == [1] * sent + [0] * (6 - sent)
