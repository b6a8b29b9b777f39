"""A worker's steps, and what a test does beside them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from service.worker import Worker
from storage.overview import Outcome
from tests.workplace import Workplace


def work(worker: Worker, jobs: int = 1) -> None:
    """So many attempts, then the end of the child."""
    try:
        for _ in range(jobs):
            assert worker.step()
    finally:
        worker.close()


def outcome(place: Workplace, model: str, series: int = 0) -> Outcome:
    """Of a model on one of the series."""
    return next(one for one in place.series()[series].outcomes if one.model == model)


def later(minutes: float = 0) -> datetime:
    """Than now."""
    return datetime.now(UTC) + timedelta(minutes=minutes)


def wait_for(check: Callable[[], Any], seconds: float = 50) -> Any:
    """What is true at last; AssertionError when it was not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := check():
            return answer
        time.sleep(0.02)
    raise AssertionError("not in time")


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Beside what is inside; what it raises is raised at the end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  (raised again in the test's own thread)
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if raised:
        raise raised[0]


@contextmanager
def once_running(place: Workplace, act: Callable[[], object]) -> Iterator[None]:
    """As `meanwhile`, as soon as a job runs, whatever the machine's load."""

    def wait_and_act() -> None:
        wait_for(lambda: place.catalog.overview().running)
        time.sleep(0.5)
        act()

    with meanwhile(wait_and_act):
        yield
