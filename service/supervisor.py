"""Roles that die are started again, later each time; told to stop, they stop in order, in time.

Each role is a process of its own, made by spawn; nothing is shared with it but the configuration.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from service import log, node
from service.config import Configuration
from service.exits import USAGE
from service.node import Part
from service.processes import signal_name
from service.stopping import Stop
from storage.errors import StorageError

STOP_ORDER = (("receive",), ("maintain", "infer"), ("deliver",), ("web",))
STOP_SECONDS = 30.0  # for each step of the order, before its processes are killed
HURRIED_SECONDS = 3.0  # same, after a second signal
FIRST_RESTART_SECONDS = 0.2
LONGEST_RESTART_SECONDS = 30.0
SETTLED_SECONDS = 30.0  # a process that lived this long is started again at once

Target = Callable[[Part, Connection, int], None]
"""A role's life: what it is, where to say that it is ready, the process id of its parent."""


def run(configuration: Configuration, roles: Sequence[str]) -> int:
    """Run `roles` (all of them when empty) until told to stop; the exit status of the command."""
    began = time.monotonic()
    log.configure(role="supervisor", level=configuration.log.level, file=configuration.log.file)
    parts = node.parts(configuration, roles)
    names = _names(parts)
    log.event("node.starting", version=version("hounsfield"), roles=names)
    stop = Stop()
    stop.listen(interrupt=True)
    try:
        node.prepare(configuration)
    except (StorageError, OSError) as error:
        log.failure("node.failed", error, reason=str(error))
        sys.stderr.write(f"{configuration.file}: storage: {error}\n")
        return 1
    exit_code = Supervisor(parts, node.Role(configuration), stop=stop).run()
    log.event("node.stopped", exit_code=exit_code, seconds=time.monotonic() - began)
    return exit_code


def restart_seconds(quick_deaths: int) -> float:
    """The wait before the next start of a process that died this often soon after its start."""
    return min(LONGEST_RESTART_SECONDS, FIRST_RESTART_SECONDS * 2.0 ** max(0, quick_deaths - 1))


@dataclass(slots=True, kw_only=True)
class _Place:
    """One process of the node and its successors."""

    part: Part
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    started: float = 0.0
    due: float = 0.0  # when to start it (again), by the monotonic clock
    quick_deaths: int = 0
    ready: bool = False  # it was, at least once

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.exitcode is None


class Supervisor:
    """Keeps one process for each part."""

    def __init__(self, parts: Sequence[Part], target: Target, *, stop: Stop) -> None:
        self._target = target
        self._stop = stop
        self._context = multiprocessing.get_context("spawn")
        self._places = [_Place(part=part) for part in parts]
        self._began = time.monotonic()
        self._announced = False

    def run(self) -> int:
        """Until told to stop. 0: every role stopped in order; 1: one was killed or cannot run."""
        try:
            hopeless = self._keep_running()
            return max(hopeless, self._stop_in_order())
        finally:
            for place in self._places:
                _kill(place)

    def _keep_running(self) -> int:
        while not self._stop.asked:
            for place in self._places:
                if place.process is None and time.monotonic() >= place.due:
                    self._start(place)
            self._wait()
            for place in self._places:
                self._hear(place)
                if place.process is not None and not place.alive and self._bury(place):
                    return 1
        log.event("node.stopping")
        return 0

    def _start(self, place: _Place) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        place.process = self._context.Process(
            target=self._target, args=(place.part, theirs, os.getpid()), name=place.part.name
        )
        place.process.start()
        theirs.close()
        place.pipe = ours
        place.started = time.monotonic()

    def _wait(self) -> None:
        """Until a process says something or ends, one is due, or a signal comes."""
        now = time.monotonic()
        due = [place.due - now for place in self._places if place.process is None]
        channels: list[Connection | int] = [self._stop.fileno()]
        for place in self._places:
            if place.process is not None:
                channels.append(place.process.sentinel)
            if place.pipe is not None:
                channels.append(place.pipe)
        wait(channels, timeout=max(0.0, min(due, default=5.0)))

    def _hear(self, place: _Place) -> None:
        if place.pipe is None or not place.pipe.poll():
            return
        try:
            place.pipe.recv()
            place.ready = True
            log.event(
                "role.ready",
                role_name=place.part.name,
                process_id=_process_id(place),
                seconds=time.monotonic() - place.started,
            )
        except EOFError:
            pass  # it ends; its sentinel says so
        place.pipe.close()
        place.pipe = None
        self._announce()

    def _announce(self) -> None:
        if self._announced or not all(place.ready for place in self._places):
            return
        self._announced = True
        names = _names([place.part for place in self._places])
        log.event("node.ready", roles=names, seconds=time.monotonic() - self._began)
        sys.stdout.write(f"ready: {', '.join(names)}\n")
        sys.stdout.flush()

    def _bury(self, place: _Place) -> bool:
        """Plan the next start of a process that ended unasked; whether there is no hope in one."""
        lived = time.monotonic() - place.started
        place.quick_deaths = 1 if lived >= SETTLED_SECONDS else place.quick_deaths + 1
        pause = restart_seconds(place.quick_deaths)
        exit_code = place.process.exitcode if place.process else None
        log.event(
            "role.died",
            role_name=place.part.name,
            process_id=_process_id(place),
            exit_code=exit_code,
            signal=signal_name(exit_code),
            retry_at=datetime.now(UTC) + timedelta(seconds=pause),
            seconds=lived,
        )
        place.process = None
        place.due = time.monotonic() + pause
        return exit_code == USAGE and not place.ready

    def _stop_in_order(self) -> int:
        worst = 0
        for roles in STOP_ORDER:
            step = [place for place in self._places if place.part.role in roles]
            worst = max(worst, self._stop_step(step))
        return worst

    def _stop_step(self, step: Sequence[_Place]) -> int:
        began = time.monotonic()
        for place in step:
            _terminate(place)
        hurried = False
        while any(place.alive for place in step):
            if self._stop.hurried and not hurried:
                hurried, began = True, time.monotonic()
                for place in self._places:
                    _terminate(place)
            if time.monotonic() - began > (HURRIED_SECONDS if hurried else STOP_SECONDS):
                break
            wait([place.process.sentinel for place in step if place.process], timeout=0.1)
        return max((self._ended(place, began) for place in step), default=0)

    def _ended(self, place: _Place, began: float) -> int:
        if place.process is None:
            return 0
        name, seconds = place.part.name, time.monotonic() - began
        process_id = _process_id(place)
        if place.alive:
            log.event("role.killed", role_name=name, process_id=process_id, seconds=seconds)
            _kill(place)
            return 1
        exit_code = place.process.exitcode
        log.event(
            "role.stopped",
            role_name=name,
            process_id=process_id,
            exit_code=exit_code,
            seconds=seconds,
        )
        return 0 if exit_code in (0, -signal.SIGTERM) else 1


def _names(parts: Sequence[Part]) -> list[str]:
    return [part.name for part in parts]


def _process_id(place: _Place) -> int | None:
    return place.process.pid if place.process else None


def _terminate(place: _Place) -> None:
    if place.process is not None and place.alive:
        place.process.terminate()


def _kill(place: _Place) -> None:
    if place.process is not None and place.alive:
        place.process.kill()
        place.process.join()
