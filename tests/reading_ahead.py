"""Series in a queue, a worker's steps, and what a test does beside them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from service.worker import Worker
from storage.overview import Outcome
from tests.workplace import Workplace, slices


def queue(place: Workplace, model: str, *names: str) -> None:
    """A series of each name, its job due in this order."""
    for name in names:
        place.receive(slices(name))
        place.close(model, destinations=("pacs",))


def work(worker: Worker, jobs: int) -> None:
    try:
        for _ in range(jobs):
            assert worker.step()
    finally:
        worker.close()


def outcomes(place: Workplace) -> list[Outcome]:
    """Of every series, in the order they came; one job each."""
    return [outcome for series in place.series() for outcome in series.outcomes]


def reserved(place: Workplace) -> list[bool]:
    """Of each job, in the order they came, whether a worker reads it ahead."""
    return [outcome.reserved_until is not None for outcome in outcomes(place)]


def wait_for(check: Callable[[], Any], seconds: float = 50) -> Any:
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
