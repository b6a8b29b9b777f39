"""The next study is read while this one computes, when there is room; else it is read in its turn.

What goes wrong meanwhile is forgotten: the study's own attempt meets it again, and says so.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeAlias, TypeVar

from service.tasks import Task

BRIEF_SECONDS = 2e-5  # between two turns of threads; with the usual 5e-3 a network waits for most

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Generic[T]):
    """A study that was read. `size`: bytes that it takes at most; `seconds`: what reading took."""

    value: T
    size: int
    seconds: float


Reading: TypeAlias = Future[Held[T] | None]
"""A study that is being read, or was; None when it was not, for whatever reason."""


@dataclass(slots=True, eq=False)
class _Coming(Generic[T]):
    task: Task
    reading: Reading[T] | None = None


class ReadAhead(Generic[T]):
    """At most one task that is to come next, its study read in a thread of its own.

    `read(task, room)`: the study, None when it would take more than `room` bytes.
    """

    def __init__(self, read: Callable[[Task, int], Held[T] | None]) -> None:
        self._read = read
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self._lock = Lock()
        self._coming: _Coming[T] | None = None
        self._room = 0  # for what is begun now
        self._being_read = 0  # bytes at most
        self._company = False

    @property
    def size(self) -> int:
        """Bytes, at most, of what is held and of what is being read."""
        coming = self._coming
        if self._being_read or coming is None or coming.reading is None:
            return self._being_read
        held = coming.reading.result() if coming.reading.done() else None
        return 0 if held is None else held.size

    @property
    def company(self) -> bool:
        """Whether anything was held or read during the last `beside`."""
        return self._company

    def want(self, task: Task | None) -> None:
        """This task comes next, or none: what was read for another is forgotten."""
        with self._lock:
            self._coming = None if task is None else _Coming(task)
            self._begin()

    @contextmanager
    def beside(self, room: int) -> Iterator[None]:
        """Meanwhile reading may begin and take so many bytes; it ends when it ends."""
        with self._lock:
            self._company = self.size > 0
            self._room = room
            self._begin()
        try:
            yield
        finally:
            with self._lock:
                self._room = 0

    def take(self, task: Task) -> Reading[T] | None:
        """What is read for a task, whose turn it is; None when it has to be read now."""
        with self._lock:
            coming = self._coming
            if coming is None or _files(coming.task) != _files(task):
                return None
            self._coming = None
        if coming.reading is None or coming.reading.cancel():
            return None
        return coming.reading

    def _begin(self) -> None:
        coming = self._coming
        if coming is None or coming.reading is not None or self._room <= 0:
            return
        self._company = True
        coming.reading = self._thread.submit(self._run, coming, self._room)

    def _run(self, coming: _Coming[T], room: int) -> Held[T] | None:
        if coming is not self._coming:  # forgotten before it began
            return None
        self._being_read = room
        try:
            with _brief_turns():
                return self._read(coming.task, room)
        except Exception:  # noqa: BLE001  (rim: the study's own attempt meets it again)
            return None
        finally:
            self._being_read = 0


def _files(task: Task) -> tuple[object, ...]:
    """What decides what is read; a file never changes, its name being the digest of its bytes."""
    return task.model, task.role, task.paths, dict(task.others)


@contextmanager
def _brief_turns() -> Iterator[None]:
    """Reading is much Python: whoever computes beside it and comes back from C waits less."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(BRIEF_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
