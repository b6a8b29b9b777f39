"""The tables: what must never be true at once is a constraint here, not a habit elsewhere."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from storage.records import (
    DeliveryState,
    Header,
    JobState,
    Priority,
    SeriesState,
    Verdict,
)


class Moment(TypeDecorator[datetime]):
    """A moment in UTC; aware on both sides, whatever the database keeps."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Word(TypeDecorator[StrEnum]):
    """A StrEnum, kept as its value."""

    impl = sa.String(16)
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        del dialect
        return None if value is None else self.kind(value)


class Rank(TypeDecorator[Priority]):
    """A priority, kept as its place in the order of claiming: 0 first."""

    impl = sa.SmallInteger
    cache_ok = True

    def process_bind_param(self, value: Priority | None, dialect: Dialect) -> int | None:
        del dialect
        return None if value is None else list(Priority).index(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Priority | None:
        del dialect
        return None if value is None else list(Priority)[value]


class Names(TypeDecorator[tuple[str, ...]]):
    """An ordered tuple of names, kept as a JSON array."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else json.dumps(list(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        del dialect
        return None if value is None else tuple(json.loads(value))


class IdsByName(TypeDecorator[Mapping[str, int]]):
    """A mapping of names to row ids in its order, kept as a JSON object."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, int] | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else json.dumps(dict(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, int] | None:
        del dialect
        return None if value is None else dict(json.loads(value))


class NamesByName(TypeDecorator[Header]):
    """A mapping of names to tuples of text (a header, or kinds to destinations), kept as a JSON
    object.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(
        self, value: Mapping[str, tuple[str, ...]] | None, dialect: Dialect
    ) -> str | None:
        del dialect
        return None if value is None else encode_header(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Header | None:
        del dialect
        return None if value is None else decode_header(value)


def encode_header(header: Header) -> str:
    """JSON text of a header: ASCII, as PostgreSQL's text holds neither NUL nor half a surrogate
    pair.
    """
    return json.dumps({key: list(values) for key, values in header.items()}, ensure_ascii=True)


def decode_header(text: str) -> Header:
    """The header that `encode_header` wrote."""
    return {key: tuple(values) for key, values in json.loads(text).items()}


METADATA = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite numbers rows only in INTEGER
_UID = sa.Text()  # PS3.5 section 9.1 says 64 characters; peers send more
_DIGEST = sa.String(64)
_AE_TITLE = sa.Text()


def _id() -> sa.Column[int]:
    return sa.Column("id", _ID, primary_key=True)


STUDIES = sa.Table(
    "studies",
    METADATA,
    _id(),
    sa.Column("study_instance_uid", _UID, nullable=False, unique=True),
    sa.Column("first_received_at", Moment, nullable=False),
    sa.Column("last_received_at", Moment, nullable=False),
    sa.Column("routed", sa.Boolean, nullable=False),  # close_study ran since the last new instance
    sa.Index("ix_studies_routed_last_received_at", "routed", "last_received_at"),
)

SERIES = sa.Table(
    "series",
    METADATA,
    _id(),
    sa.Column("study_id", _ID, sa.ForeignKey("studies.id"), nullable=False),
    sa.Column("series_instance_uid", _UID, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("patient", sa.Text, nullable=False),  # SHA-256 of ID and issuer; "" without an ID
    sa.Column("state", Word(SeriesState), nullable=False),
    sa.Column("reason", sa.Text),  # of the quarantine
    sa.Column("instances", sa.Integer, nullable=False),  # without conflicts
    sa.Column("conflicts", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),  # of its bytes in the store, with conflicts
    sa.Column("first_received_at", Moment, nullable=False),
    sa.Column("last_received_at", Moment, nullable=False),
    sa.Column("attributes", NamesByName, nullable=False),  # of the first instance, then of most
    sa.Column("fingerprint", _DIGEST),  # of the instances when it was last closed
    sa.UniqueConstraint("study_id", "series_instance_uid"),
    sa.Index("ix_series_state_last_received_at", "state", "last_received_at"),
    sa.Index("ix_series_series_instance_uid", "series_instance_uid"),
)

INSTANCES = sa.Table(
    "instances",
    METADATA,
    _id(),
    sa.Column("series_id", _ID, sa.ForeignKey("series.id"), nullable=False),
    sa.Column("sop_instance_uid", _UID, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("transfer_syntax_uid", _UID, nullable=False),
    sa.Column("digest", _DIGEST, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("received_at", Moment, nullable=False),
    sa.Column("calling_ae_title", _AE_TITLE, nullable=False),
    sa.Column("header", NamesByName, nullable=False),
    sa.Column("conflict", sa.Boolean, nullable=False),
    sa.Column("forgotten_at", Moment),  # retention gave the bytes up
    sa.Column("purged", sa.Boolean, nullable=False),  # and they are gone from the store
    sa.UniqueConstraint("sop_instance_uid", "digest"),
    sa.Index("ix_instances_series_id", "series_id"),
    sa.Index(
        "uq_instances_sop_instance_uid",
        "sop_instance_uid",
        unique=True,
        sqlite_where=sa.text("NOT conflict"),
        postgresql_where=sa.text("NOT conflict"),
    ),
    sa.Index(
        "ix_instances_unpurged",
        "key",
        sqlite_where=sa.text("forgotten_at IS NOT NULL AND NOT purged"),
        postgresql_where=sa.text("forgotten_at IS NOT NULL AND NOT purged"),
    ),
)

QUARANTINE = sa.Table(
    "quarantine",
    METADATA,
    _id(),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("received_at", Moment, nullable=False),
    sa.Column("calling_ae_title", _AE_TITLE, nullable=False),
)

DISPOSITIONS = sa.Table(
    "dispositions",
    METADATA,
    _id(),
    sa.Column("series_id", _ID, sa.ForeignKey("series.id"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("route", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Index("ix_dispositions_series_id", "series_id"),
)

JOBS = sa.Table(
    "jobs",
    METADATA,
    _id(),
    sa.Column("state", Word(JobState), nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("series_id", _ID, sa.ForeignKey("series.id"), nullable=False),
    sa.Column("fingerprint", _DIGEST, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("configuration", sa.Text, nullable=False),
    sa.Column("routes", Names, nullable=False),
    sa.Column("destinations", Names, nullable=False),
    sa.Column("priority", Rank, nullable=False),
    sa.Column("request_reason", sa.Text, nullable=False),  # why this series
    sa.Column("inputs", IdsByName, nullable=False, server_default="{}"),  # role -> series
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("supersedes", _ID, sa.ForeignKey("jobs.id")),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("due_at", Moment, nullable=False),
    sa.Column("lease_until", Moment),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("started_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Column("verdict", Word(Verdict)),
    sa.Column("reason", sa.Text),  # of the verdict, the failure or the last retry
    sa.Column("device", sa.Text),  # where the model ran, and the next three what it took there
    sa.Column("arithmetic", sa.Text),
    sa.Column("peak_bytes", sa.BigInteger),
    sa.Column("model_seconds", sa.Float),
    sa.Column("takers", NamesByName),  # result kind -> destinations that took it when it was DONE
    sa.UniqueConstraint("fingerprint", "model", "model_version", "configuration"),
    sa.Index("ix_jobs_state_priority_due_at", "state", "priority", "due_at"),
    sa.Index("ix_jobs_scope_model", "scope", "model"),
    sa.Index("ix_jobs_series_id", "series_id"),
)

RESULTS = sa.Table(
    "results",
    METADATA,
    _id(),
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("sop_instance_uid", _UID, nullable=False, unique=True),
    sa.Column("series_instance_uid", _UID, nullable=False),
    sa.Column("digest", _DIGEST, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),  # in the order of sending
    sa.Column(
        "current", sa.Boolean, nullable=False
    ),  # False: a later run of the job has it no more
    sa.Index("ix_results_job_id", "job_id"),
    sa.Index("ix_results_series_instance_uid", "series_instance_uid"),
)

DELIVERIES = sa.Table(
    "deliveries",
    METADATA,
    _id(),
    sa.Column("job_id", _ID, sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("result_id", _ID, sa.ForeignKey("results.id"), nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("state", Word(DeliveryState), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("due_at", Moment, nullable=False),
    sa.Column("lease_until", Moment),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("finished_at", Moment),  # sent, committed, failed or withdrawn
    sa.Column("last_error", sa.Text),
    sa.UniqueConstraint("result_id", "destination"),
    sa.Index("ix_deliveries_destination_state_due_at", "destination", "state", "due_at"),
    sa.Index("ix_deliveries_job_id", "job_id"),
)

VECTORS = sa.Table(
    "vectors",
    METADATA,
    _id(),
    sa.Column("series_id", _ID, sa.ForeignKey("series.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("series_id", "kind", "version"),
    sa.Index("ix_vectors_kind_version", "kind", "version"),
)
