"""What is received never fills the disk: below the watermark there is no room; it is said once."""

import time
from collections.abc import Callable
from threading import Lock

from service import log

EVERY_SECONDS = 1.0
EVERY_BYTES = 64 << 20


class DiskWatermark:
    """Asks `free_bytes` at most every second, and after every 64 MiB that were written."""

    def __init__(
        self,
        *,
        free_bytes: Callable[[], int],
        minimum_free_bytes: int,
        every_seconds: float = EVERY_SECONDS,
        every_bytes: int = EVERY_BYTES,
    ) -> None:
        self._free_bytes = free_bytes
        self._minimum = minimum_free_bytes
        self._every_seconds = every_seconds
        self._every_bytes = every_bytes
        self._lock = Lock()
        self._asked_at = float("-inf")
        self._written = 0
        self._room = True

    def has_room(self, written: int = 0) -> bool:
        """Whether more may be written. `written`: bytes since the caller's last question."""
        with self._lock:
            self._written += written
            now = time.monotonic()
            if now - self._asked_at >= self._every_seconds or self._written >= self._every_bytes:
                self._asked_at, self._written = now, 0
                self._ask()
            return self._room

    def _ask(self) -> None:
        free = self._free_bytes()
        room = free >= self._minimum
        if room != self._room:
            _tell(free, room=room)
        self._room = room


def _tell(free: int, *, room: bool) -> None:
    if room:
        log.event("disk.recovered", free_bytes=free)
    else:
        log.event("disk.low", free_bytes=free, reason="less is free than is kept")
