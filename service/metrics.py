"""What /metrics says is counted in the catalogue at the scrape, for all roles, across restarts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from storage.overview import Counts
from storage.records import Effort

CONTENT_TYPE = CONTENT_TYPE_LATEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that one scrape shows."""

    counts: Counts
    free_bytes: int
    minimum_free_bytes: int
    version: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A metric's meaning and labels; its name is its key in METRICS."""

    meaning: str
    labels: tuple[str, ...] = ()


METRICS = {
    "hounsfield_info": Described(meaning="1, with the version of the node", labels=("version",)),
    "hounsfield_instances": Described(meaning="instances received and kept in the catalogue"),
    "hounsfield_series": Described(meaning="received series by state", labels=("state",)),
    "hounsfield_jobs": Described(meaning="analyses by state", labels=("state",)),
    "hounsfield_deliveries": Described(
        meaning="result objects on their way, by destination and state",
        labels=("destination", "state"),
    ),
    "hounsfield_oldest_waiting_job_seconds": Described(
        meaning="how long the analysis that waits longest is overdue; 0 when none is"
    ),
    "hounsfield_oldest_due_delivery_seconds": Described(
        meaning="age of the oldest result object that is not delivered; 0 when there is none"
    ),
    "hounsfield_model_seconds": Described(
        meaning="what the model took in its newest analysis",
        labels=("model", "device", "arithmetic"),
    ),
    "hounsfield_model_peak_bytes": Described(
        meaning="memory of the device at the peak of the model's newest analysis",
        labels=("model", "device", "arithmetic"),
    ),
    "hounsfield_vectors": Described(meaning="feature vectors that `similar` searches"),
    "hounsfield_quarantined_objects": Described(
        meaning="received objects that cannot be read; a person has to look"
    ),
    "hounsfield_storage_free_bytes": Described(meaning="free space of the storage directory"),
    "hounsfield_storage_minimum_free_bytes": Described(
        meaning="below this much free space C-STORE is refused"
    ),
}

Sample = tuple[tuple[str, ...], float]
"""Values of the labels, value."""


def exposition(reading: Reading) -> bytes:
    """The text that Prometheus reads (exposition format 0.0.4, UTF-8)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families(reading)))
    return generate_latest(registry)


def families(reading: Reading) -> tuple[Metric, ...]:
    """Every metric of METRICS, in its order."""
    samples = dict(_samples(reading))
    return tuple(_family(name, described, samples[name]) for name, described in METRICS.items())


def _samples(reading: Reading) -> Iterator[tuple[str, list[Sample]]]:
    counts = reading.counts
    yield "hounsfield_info", [((reading.version,), 1)]
    yield "hounsfield_instances", [((), counts.instances)]
    yield "hounsfield_series", [((str(state),), n) for state, n in counts.series.items()]
    yield "hounsfield_jobs", [((str(state),), n) for state, n in counts.jobs.items()]
    yield (
        "hounsfield_deliveries",
        [((name, str(state)), n) for (name, state), n in counts.deliveries.items()],
    )
    waiting = _age(counts.oldest_waiting_job_at, reading.now)
    yield "hounsfield_oldest_waiting_job_seconds", [((), waiting)]
    due = _age(counts.oldest_due_delivery_at, reading.now)
    yield "hounsfield_oldest_due_delivery_seconds", [((), due)]
    yield (
        "hounsfield_model_seconds",
        [(_where(m, e), e.seconds) for m, e in counts.efforts.items() if e.seconds is not None],
    )
    yield (
        "hounsfield_model_peak_bytes",
        [(_where(m, e), e.peak_bytes) for m, e in counts.efforts.items() if e.peak_bytes],
    )
    yield "hounsfield_vectors", [((), counts.vectors)]
    yield "hounsfield_quarantined_objects", [((), counts.quarantined)]
    yield "hounsfield_storage_free_bytes", [((), reading.free_bytes)]
    yield "hounsfield_storage_minimum_free_bytes", [((), reading.minimum_free_bytes)]


def _where(model: str, effort: Effort) -> tuple[str, ...]:
    return model, effort.device or "", effort.arithmetic or ""


def _family(name: str, described: Described, samples: Iterable[Sample]) -> Metric:
    family = GaugeMetricFamily(name, described.meaning, labels=described.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


class _Once(Collector):
    """Metrics that are there already, as the library wants to collect them."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
