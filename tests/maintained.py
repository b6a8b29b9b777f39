"""The sweeps of maintenance as plain calls on a workplace, from a START on."""

from datetime import UTC, datetime, timedelta

from service.config import Configuration
from service.maintenance import Completion, Retention
from service.triggers import quiet_period
from tests.workplace import Workplace

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


QUIET = timedelta(seconds=30)


STUDY_QUIET = timedelta(seconds=60)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def completion(
    place: Workplace, configuration: Configuration, *, since: datetime = START
) -> Completion:
    return Completion(
        catalog=place.catalog,
        complete=quiet_period.complete,
        routes=configuration.routes,
        series_quiet=QUIET,
        study_quiet=STUDY_QUIET,
        since=since,
        listening_since=place.store.listening_since,
    )


def retention(place: Workplace, *, days: float = 30, free_bytes: int = 0) -> Retention:
    return Retention(
        catalog=place.catalog, store=place.store, keep=timedelta(days=days), free_bytes=free_bytes
    )


def finish(place: Workplace, model: str = "good") -> None:
    """Work the next job to its end, with a result that goes to nobody."""
    worker = place.worker(model)
    try:
        assert worker.step()
    finally:
        worker.close()


def routed(place: Workplace, *, at: datetime) -> None:
    """A study whose series are closed is routed as a study too."""
    for study in place.catalog.ripe_studies(at):
        assert place.catalog.close_study(study, [], [], at)


def kept(place: Workplace) -> int:
    """Files of received instances in the store."""
    return len(list((place.folder / "instances").rglob("*.dcm")))
