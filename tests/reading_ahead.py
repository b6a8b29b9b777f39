"""Series in a queue, and what became of their jobs."""

from storage.overview import Outcome
from tests.workplace import Workplace, slices


def queue(place: Workplace, model: str, *names: str) -> None:
    """A series of each name, its job due in this order."""
    for name in names:
        place.receive(slices(name))
        place.close(model, destinations=("pacs",))


def outcomes(place: Workplace) -> list[Outcome]:
    """Of every series, in the order they came; one job each."""
    return [outcome for series in place.series() for outcome in series.outcomes]


def reserved(place: Workplace) -> list[bool]:
    """Of each job, in the order they came, whether a worker reads it ahead."""
    return [outcome.reserved_until is not None for outcome in outcomes(place)]
