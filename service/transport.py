"""An idle association costs next to nothing; a PDU costs few calls and bounded memory.

pynetdicom's threads ask a thousand times a second. Here they sleep until something happens: a bell
wakes the one that waits for the connection, an event the one that waits for messages; both are rung
by the queues through which the threads get their work.
"""

import select
import socket
import ssl
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

LARGEST_PDU = 4 << 20  # bytes; more is no PDU of a working peer
LINGER_SECONDS = 0.5
CONNECTION_CLOSED = "Evt17"  # an event of the state machine (PS3.8 Table 9-10)
AWAITING_CLOSE = "Sta13"  # a state of it
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
    """Reads a PDU with few calls, and none that no working peer sends."""

    def __init__(self, association: Association, connection: socket.socket, bell: Bell) -> None:
        super().__init__(association, client_socket=connection)
        self._bell = bell

    @property
    def ready(self) -> bool:
        """Whether something came; waits for it a while, or for something to send."""
        if self.socket is None or not self._is_connected:
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        try:
            pause = PAUSE_SECONDS if self.event_queue.empty() else 0.0
            return self._bell.wait(self.socket, pause)
        except (OSError, ValueError):  # closed under our feet
            self.event_queue.put(CONNECTION_CLOSED)
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """`nr_bytes`, or fewer when the peer closed; `OSError` when it is broken or too slow."""
        if nr_bytes > LARGEST_PDU:
            raise OSError(f"a PDU of {nr_bytes} bytes")
        if self.socket is not None and self._is_ending():
            self.socket.settimeout(LINGER_SECONDS)
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        filled = 0
        while filled < nr_bytes:
            read = self.socket.recv_into(view[filled:]) if self.socket else 0
            if not read:
                return buffer[:filled]
            filled += read
        self._acknowledge()
        return buffer

    def _is_ending(self) -> bool:
        """Whether only the peer's close is awaited: what still comes is no PDU that matters."""
        return bool(self.assoc.dul.state_machine.current_state == AWAITING_CLOSE)

    def _acknowledge(self) -> None:
        """At once: a peer with Nagle's algorithm waits for it with the second half of a request."""
        if self.socket is not None and hasattr(socket, "TCP_QUICKACK"):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
