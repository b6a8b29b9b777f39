"""What `commit` returned for is durable: its directory entry synced, its row committed.

Whoever arrives while nobody writes, writes; who arrives meanwhile waits and is in the next group,
which its first member writes: one sync, one transaction. One bad instance does not fail the others
of its group.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Event

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
    called: Event = field(default_factory=Event)  # it has an outcome, or is to write its group


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
        self._arrivals: list[_Waiting] = []
        self._state = Condition()  # guards what follows; told when nobody writes any more
        self._writing = False
        self._closed = False

    def commit(self, instance: Instance) -> Registration:
        """Waits until `instance` is durable; raises what `sync` or `register` raised for it."""
        waiting = _Waiting(instance)
        if not self._enter(waiting):
            waiting.called.wait()
        if not waiting.outcome.done():
            self._write_group()
        return waiting.outcome.result()

    def close(self) -> None:
        """Returns when what has arrived is committed; nothing more is taken."""
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: not self._writing)

    def _enter(self, waiting: _Waiting) -> bool:
        """Whether its caller is the one to write: nobody else does."""
        with self._state:
            if self._closed:
                raise Closed
            self._arrivals.append(waiting)
            writes, self._writing = not self._writing, True
            return writes

    def _write_group(self) -> None:
        """Settles the first that wait, the caller's among them, and calls who writes next."""
        with self._state:
            group = self._arrivals[:LARGEST_GROUP]
            del self._arrivals[:LARGEST_GROUP]
        try:
            self._settle(group)
        finally:
            self._hand_over()
            for waiting in group:
                if not waiting.outcome.done():  # this thread is being ended; the others go on
                    waiting.outcome.set_exception(RuntimeError("the commit was broken off"))
                waiting.called.set()

    def _hand_over(self) -> None:
        with self._state:
            if self._arrivals:
                self._arrivals[0].called.set()
                return
            self._writing = False
            self._state.notify_all()

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
