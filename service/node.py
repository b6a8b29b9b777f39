"""Every object of a role is made here, from the configuration and from nothing else.

Each role imports what it needs when it starts, so that no other role carries it.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

from service import approvals, log, processes
from service.config import DESTINATIONS, TRIGGERS, Configuration, Model
from service.destinations import Destination
from service.exits import FAILURE, USAGE
from service.kinds import load_kind
from service.retry import Policy
from service.stopping import Stop
from service.tasks import ArtifactSetup, ModelSetup, Setup
from storage import database
from storage.catalog import Catalog
from storage.database import Database
from storage.instances import InstanceStore
from storage.queue import Queue

ROLES = ("receive", "infer", "deliver", "maintain", "web")
GIB = 1024**3
LATEST_STUDIES = 50  # on the status page
GRACE_SECONDS = 10.0  # for associations that are open when the node stops


class UnknownRoleError(ValueError):
    """Not a role; the text lists them."""


class CannotServe(Exception):  # noqa: N818  (a state of the machine: the port is taken)
    """The role cannot run as configured; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the node."""

    role: str
    number: int  # from 0, among the processes of its role

    @property
    def name(self) -> str:
        """The role, with a number from the second process on: "receive", "receive-1"."""
        return self.role if self.number == 0 else f"{self.role}-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What a role is told while it lives: when to stop; and whom to tell that it serves."""

    stop: Stop
    ready: Callable[[], None]


def parts(configuration: Configuration, roles: Sequence[str]) -> list[Part]:
    """The processes that these roles (all of them when empty) are made of."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise UnknownRoleError(f"role: {unknown[0]!r} is unknown; allowed: {', '.join(ROLES)}")
    many = {
        "receive": configuration.application_entity.receivers,
        "infer": configuration.inference.workers if configuration.models else 0,
    }
    return [
        Part(role=role, number=number)
        for role in ROLES
        if not roles or role in roles
        for number in range(many.get(role, 1))
    ]


def prepare(configuration: Configuration) -> None:
    """Make the folders and bring the catalogue's schema to this version's."""
    InstanceStore(configuration.storage.directory)
    database.upgrade(configuration.database_url)


class Role:
    """The life of one process; made in the supervisor, called in the process."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def __call__(self, part: Part, pipe: Connection, parent: int) -> None:
        """Serve until told to stop; ends the process with an exit status that says how it went."""
        stop = Stop()
        stop.listen()
        processes.end_with_parent(parent, signal.SIGTERM)
        settings = self._configuration.log
        log.configure(role=part.name, level=settings.level, file=settings.file)
        try:
            BUILDERS[part.role](
                self._configuration, Life(stop=stop, ready=lambda: pipe.send(part.name))
            )
        except CannotServe as error:
            log.failure("role.failed", error, role_name=part.name, reason=str(error))
            sys.stderr.write(f"{self._configuration.file}: {error}\n")
            sys.exit(USAGE)
        except Exception as error:  # noqa: BLE001  (rim: the supervisor starts it again)
            log.failure("role.failed", error, role_name=part.name)
            sys.exit(FAILURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The node's storage, opened in this process."""

    database: Database
    catalog: Catalog
    queue: Queue
    store: InstanceStore


def open_storage(configuration: Configuration) -> Stored:
    """Open the catalogue and the instance store of the configuration."""
    opened = database.open_database(configuration.database_url)
    return Stored(
        database=opened,
        catalog=Catalog(opened),
        queue=Queue(opened),
        store=InstanceStore(configuration.storage.directory),
    )


def receive(configuration: Configuration, life: Life) -> None:
    """The receive role: associations, until they end by themselves or the grace is over."""
    from service.application_entity import ApplicationEntity, Limits
    from service.storage_scp import StorageSCP

    keys = configuration.application_entity
    stored = open_storage(configuration)
    scp = StorageSCP(
        instances=stored.store,
        catalog=stored.catalog,
        minimum_free_bytes=int(configuration.storage.minimum_free_gib * GIB),
        private_sop_classes=keys.accept_private_sop_classes,
        clock=clock,
    )
    entity = ApplicationEntity(
        ae_title=keys.ae_title,
        host=keys.host,
        port=keys.port,
        service=scp,
        limits=Limits(
            accepted_calling_ae_titles=keys.accepted_calling_ae_titles,
            require_called_ae_title=keys.require_called_ae_title,
            maximum_associations=keys.maximum_associations,
            maximum_pdu_bytes=keys.maximum_pdu_bytes,
            network_timeout=keys.network_timeout_seconds,
            private_sop_classes=keys.accept_private_sop_classes,
        ),
        share_port=keys.receivers > 1,
    )
    try:
        entity.start()
    except OSError as error:
        place = f"application_entity.port: {keys.host}:{keys.port}"
        raise CannotServe(f"{place} cannot be listened on: {error.strerror}") from error
    stored.store.tell_listening(clock())
    life.ready()
    life.stop.wait_long()
    entity.stop(grace=GRACE_SECONDS)
    scp.close()
    stored.database.close()


def infer(configuration: Configuration, life: Life) -> None:
    """The infer role."""
    from service.worker import Terms, Worker

    stored = open_storage(configuration)
    folder = configuration.storage.directory / approvals.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)  # the child may look there only if it exists
    worker = Worker(
        queue=stored.queue,
        catalog=stored.catalog,
        store=stored.store,
        setup=child_setup(configuration),
        terms=Terms(
            worker=f"{socket.gethostname()}:{os.getpid()}",
            deadlines={model.name: model.deadline_seconds for model in configuration.models},
            takers=takers(configuration),
            lease=timedelta(seconds=configuration.inference.lease_seconds),
            policy=job_policy(configuration),
            read_ahead=configuration.inference.read_ahead,
        ),
        stop=life.stop,
    )
    worker.run(life.ready)
    stored.database.close()


def maintain(configuration: Configuration, life: Life) -> None:
    """The maintain role."""
    from service import schedule
    from service.maintenance import Completion, Incoming, Rescue, Retention, Unserved

    stored = open_storage(configuration)
    completion = Completion(
        catalog=stored.catalog,
        complete=load_kind(TRIGGERS, configuration.completion.kind).complete,
        routes=configuration.routes,
        series_quiet=timedelta(seconds=configuration.completion.seconds),
        study_quiet=timedelta(seconds=configuration.completion.study_seconds),
        since=clock(),
        listening_since=stored.store.listening_since,
    )
    rescue = Rescue(queue=stored.queue, policy=job_policy(configuration))
    retention = Retention(
        catalog=stored.catalog,
        store=stored.store,
        keep=timedelta(days=configuration.retention.days),
        free_bytes=int(configuration.retention.free_gib * GIB),
    )
    unserved = Unserved(
        queue=stored.queue,
        models=[model.name for model in configuration.models],
        destinations=[destination.name for destination in configuration.destinations],
    )
    sweeps = (
        schedule.Sweep(name="completion", every=timedelta(seconds=0.2), act=completion.sweep),
        schedule.Sweep(name="rescue", every=timedelta(seconds=1), act=rescue.sweep),
        schedule.Sweep(name="unserved", every=timedelta(seconds=30), act=unserved.sweep),
        schedule.Sweep(name="retention", every=timedelta(seconds=30), act=retention.sweep),
        schedule.Sweep(
            name="incoming", every=timedelta(hours=1), act=Incoming(store=stored.store).sweep
        ),
    )
    life.ready()
    schedule.run(sweeps, stop=life.stop)
    stored.database.close()


def deliver(configuration: Configuration, life: Life) -> None:
    """The deliver role."""
    from service.sender import Sender, Terms

    stored = open_storage(configuration)
    keys = configuration.deliveries
    sender = Sender(
        queue=stored.queue,
        store=stored.store,
        destinations=destinations(configuration),
        terms=Terms(
            policy=Policy(
                first=timedelta(seconds=keys.first_retry_seconds),
                maximum=timedelta(seconds=keys.maximum_retry_seconds),
                give_up_after=timedelta(days=keys.give_up_after_days),
            ),
            lease=timedelta(seconds=keys.lease_seconds),
        ),
        stop=life.stop,
    )
    sender.run(life.ready)
    stored.database.close()


def web(configuration: Configuration, life: Life) -> None:
    """The web role."""
    from service.metrics import Reading
    from service.web import application, readiness, server

    keys = configuration.web
    try:
        listener = server.listen(keys.host, keys.port)
    except OSError as error:
        raise CannotServe(
            f"web.port: {keys.host}:{keys.port} cannot be listened on: {error.strerror}"
        ) from error
    stored = open_storage(configuration)
    minimum = int(configuration.storage.minimum_free_gib * GIB)
    sources = application.Sources(
        checks={
            "catalogue": readiness.catalogue(stored.catalog.counts),
            "disk": readiness.disk(stored.store.free_bytes, minimum=minimum),
        },
        reading=lambda: Reading(
            counts=stored.catalog.counts(),
            free_bytes=stored.store.free_bytes(),
            minimum_free_bytes=minimum,
            version=version("hounsfield"),
            now=clock(),
        ),
        overview=lambda: stored.catalog.overview(latest=LATEST_STUDIES),
    )
    app = application.application(sources)
    server.serve(app, listener=listener, stop=life.stop, ready=life.ready)
    stored.database.close()


def destinations(configuration: Configuration) -> dict[str, Destination]:
    """Every configured destination by its name; of `check --echo` too."""
    calling = configuration.application_entity.ae_title
    made: dict[str, Destination] = {}
    for each in configuration.destinations:
        kind = load_kind(DESTINATIONS, each.kind)
        made[each.name] = kind.destination(each.settings, calling_ae_title=calling)
    return made


def _artifact(model: Model, directory: Path) -> ArtifactSetup | None:
    if model.artifact is None:
        return None
    return ArtifactSetup(
        path=model.artifact.path,
        sidecar=model.artifact.sidecar.plain,
        trusted=model.artifact.trusted,
        approval=approvals.file_of(directory, model.name),
    )


def child_setup(configuration: Configuration) -> Setup:
    """What the child of a worker is told."""
    limit, budget = configuration.inference.memory_gib, configuration.inference.models_gib
    return Setup(
        models=tuple(
            ModelSetup(
                name=model.name,
                kind=model.kind,
                title=model.title,
                version=model.version,
                configuration=model.digest,
                settings=model.settings,
                artifact=_artifact(model, configuration.storage.directory),
            )
            for model in configuration.models
        ),
        node_name=configuration.application_entity.ae_title,
        device_serial="0",
        software_version=version("hounsfield"),
        not_for_diagnosis=configuration.results.not_for_diagnosis,
        report_not_analysed=configuration.results.report_not_analysed,
        memory_bytes=None if limit is None else int(limit * GIB),
        device=configuration.inference.device,
        models_bytes=None if budget is None else int(budget * GIB),
        log_level=configuration.log.level,
        log_file=configuration.log.file,
        readable=(
            configuration.storage.directory / "instances",
            configuration.storage.directory / approvals.FOLDER,
        ),
    )


def takers(configuration: Configuration) -> dict[str, tuple[str, ...]]:
    """Result kind -> names of the destinations that take it."""
    kinds = {kind for destination in configuration.destinations for kind in destination.results}
    return {
        kind: tuple(each.name for each in configuration.destinations if kind in each.results)
        for kind in sorted(kinds)
    }


def job_policy(configuration: Configuration) -> Policy:
    """How often and when a failed job is tried again."""
    keys = configuration.inference
    return Policy(
        first=timedelta(seconds=keys.first_retry_seconds),
        maximum=timedelta(seconds=keys.maximum_retry_seconds),
        attempts=keys.maximum_attempts,
    )


def clock() -> datetime:
    """The time now, UTC."""
    return datetime.now(UTC)


BUILDERS: Mapping[str, Callable[[Configuration, Life], None]] = {
    "receive": receive,
    "infer": infer,
    "deliver": deliver,
    "maintain": maintain,
    "web": web,
}
