"""An idle association costs next to nothing; a PDU costs few calls and bounded memory.

pynetdicom's threads ask a thousand times a second. Here they sleep until something happens: a bell
wakes the one that waits for the connection, an event the one that waits for messages; both are rung
by the queues through which the threads get their work.
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

LARGEST_PDU = 4 << 20  # bytes; more is no PDU of a working peer
LINGER_SECONDS = 0.5
CONNECTION_CLOSED = "Evt17"  # an event of the state machine (PS3.8 Table 9-10)
AWAITING_CLOSE, ESTABLISHED = "Sta13", "Sta6"  # states of it
P_DATA_TF = 0x04  # PDU type (PS3.8 9.3.1)
HEAD_BYTES = 6  # of every PDU: type, a reserved byte, length of the rest
PAUSE_SECONDS = 0.25  # after which timers are looked at although nothing happened


class WakingQueue(Queue[Any]):
    """A queue that tells when something was put into it."""

    def __init__(self, wake: Callable[[], object]) -> None:
        super().__init__()
        self._wake = wake

    def put(
        self,
        item: Any,
        block: bool = True,  # noqa: FBT001, FBT002  (the signature of a queue)
        timeout: float | None = None,
    ) -> None:
        """As a queue does; then wakes."""
        super().put(item, block=block, timeout=timeout)
        self._wake()


class Bell:
    """Wakes a thread that waits for a connection to have something to read."""

    def __init__(self) -> None:
        self._ear, self._button = socket.socketpair()
        self._ear.settimeout(0)
        self._button.settimeout(0)

    def ring(self) -> None:
        """Ends a `wait` now, or the next one at once."""
        try:
            self._button.send(b"\0")
        except OSError:  # full: it rings already; closed: nobody waits
            return

    def wait(self, connection: socket.socket, seconds: float) -> bool:
        """Whether `connection` can be read, at once when it can or the bell rings."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(self._ear, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
        if self._ear.fileno() in ready:
            self._ear.recv(4096)
        return connection.fileno() in ready

    def close(self) -> None:
        """Nobody waits any more."""
        self._ear.close()
        self._button.close()


class Checkpoint(threading.Event):
    """Open to the thread that passes it, once there is news or after a pause."""

    def __init__(self, news: threading.Event) -> None:
        super().__init__()
        self._news = news
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Returns when there is news, or after a pause; later when the checkpoint is closed."""
        self._news.wait(PAUSE_SECONDS)
        self._news.clear()
        return super().wait(timeout)


class PduSocket(AssociationSocket):
    """Reads a PDU with few calls, and none that no working peer sends.

    While the association is established and nothing else is to be done, the body of a P-DATA-TF
    goes to `sink` straight from the connection; every other PDU is left to pynetdicom.
    """

    def __init__(self, association: Association, connection: socket.socket, bell: Bell) -> None:
        super().__init__(association, client_socket=connection)
        self._bell = bell
        self.sink: Callable[[memoryview], None] | None = None
        self._head = bytearray()  # read, and not yet given to pynetdicom
        self._body = bytearray()  # of the latest P-DATA-TF

    @property
    def ready(self) -> bool:
        """Whether something came that is no data; waits for it a while, or for something to send.

        Data that come meanwhile are passed on.
        """
        while self._can_be_read():
            if self.sink is None or not self._awaits_data():
                return True
            try:
                body = self._data()
            except OSError:
                self.event_queue.put(CONNECTION_CLOSED)
                return False
            if body is None:
                return True
            self.assoc.dul._idle_timer.restart()  # noqa: SLF001  (as its reactor does)
            self.sink(body)
            if not self._awaits_data():
                return False
        return False

    def _awaits_data(self) -> bool:
        """Whether data may come next, and nothing else waits for the thread that reads them."""
        dul = self.assoc.dul
        established = dul.state_machine.current_state == ESTABLISHED
        idle = self.event_queue.empty() and dul.to_provider_queue.empty()
        return established and idle and not dul._kill_thread  # noqa: SLF001

    def _data(self) -> memoryview | None:
        """The body of a P-DATA-TF, good until the next one; None when another PDU came."""
        self._head = self._read(bytearray(HEAD_BYTES))
        if len(self._head) < HEAD_BYTES or self._head[0] != P_DATA_TF:
            return None
        length = int.from_bytes(self._head[2:])
        self._head.clear()
        self._acknowledge()
        _check_length(length)
        if length > len(self._body):
            self._body = bytearray(length)
        body = memoryview(self._body)[:length]
        if self._fill(body) < length:
            raise OSError("closed in the middle of a PDU")
        self._acknowledge()
        return body

    def _can_be_read(self) -> bool:
        if self.socket is None or not self._is_connected:
            return False
        try:
            return self._has_bytes(PAUSE_SECONDS if self.event_queue.empty() else 0.0)
        except OSError:
            self.event_queue.put(CONNECTION_CLOSED)
            return False

    def _has_bytes(self, seconds: float) -> bool:
        """Whether a read would not block; waits for that, or for the bell."""
        if self.socket is None or (
            isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()
        ):
            return True
        try:
            return self._bell.wait(self.socket, seconds)
        except ValueError as problem:
            raise OSError("closed under our feet") from problem

    def recv(self, nr_bytes: int) -> bytearray:
        """`nr_bytes`, or fewer when the peer closed; `OSError` when it is broken or too slow."""
        if self._head:  # it asks for as many
            head, self._head = self._head, bytearray()
            return head
        _check_length(nr_bytes)
        if self.socket is not None and self._is_ending():
            self.socket.settimeout(LINGER_SECONDS)
        buffer = self._read(bytearray(nr_bytes))
        self._acknowledge()
        return buffer

    def _read(self, buffer: bytearray) -> bytearray:
        filled = self._fill(memoryview(buffer))
        return buffer if filled == len(buffer) else buffer[:filled]

    def _fill(self, view: memoryview) -> int:
        """How many bytes came, fewer than asked for only when the peer closed."""
        filled = 0
        while filled < len(view):
            self._wait()
            read = self.socket.recv_into(view[filled:]) if self.socket else 0
            if not read:
                break
            filled += read
        return filled

    def _wait(self) -> None:
        """Until more of a PDU came; `OSError` when it does not, or is given up meanwhile.

        A peer that sends a byte now and then would hold the association for as long as it likes:
        pynetdicom looks at its timers, and at what it is told to send, between two PDUs only.
        """
        seconds = self.socket.gettimeout() if self.socket else None
        end = time.monotonic() + (float("inf") if seconds is None else seconds)
        while not self._is_given_up():
            if self._has_bytes(PAUSE_SECONDS):
                return
            if time.monotonic() > end:
                break
        raise OSError("a PDU that does not end in time")

    def _is_given_up(self) -> bool:
        """Whether the association ended for us while a PDU was on its way."""
        if self.assoc.dul.artim_timer.expired:
            return True
        over = self.assoc._sent_abort or self.assoc._kill  # noqa: SLF001
        return over and not self._is_ending()

    def _is_ending(self) -> bool:
        """Whether only the peer's close is awaited: what still comes is no PDU that matters."""
        return bool(self.assoc.dul.state_machine.current_state == AWAITING_CLOSE)

    def _acknowledge(self) -> None:
        """At once: a peer with Nagle's algorithm waits for it with the second half of a request."""
        if self.socket is not None and hasattr(socket, "TCP_QUICKACK"):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _check_length(length: int) -> None:
    if length > LARGEST_PDU:
        raise OSError(f"a PDU of {length} bytes")
