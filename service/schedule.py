"""A sweep runs at its interval, never beside itself; one that raises runs again the next time."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from service import log
from service.stopping import Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A function of the time and how often it runs."""

    name: str
    every: timedelta
    act: Callable[[datetime], object]


def run(sweeps: Sequence[Sweep], *, stop: Stop) -> None:
    """Run the sweeps, a thread for each, until told to stop; returns when none is at work."""
    # A sweep that takes longer than its interval is late, not lost: no line for each time it is.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    scheduler = BackgroundScheduler(timezone=UTC, daemon=True)
    for sweep in sweeps:
        scheduler.add_executor(ThreadPoolExecutor(1), alias=sweep.name)
        scheduler.add_job(
            act,
            "interval",
            args=(sweep,),
            seconds=sweep.every.total_seconds(),
            next_run_time=datetime.now(UTC),
            executor=sweep.name,
            id=sweep.name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
    scheduler.start()
    stop.wait_long()
    scheduler.shutdown(wait=True)


def act(sweep: Sweep) -> None:
    """Run one sweep now."""
    began = time.monotonic()
    try:
        sweep.act(datetime.now(UTC))
    except Exception as error:  # noqa: BLE001  (rim: the others go on, and it runs again)
        log.failure("sweep.failed", error, sweep=sweep.name, seconds=time.monotonic() - began)
