"""SIGKILL at each step of the path and restart: nothing acknowledged is lost, one result set comes.

A cycle kills the whole node at once, as a power cut would (but for the disk's own cache, which
no test without hardware covers), or one of its processes, at a step chosen by the cycle's number
and a moment within it chosen by its seed. The scanner does what scanners do: what was not
acknowledged it sends again. The PACS is DCMTK's storescp.
"""

import hashlib
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from inference import phantom
from storage.catalog import Catalog
from storage.database import open_database
from storage.instances import InstanceStore
from storage.overview import Outcome, Overview
from storage.records import DeliveryState
from tests.node import Node, dicom_destination, eventually, lung_route
from tests.peers import dcmtk_storescp

SLICES = 24
QUIET_SECONDS = 1.5
QUICK = """
[inference]
lease_seconds = 3
first_retry_seconds = 0.5

[deliveries]
lease_seconds = 3
first_retry_seconds = 0.5
"""
STEPS = (
    "receiving",
    "received",
    "complete",
    "running",
    "done",
    "delivering",
    "delivered",
)


def series(seed: int) -> list[pydicom.Dataset]:
    """A small synthetic thorax, another one for each seed."""
    return phantom.datasets(phantom.thorax((SLICES, 64, 64), (12.0, 6.0, 6.0), seed=seed))


class Scanner:
    """Sends until every image is acknowledged, by its SOP Instance UID answered Success."""

    def __init__(self, port: int, images: Sequence[pydicom.Dataset]) -> None:
        self.port = port
        self.images = list(images)
        self.acknowledged: set[str] = set()

    def send(self, *, at_most: int | None = None) -> None:
        """One association with what is not acknowledged yet; ends early when the node dies."""
        entity = AE("SCANNER")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.connection_timeout = 5
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", self.port, ae_title="HOUNSFIELD")
        try:
            for image in self.missing()[:at_most]:
                if not association.is_established:
                    return
                with suppress(RuntimeError):  # the node was killed between two images
                    self._store(association, image)
        finally:
            if association.is_established:
                association.release()

    def _store(self, association: "object", image: pydicom.Dataset) -> None:
        status = association.send_c_store(image)  # type: ignore[attr-defined]
        if status and status.Status == 0x0000:
            self.acknowledged.add(image.SOPInstanceUID)

    def missing(self) -> list[pydicom.Dataset]:
        """What was not acknowledged yet."""
        return [i for i in self.images if i.SOPInstanceUID not in self.acknowledged]

    def finish(self) -> None:
        """Everything is acknowledged in the end."""

        def whole() -> bool:
            self.send()
            return not self.missing()

        eventually(whole, seconds=60, what="every image acknowledged")


class Watch:
    """What the catalogue says, read as another process would."""

    def __init__(self, node: Node) -> None:
        self.database = open_database(f"sqlite:///{node.folder / 'node' / 'catalogue.sqlite'}")
        self.catalog = Catalog(self.database)
        self.store = InstanceStore(node.folder / "node")

    def overview(self) -> Overview:
        return self.catalog.overview(None, latest=None)

    def outcomes(self) -> list[Outcome]:
        return [o for st in self.overview().studies for s in st.series for o in s.outcomes]

    def reached(self, step: str) -> bool:
        """Whether the path has come to `step`."""
        outcomes = [o for o in self.outcomes() if o.job_id is not None]
        states = [d.state for o in outcomes for d in o.deliveries]
        arrived = [s in (DeliveryState.SENT, DeliveryState.COMMITTED) for s in states]
        return {
            "complete": lambda: bool(outcomes),
            "running": lambda: any(o.state == "running" or o.attempts for o in outcomes),
            "done": lambda: any(o.state == "done" for o in outcomes),
            "delivering": lambda: bool(states),
            "delivered": lambda: bool(arrived) and all(arrived),
        }[step]()

    def check_acknowledged(self, scanner: Scanner) -> None:
        """Every acknowledged image is in the catalogue, and its bytes are on disk, as sent."""
        stored = {
            instance.sop_instance_uid: instance
            for study in self.overview().studies
            for series in study.series
            for instance in self.catalog.all_instances(series.series_id)
        }
        sent = {image.SOPInstanceUID: image for image in scanner.images}
        for uid in scanner.acknowledged:
            kept = pydicom.dcmread(self.store.path(stored[uid].key))
            assert kept.PixelData == sent[uid].PixelData, uid

    def close(self) -> None:
        self.database.close()


@pytest.fixture
def seed(cycle: int) -> random.Random:
    """The cycle's own dice."""
    return random.Random(f"cycle {cycle}")


def strike(node: Node, dice: random.Random) -> None:
    """SIGKILL: the whole node, or one of its processes (the supervisor restarts that one)."""
    victims = node.processes()[1:]
    if dice.random() < 0.6 or not victims:
        node.kill()
        node.start()
        return
    with suppress(ProcessLookupError):
        os.kill(dice.choice(victims), signal.SIGKILL)
    eventually(node.listening, seconds=60, what="the node listens again")


def reach(watch: Watch, step: str, scanner: Scanner, dice: random.Random) -> None:
    """Bring the path to `step`, then wait a moment."""
    if step == "receiving":
        scanner.send(at_most=dice.randrange(1, SLICES))
        return
    scanner.finish()
    if step != "received":
        eventually(lambda: watch.reached(step), seconds=60, what=step, every=0.01)
    time.sleep(dice.random() * 0.3)


def test_a_kill_loses_nothing_and_doubles_nothing(
    cycle: int, seed: random.Random, tmp_path: Path
) -> None:
    step = STEPS[cycle % len(STEPS)]
    with dcmtk_storescp(tmp_path / "pacs") as pacs:
        node = Node(
            tmp_path,
            quiet_seconds=QUIET_SECONDS,
            extra=QUICK
            + dicom_destination(pacs.port, ae_title=pacs.ae_title)
            + lung_route(["pacs"], model="body_outline"),
        )
        scanner = Scanner(node.port, series(seed=cycle))
        node.start()
        watch = Watch(node)
        try:
            reach(watch, step, scanner, seed)
            strike(node, seed)
            scanner.finish()
            eventually(lambda: watch.reached("delivered"), seconds=90, what="a delivered result")
            watch.check_acknowledged(scanner)
            check_results(watch, pacs.received())
        finally:
            watch.close()
            node.kill()


def test_a_scanner_interrupted_by_a_crash_gets_one_result_of_the_whole_series(
    tmp_path: Path,
) -> None:
    """However long the node was away: nobody could hear the rest."""
    node = Node(tmp_path, quiet_seconds=4, extra=lung_route([], model="body_outline"))
    scanner = Scanner(node.port, series(seed=0))
    try:
        node.start()
        scanner.send(at_most=SLICES // 2)
        node.kill()
        time.sleep(node.quiet_seconds)
        node.start()
        time.sleep(node.quiet_seconds / 4)  # several sweeps
        scanner.finish()
        (found,) = node.settled()
        assert found["instances"] == SLICES
        assert [o["generation"] for o in found["outcomes"]] == [1]
        assert len(node.events("series.complete")) == 1
    finally:
        node.kill()


def check_results(watch: Watch, received: Sequence[Path]) -> None:
    """One outcome, one SEG and one SR, at the PACS as the node has them, and no half object."""
    (outcome,) = watch.outcomes()
    assert outcome.state == "done"
    kinds = sorted(result.kind for result in outcome.results)
    assert kinds == ["measurement_report", "segmentation"]
    at_pacs = {pydicom.dcmread(path).SOPInstanceUID: path for path in received}
    assert set(at_pacs) == {result.sop_instance_uid for result in outcome.results}
    report = next(r for r in outcome.results if r.kind == "measurement_report")
    assert data_set(at_pacs[report.sop_instance_uid]) == data_set(watch.store.path(report.key))


def data_set(path: Path) -> str:
    """The digest of a file's data set, whoever wrote its meta information."""
    meta = pydicom.filereader.read_file_meta_info(path)
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    return hashlib.sha256(path.read_bytes()[start:]).hexdigest()
