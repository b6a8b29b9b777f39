"""Peers in the middle of an object, and that nothing is left of it."""

import time
from typing import Any

from tests.objects import CT, EXPLICIT, ct, data_set_bytes, uid
from tests.peers import echoscu
from tests.raw_peer import (
    RawPeer,
    store_request,
)
from tests.receiver import Receiver

VERIFICATION = ("1.2.840.10008.1.1", ["1.2.840.10008.1.2"])


def begun(receiver: Receiver) -> RawPeer:
    """A peer in the middle of an object."""
    peer = RawPeer(receiver.port)
    peer.associate([(CT, [EXPLICIT])])
    peer.send_command(1, store_request(CT, uid("a")))
    peer.send_data(1, data_set_bytes(ct("a"))[:400], last=False)
    wait_until(lambda: len(receiver.parts()) == 1)
    return peer


def wait_until(condition: Any, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def assert_nothing_came(receiver: Receiver) -> None:
    assert receiver.entity is not None
    entity = receiver.entity
    wait_until(lambda: entity.associations == 0)
    assert receiver.rows() == []
    assert receiver.kept() == []
    assert receiver.quarantined() == []
    receiver.nothing_half()
    assert echoscu(receiver.port).code == 0


def ended(peer: RawPeer) -> None:
    """Waits for the close; an A-ABORT may come first."""
    try:
        while True:
            peer.receive_pdu()
    except TimeoutError:
        raise
    except OSError:
        return
