"""A node's outbox as the infer role leaves it: finished jobs whose results are due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from storage.catalog import Catalog
from storage.database import Database, open_database, upgrade
from storage.instances import InstanceStore
from storage.overview import Overview
from storage.queue import Queue
from storage.records import (
    Delivery,
    Effort,
    Instance,
    JobRequest,
    Priority,
    Result,
    Vector,
    Verdict,
)

KINDS = {"SEG": "segmentation", "SR": "measurement_report"}


@dataclass(frozen=True, slots=True)
class Outbox:
    """Catalogue and store of one node, in one folder."""

    database: Database
    catalog: Catalog
    queue: Queue
    store: InstanceStore

    def finish(
        self,
        number: int,
        results: Sequence[bytes],
        *,
        destinations: Sequence[str],
        vectors: Sequence[Vector] = (),
        patient: str = "",
    ) -> list[str]:
        """A study with one series whose job is DONE with these results; their SOP Instance UIDs."""
        now = datetime.now(UTC)
        self.catalog.register([_instance(number, now, patient)])
        arrival = next(
            each
            for each in self.catalog.ripe_series(now)
            if each.study_instance_uid == f"1.2.3.{number}"
        )
        request = JobRequest(
            scope=f"series {arrival.series_id}",
            series_id=arrival.series_id,
            fingerprint=arrival.fingerprint,
            model="lung-ct",
            model_version="1.0.0",
            configuration="0" * 64,
            routes=("chest CT",),
            destinations=tuple(destinations),
            priority=Priority.ROUTINE,
            reason="Modality is CT",
        )
        assert self.catalog.close_series(arrival, [request], [], now)
        lease = now + timedelta(minutes=1)
        job = self.queue.claim(worker="test", models=["lung-ct"], now=now, lease_until=lease)
        assert job is not None
        kept = [self._result(data) for data in results]
        assert self.queue.complete(
            job,
            verdict=Verdict.MEASURED,
            reason=None,
            results=kept,
            destinations=dict.fromkeys(KINDS.values(), tuple(destinations)),
            vectors=vectors,
            now=now,
            effort=Effort(device="cpu", arithmetic="float32", peak_bytes=10**9, seconds=6.5),
        )
        return [each.sop_instance_uid for each in kept]

    def deliveries(self) -> list[Delivery]:
        """All deliveries, by job and order."""
        found = [
            delivery
            for study in self.overview().studies
            for series in study.series
            for outcome in series.outcomes
            for delivery in outcome.deliveries
        ]
        return sorted(found, key=lambda each: (each.job_id, each.order, each.destination))

    def overview(self) -> Overview:
        """What status shows."""
        return self.catalog.overview()

    def _result(self, data: bytes) -> Result:
        header = dcmread(BytesIO(data), stop_before_pixels=True)
        key, digest, size = self.store.write_result(data)
        return Result(
            kind=KINDS[header.Modality],
            sop_class_uid=header.SOPClassUID,
            sop_instance_uid=header.SOPInstanceUID,
            series_instance_uid=header.SeriesInstanceUID,
            digest=digest,
            key=key,
            size=size,
        )


def open_outbox(folder: Path) -> Outbox:
    """The outbox in a folder; made when it does not exist."""
    url = f"sqlite:///{folder / 'catalogue.sqlite'}"
    upgrade(url)
    database = open_database(url)
    return Outbox(database, Catalog(database), Queue(database), InstanceStore(folder))


def copy_of(file: Path, number: int) -> bytes:
    """The same object under another SOP Instance UID."""
    dataset: Dataset = dcmread(file)
    dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{number}"[-64:].lstrip(".0")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _instance(number: int, now: datetime, patient: str) -> Instance:
    return Instance(
        study_instance_uid=f"1.2.3.{number}",
        series_instance_uid=f"1.2.3.{number}.1",
        sop_instance_uid=f"1.2.3.{number}.1.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=f"{number:064x}",
        key=f"instances/00/{number:064x}.dcm",
        size=1,
        received_at=now,
        calling_ae_title="SCANNER",
        header={"Modality": ("CT",), **({"PatientID": (patient,)} if patient else {})},
    )
