"""The web port over a real socket: health, readiness, metrics, page; nothing identifies a patient.

Does not cover the web role's process (tests/acceptance) nor many clients at once.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import METRICS, Reading, families
from service.stopping import Stop
from service.web import page
from service.web.application import Sources, application
from service.web.headers import HEADERS
from service.web.readiness import catalogue, disk
from service.web.server import listen, serve
from storage.overview import Counts
from storage.records import DeliveryState, Effort, JobState, SeriesState
from tests.outbox import Outbox, copy_of, open_outbox

DOCUMENT = Path(__file__).parents[2] / "deploy" / "docs" / "METRICS.md"
GIB = 2**30
PATIENT = "ZX81-PATIENT"


@dataclass
class Disk:
    """How much is free, as a test wants it."""

    free: int = 100 * GIB


@dataclass
class Web:
    """The web port of a node."""

    outbox: Outbox
    client: httpx.Client
    disk: Disk = field(default_factory=Disk)


def reading(outbox: Outbox, free: Disk) -> Reading:
    """What a scrape shows."""
    return Reading(
        counts=outbox.catalog.counts(),
        free_bytes=free.free,
        minimum_free_bytes=5 * GIB,
        version="1.2.3",
        now=datetime.now(UTC),
    )


@pytest.fixture
def web(tmp_path: Path, data: Path) -> Iterator[Web]:
    """A served node that has one study, with one delivery that failed once."""
    outbox = open_outbox(tmp_path)
    free = Disk()
    example = data / "seg-sr-dcmqi" / "sr-example" / "sr.dcm"
    outbox.finish(1, [copy_of(example, 1)], destinations=["pacs <1>"], patient=PATIENT)
    now = datetime.now(UTC)
    lease = now + timedelta(seconds=9)
    (delivery,) = outbox.queue.claim_deliveries("pacs <1>", now=now, lease_until=lease, limit=1)
    outbox.queue.delivery_retry(delivery, now, "PACS at 127.0.0.1:104 refused the connection")
    sources = Sources(
        checks={
            "catalogue": catalogue(outbox.catalog.counts),
            "disk": disk(lambda: free.free, minimum=5 * GIB),
        },
        reading=lambda: reading(outbox, free),
        overview=lambda: outbox.catalog.overview(latest=50),
    )
    with served(sources) as client:
        yield Web(outbox, client, free)
    outbox.database.close()


@contextmanager
def served(sources: Sources) -> Iterator[httpx.Client]:
    """A client of the web role, which runs in a thread and has to stop."""
    stop, ready = Stop(), threading.Event()
    listener = listen("127.0.0.1", 0)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    arguments = {"listener": listener, "stop": stop, "ready": ready.set}
    thread = threading.Thread(target=serve, args=(application(sources),), kwargs=arguments)
    thread.start()
    assert ready.wait(10)
    try:
        with httpx.Client(base_url=base, timeout=10) as client:
            yield client
    finally:
        stop.ask()
        thread.join(timeout=10)
        assert not thread.is_alive()


def broken(outbox: Outbox) -> None:
    """Take the catalogue away."""
    outbox.database.close()
    for file in Path(str(outbox.store.incoming)).parent.glob("catalogue.sqlite*"):
        file.unlink()


def test_health(web: Web) -> None:
    answer = web.client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_ready(web: Web) -> None:
    answer = web.client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": {}})


def test_a_full_disk_is_not_ready(web: Web) -> None:
    web.disk.free = 4 * GIB
    answer = web.client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == {"disk": "4.0 GiB are free of the 5 GiB that are kept free"}
    assert web.client.get("/health").status_code == 200


def test_a_catalogue_that_is_gone_is_not_ready(web: Web) -> None:
    broken(web.outbox)
    answer = web.client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == {"catalogue": "the catalogue does not answer"}
    assert web.client.get("/metrics").status_code == 503
    assert web.client.get("/").status_code == 503
    assert web.client.get("/health").status_code == 200


def test_metrics_are_what_the_catalogue_counts(web: Web) -> None:
    answer = web.client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["hounsfield_info", "1.2.3"] == 1
    assert samples["hounsfield_instances",] == 1
    assert samples["hounsfield_jobs", "done"] == 1
    assert samples["hounsfield_jobs", "failed"] == 0
    assert samples["hounsfield_deliveries", "pacs <1>", "due"] == 1
    assert samples["hounsfield_model_seconds", "float32", "cpu", "lung-ct"] == 6.5
    assert samples["hounsfield_model_peak_bytes", "float32", "cpu", "lung-ct"] == 10**9
    assert samples["hounsfield_oldest_due_delivery_seconds",] > 0
    assert samples["hounsfield_storage_free_bytes",] == 100 * GIB


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    documented = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == {name: described.labels for name, described in METRICS.items()}
    named = set(re.findall(r"hounsfield_\w+", DOCUMENT.read_text()))
    assert named == set(METRICS)


def test_every_described_metric_is_exposed() -> None:
    counts = Counts(
        instances=0,
        series=dict.fromkeys(SeriesState, 0),
        jobs=dict.fromkeys(JobState, 0),
        deliveries={("pacs", DeliveryState.DUE): 0},
        oldest_waiting_job_at=None,
        oldest_due_delivery_at=None,
        vectors=0,
        quarantined=0,
        efforts={"m": Effort(device="cpu", arithmetic="float32", peak_bytes=1, seconds=1.0)},
    )
    now = datetime.now(UTC)
    empty = Reading(counts=counts, free_bytes=0, minimum_free_bytes=0, version="0", now=now)
    exposed = {family.name: family for family in families(empty)}
    assert exposed.keys() == METRICS.keys()
    assert all(family.samples for family in exposed.values())


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/metrics", "/nothing"])
def test_every_answer_has_strict_headers(web: Web, path: str) -> None:
    headers = web.client.get(path).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Server" not in headers


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/metrics"])
def test_nothing_identifies_a_patient(web: Web, path: str) -> None:
    assert PATIENT not in web.client.get(path).text


def test_the_page_shows_attempts_and_the_last_error_and_escapes(web: Web) -> None:
    html = web.client.get("/").text
    assert "due, 1 attempt: PACS at 127.0.0.1:104 refused the connection" in html
    assert "pacs &lt;1&gt;" in html
    assert "<script" not in html
    assert "Ready." in html


def test_the_policy_allows_the_pages_own_style_only(web: Web) -> None:
    assert web.client.get("/").headers["Content-Security-Policy"] == page.POLICY
    assert page.POLICY.count("sha256-") == 1


def test_nothing_can_be_changed(web: Web) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert web.client.request(method, "/").status_code == 405
