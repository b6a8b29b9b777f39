"""A worker's surroundings without the rest of the node: catalogue, store, series to work on."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom import Dataset

from inference import phantom
from service.retry import Policy
from service.stopping import Stop
from service.tasks import ModelSetup, Setup
from service.worker import Terms, Worker
from storage import database
from storage.arrivals import combined
from storage.catalog import Catalog
from storage.instances import InstanceStore
from storage.overview import SeriesOverview
from storage.queue import Queue
from storage.records import Instance, JobRequest, Priority, SeriesArrival

HOSTILE = "tests.hostile_models"


def slices(series: str = "series", **scan: object) -> list[Dataset]:
    """A small CT series that reads as a regular stack."""
    small = phantom.thorax((8, 40, 40), (12.0, 10.0, 10.0))
    return phantom.datasets(small, phantom.Scan(series=series, **scan))


@dataclass
class Workplace:
    """A node's storage in a folder; what receive and maintain would do, as plain calls."""

    folder: Path
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.url = f"sqlite:///{self.folder / 'catalogue.sqlite'}"
        self.store = InstanceStore(self.folder)
        database.upgrade(self.url)
        self.database = database.open_database(self.url)
        self.catalog = Catalog(self.database)
        self.queue = Queue(self.database)

    def receive(self, datasets: Sequence[Dataset], *, now: datetime | None = None) -> None:
        """Keep data sets as received."""
        at = now or datetime.now(UTC)
        self.catalog.register([self._instance(dataset, at) for dataset in datasets])

    def receive_garbage(self, dataset: Dataset) -> None:
        """Keep bytes that are no DICOM file under the identity of `dataset`."""
        instance = self._instance(dataset, datetime.now(UTC))
        self.store.path(instance.key).write_bytes(b"not DICOM" * 100)
        self.catalog.register([instance])

    def close(
        self,
        *models: str,
        destinations: tuple[str, ...] = (),
        priority: Priority = Priority.ROUTINE,
    ) -> list[SeriesArrival]:
        """Complete every series with a job for each of these models."""
        now = datetime.now(UTC)
        arrivals = self.catalog.ripe_series(now + timedelta(days=1))
        for arrival in arrivals:
            wanted = (_request(arrival, model, destinations) for model in models)
            jobs = [replace(request, priority=priority) for request in wanted]
            assert self.catalog.close_series(arrival, jobs, [], now)
        return list(arrivals)

    def close_together(self, model: str, **roles: str) -> list[SeriesArrival]:
        """Complete every series, and the study with a job on these: role=Series Instance UID."""
        self.close()
        now = datetime.now(UTC)
        (study,) = self.catalog.ripe_studies(now + timedelta(days=1))
        arrivals = {each.series_instance_uid: each for each in study}
        inputs = {role: arrivals[series] for role, series in roles.items()}
        first = next(iter(inputs.values()))
        wanted = replace(
            _request(first, model, ()),
            fingerprint=combined({role: each.fingerprint for role, each in inputs.items()}),
            inputs={role: each.series_id for role, each in inputs.items()},
        )
        assert self.catalog.close_study(study, [wanted], [], now)
        return list(study)

    def worker(
        self,
        *models: str,
        deadline_seconds: float = 60,
        attempts: int = 2,
        lease_seconds: float = 60,
        stop_seconds: float = 1,
        memory_bytes: int | None = None,
        read_ahead: bool = True,
        package: str = HOSTILE,
        log_file: Path | None = None,
        version: str = "1.0.0",
        setups: Sequence[ModelSetup] = (),
        readable: tuple[Path, ...] = (),
    ) -> Worker:
        """A worker of these models, all of one version, retrying at once.

        `setups`: what is known of them, when they are no modules of `package`.
        """
        return Worker(
            queue=self.queue,
            catalog=self.catalog,
            store=self.store,
            setup=Setup(
                models=tuple(setups) or tuple(_setup(model, version) for model in models),
                node_name="HOUNSFIELD",
                device_serial="0",
                software_version="0",
                not_for_diagnosis=True,
                report_not_analysed=True,
                package=package,
                memory_bytes=memory_bytes,
                log_file=log_file,
                readable=(self.store.path("instances"), *readable),
            ),
            terms=Terms(
                worker="test",
                deadlines=dict.fromkeys(models, deadline_seconds),
                takers={"measurement_report": ("pacs",), "segmentation": ("pacs",)},
                lease=timedelta(seconds=lease_seconds),
                policy=Policy(first=timedelta(0), maximum=timedelta(0), attempts=attempts),
                stop_seconds=stop_seconds,
                read_ahead=read_ahead,
            ),
            stop=self.stop,
        )

    def series(self) -> list[SeriesOverview]:
        """Every series as `status` shows it."""
        return [s for study in self.catalog.overview().studies for s in study.series]

    def _instance(self, dataset: Dataset, now: datetime) -> Instance:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        part = self.store.new_part()
        part.write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        key = self.store.adopt(part, digest)
        self.store.sync([key])
        return Instance(
            study_instance_uid=str(dataset.StudyInstanceUID),
            series_instance_uid=str(dataset.SeriesInstanceUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            sop_class_uid=str(dataset.SOPClassUID),
            transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
            digest=digest,
            key=key,
            size=len(buffer.getvalue()),
            received_at=now,
            calling_ae_title="SCANNER",
            header={
                "Modality": (str(dataset.Modality),),
                "PatientID": (str(dataset.PatientID),),
            },
        )


def _request(arrival: SeriesArrival, model: str, destinations: tuple[str, ...]) -> JobRequest:
    return JobRequest(
        scope=f"series {arrival.series_id}",
        series_id=arrival.series_id,
        fingerprint=arrival.fingerprint,
        model=model,
        model_version="1.0.0",
        configuration="c" * 64,
        routes=("route",),
        destinations=destinations,
        priority=Priority.ROUTINE,
        reason="a test",
    )


def _setup(model: str, version: str) -> ModelSetup:
    return ModelSetup(
        name=model, kind=model, title=model, version=version, configuration="c" * 64, settings={}
    )
