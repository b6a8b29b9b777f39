"""A role is told to stop, and to hurry, here and only here; a signal never interrupts its work."""

import os
import select
import signal
from types import FrameType


class Stop:
    """First ask: stop in order. Second: hurry. Signal handlers and any thread may ask."""

    def __init__(self) -> None:
        self._asked = 0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._asked > 0

    @property
    def hurried(self) -> bool:
        """Whether to stop at once, giving up what is in hand."""
        return self._asked > 1

    def ask(self) -> None:
        """Ask to stop; again, to hurry."""
        self._asked += 1
        os.write(self._writer, b"!")

    def wait(self, seconds: float) -> bool:
        """Sleep until asked, at most `seconds`; whether to stop."""
        select.select([self._reader], [], [], max(0.0, seconds))
        return self.asked

    def wait_long(self) -> None:
        """Sleep until asked."""
        while not self.wait(3600.0):
            pass

    def fileno(self) -> int:
        """Readable once asked, for `select` and `multiprocessing.connection.wait`."""
        return self._reader

    def listen(self, *, interrupt: bool = False) -> None:
        """Let SIGTERM ask; SIGINT too where `interrupt` (a terminal sends it to every process)."""
        signal.signal(signal.SIGTERM, self._heard)
        signal.signal(signal.SIGINT, self._heard if interrupt else signal.SIG_IGN)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()
