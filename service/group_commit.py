"""What `commit` returned for is durable: its directory entry synced, its row committed.

One thread takes every instance that arrived while the previous transaction ran, syncs once, commits
once and wakes all that wait. One bad instance does not fail the others of its group.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from storage.errors import CatalogueUnavailable, OutOfSpace
from storage.records import Instance, Registration

LARGEST_GROUP = 512  # instances in one transaction

_SHARED_TROUBLE = (CatalogueUnavailable, OutOfSpace)  # would meet each of the group alone as well


class Closed(Exception):  # noqa: N818  (a state)
    """The node is stopping: nothing more is committed."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    instance: Instance
    outcome: Future[Registration] = field(default_factory=Future)


class GroupCommit:
    """`sync` makes directory entries of keys durable, `register` commits rows."""

    def __init__(
        self,
        *,
        sync: Callable[[Sequence[str]], None],
        register: Callable[[Sequence[Instance]], Sequence[Registration]],
    ) -> None:
        self._sync = sync
        self._register = register
        self._arrivals: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._gate = Lock()  # nothing arrives after the end mark
        self._closed = False
        self._thread = Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def commit(self, instance: Instance) -> Registration:
        """Waits until `instance` is durable; raises what `sync` or `register` raised for it."""
        waiting = _Waiting(instance)
        with self._gate:
            if self._closed:
                raise Closed
            self._arrivals.put(waiting)
        return waiting.outcome.result()

    def close(self) -> None:
        """Commits what has arrived and ends the thread."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._arrivals.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            group, last = self._next_group()
            if group:
                self._settle(group)

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """What waits, at least one; and whether the end mark was met."""
        group: list[_Waiting] = []
        arrival = self._arrivals.get()
        while arrival is not None:
            group.append(arrival)
            if len(group) == LARGEST_GROUP:
                return group, False
            try:
                arrival = self._arrivals.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _settle(self, group: Sequence[_Waiting]) -> None:
        try:
            found = self._write([waiting.instance for waiting in group])
        except Exception as problem:  # noqa: BLE001  (a rim: every caller raises it)
            self._settle_failure(group, problem)
            return
        for waiting, registration in zip(group, found, strict=True):
            waiting.outcome.set_result(registration)

    def _settle_failure(self, group: Sequence[_Waiting], problem: Exception) -> None:
        if len(group) > 1 and not isinstance(problem, _SHARED_TROUBLE):
            for waiting in group:
                self._settle([waiting])
            return
        for waiting in group:
            waiting.outcome.set_exception(problem)

    def _write(self, instances: Sequence[Instance]) -> Sequence[Registration]:
        self._sync([instance.key for instance in instances])
        found = self._register(instances)
        if len(found) != len(instances):
            raise RuntimeError(f"{len(found)} answers for {len(instances)} instances")
        return found
