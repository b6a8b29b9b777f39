"""An association that ends in the middle, or says what is none, leaves nothing half.

Not covered: slow peers and the receiver's own end (test_receive_serving.py), a network that loses
packets.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from service.application_entity import ApplicationEntity, AssociationEnd, Peer
from service.data_phase import StoreOperation, StoreRequest
from tests.half_way import VERIFICATION, assert_nothing_came, begun, ended, wait_until
from tests.objects import CT, EXPLICIT, ct, ct_file, data_set_bytes, uid
from tests.peers import storescu
from tests.raw_peer import (
    ABORT,
    AC,
    COMMAND,
    DATA,
    LAST,
    RELEASE_RP,
    RJ,
    RawPeer,
    element,
    pdv,
    store_request,
)
from tests.receiver import LIMITS, Receiver, receiving


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "node") as found:
        yield found


def test_release_in_order(receiver: Receiver) -> None:
    with RawPeer(receiver.port) as peer:
        assert peer.associate([VERIFICATION]) == AC
        assert peer.release() == RELEASE_RP


def test_abort_in_the_middle(receiver: Receiver) -> None:
    with begun(receiver) as peer:
        peer.abort()
        assert_nothing_came(receiver)


def test_close_in_the_middle(receiver: Receiver) -> None:
    begun(receiver).socket.close()
    assert_nothing_came(receiver)


def test_reset_in_the_middle(receiver: Receiver) -> None:
    peer = begun(receiver)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    assert_nothing_came(receiver)


def test_close_in_the_middle_of_a_fragment(receiver: Receiver) -> None:
    peer = begun(receiver)
    whole = pdv(1, LAST, b"x" * 5000)
    peer.socket.sendall(struct.pack(">BxI", DATA, len(whole)) + whole[:2000])
    peer.socket.close()
    assert_nothing_came(receiver)


def test_close_before_the_answer_is_read(receiver: Receiver) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        peer.send_command(1, store_request(CT, uid("a")))
        peer.send_data(1, data_set_bytes(ct("a")))
    wait_until(lambda: len(receiver.rows()) == 1)
    receiver.nothing_half()


def test_storescu_aborts(receiver: Receiver, tmp_path: Path) -> None:
    for number in range(5):
        ct_file(tmp_path / "out", f"{number}")
    sent = storescu(receiver.port, [tmp_path / "out"], "+sd", "--abort")
    assert sent.statuses() == ["Success"] * 5
    assert len(receiver.rows()) == 5
    receiver.nothing_half()


@pytest.mark.parametrize(
    "pdu",
    [
        struct.pack(">BxI", DATA, 0xFFFFFFF0),
        struct.pack(">BxI", DATA, 10) + struct.pack(">IBB", 0xFFFFFF00, 1, LAST) + b"\0" * 4,
        struct.pack(">BxI", 0x42, 4) + b"\0" * 4,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["length", "fragment length", "type", "http"],
)
def test_broken_pdus_end_the_association_only(receiver: Receiver, pdu: bytes) -> None:
    with begun(receiver) as other, begun_second(receiver) as peer:
        peer.socket.sendall(pdu)
        ended(peer)
        other.send_data(1, data_set_bytes(ct("a"))[400:])
        assert other.status() == 0x0000
        other.release()
    assert len(receiver.rows()) == 1
    receiver.nothing_half()


def begun_second(receiver: Receiver) -> RawPeer:
    peer = RawPeer(receiver.port)
    peer.associate([(CT, [EXPLICIT])])
    peer.send_command(1, store_request(CT, uid("b")))
    return peer


def breaking(peer: RawPeer, kind: str) -> None:
    """Something that PS3.7 does not allow in the middle of an object."""
    if kind == "command":
        peer.send_command(1, store_request(CT, uid("b")))
    elif kind == "context":
        peer.send_command(9, store_request(CT, uid("b")))
    elif kind == "nonsense":
        peer.send_command(1, b"\xff" * 30)
    elif kind == "endless":
        for _ in range(3):
            peer.send_pdu(DATA, pdv(1, COMMAND, element(0x1000, bytes(60_000))))
    elif kind == "data context":
        peer.send_command(1, store_request(CT, uid("b")))
        peer.send_data(3, data_set_bytes(ct("b")))


@pytest.mark.parametrize("kind", ["command", "context", "nonsense", "endless", "data context"])
def test_broken_messages_are_aborted(receiver: Receiver, kind: str) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT]), (CT, ["1.2.840.10008.1.2.4.70"])])
        if kind == "command":
            peer.send_command(1, store_request(CT, uid("a")))
        breaking(peer, kind)
        assert peer.receive_pdu()[0] == ABORT
    assert_nothing_came(receiver)


def test_one_association_for_each_object_is_quick(receiver: Receiver) -> None:
    began = time.monotonic()
    for number in range(20):
        with RawPeer(receiver.port) as peer:
            peer.associate([(CT, [EXPLICIT])])
            name = f"{number}"
            assert peer.store(1, CT, uid(name), data_set_bytes(ct(name))) == 0x0000
            assert peer.release() == RELEASE_RP
    assert time.monotonic() - began < 4.0


class Recorder:
    """A service that stores nothing and remembers who came and how it ended."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.ends: list[AssociationEnd] = []

    def begin(self, peer: Peer) -> "Recorder":
        self.peers.append(peer)
        return self

    def store(self, request: StoreRequest) -> StoreOperation:
        raise NotImplementedError(request)

    def ended(self, end: AssociationEnd) -> None:
        self.ends.append(end)


def test_a_rejection_is_told_with_its_reason() -> None:
    recorder = Recorder()
    limits = replace(LIMITS, accepted_calling_ae_titles=("CT1",), maximum_associations=1)
    entity = ApplicationEntity(
        ae_title="HOUNSFIELD", host="127.0.0.1", port=0, service=recorder, limits=limits
    )
    entity.start()
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(RawPeer(entity.port, calling=title)) for title in ("CT1", "CT1")
        )
        stranger = stack.enter_context(RawPeer(entity.port, calling="STRANGER"))
        assert stranger.associate([VERIFICATION]) == RJ
        assert first.associate([VERIFICATION]) == AC
        assert second.associate([VERIFICATION]) == RJ
        wait_until(lambda: len(recorder.ends) == 2)
    entity.stop()
    assert [end.outcome for end in recorder.ends] == ["rejected", "rejected", "lost"]
    assert {end.reason for end in recorder.ends[:2]} == {
        "Calling AE title not recognised",
        "Local limit exceeded",
    }
    assert [peer.calling_ae_title for peer in recorder.peers] == ["STRANGER", "CT1", "CT1"]


def test_a_port_that_is_taken_is_an_error(receiver: Receiver) -> None:
    entity = ApplicationEntity(
        ae_title="OTHER", host="127.0.0.1", port=receiver.port, service=Recorder(), limits=LIMITS
    )
    with pytest.raises(OSError, match="in use"):
        entity.start()
