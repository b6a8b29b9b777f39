"""A series or a study is complete when nothing came for it during the configured time."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from storage.records import SeriesArrival


def complete(arrivals: Sequence[SeriesArrival], *, now: datetime, quiet: timedelta) -> bool:
    """Whether the last instance of these series came at least `quiet` before `now`."""
    return all(arrival.last_received_at <= now - quiet for arrival in arrivals)
