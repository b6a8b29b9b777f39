"""A series as routing sees it is computed from its own instances alone, in the order they came."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from storage.records import Header, Instance, SeriesArrival, SeriesState
from storage.schema import INSTANCES, RESULTS, SERIES, STUDIES

MANUFACTURER = "Hounsfield"

ARRIVAL = sa.select(STUDIES.c.study_instance_uid, SERIES).join(
    STUDIES, SERIES.c.study_id == STUDIES.c.id
)


def fingerprint(study: str, series: str, members: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of the UIDs of study and series and of the set of (SOP Instance UID, digest), in any
    order.
    """
    lines = sorted(f"{sop} {digest}" for sop, digest in members)
    return hashlib.sha256("\n".join([study, series, *lines]).encode()).hexdigest()


def combined(fingerprints: Mapping[str, str]) -> str:
    """SHA-256 of the fingerprints of several series, each with its role, in their order."""
    lines = (f"{role} {one}" for role, one in fingerprints.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def usual(headers: Sequence[Header]) -> Header:
    """For each keyword the value that most of the headers which have it carry; of equals, the
    first.
    """
    counts: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for header in headers:
        for keyword, values in header.items():
            counts[keyword][values] += 1
    return {keyword: counter.most_common(1)[0][0] for keyword, counter in counts.items()}


def ripe(connection: Connection, quiet_since: datetime) -> tuple[SeriesArrival, ...]:
    """The series RECEIVING whose last instance came at or before `quiet_since`, longest quiet
    first.
    """
    query = ARRIVAL.where(
        SERIES.c.state == SeriesState.RECEIVING, SERIES.c.last_received_at <= quiet_since
    ).order_by(SERIES.c.last_received_at, SERIES.c.id)
    return tuple(_computed(connection, row) for row in connection.execute(query).all())


def of_study(connection: Connection, study_id: int) -> tuple[SeriesArrival, ...]:
    """Every series of a study that is closed, as it was closed; no headers are read."""
    query = ARRIVAL.where(SERIES.c.study_id == study_id).order_by(SERIES.c.id)
    return tuple(_closed(connection, row) for row in connection.execute(query).all())


def current_fingerprint(connection: Connection, series_id: int) -> str:
    """The fingerprint of what the catalogue has of a series now; those whose bytes were given up
    count.
    """
    uids = sa.select(STUDIES.c.study_instance_uid, SERIES.c.series_instance_uid).join(
        STUDIES, SERIES.c.study_id == STUDIES.c.id
    )
    study, series = connection.execute(uids.where(SERIES.c.id == series_id)).one()
    members = connection.execute(
        sa.select(INSTANCES.c.sop_instance_uid, INSTANCES.c.digest).where(
            INSTANCES.c.series_id == series_id, ~INSTANCES.c.conflict
        )
    )
    return fingerprint(study, series, ((sop, digest) for sop, digest in members))


def instances(
    connection: Connection, series_id: int, *, conflicts: bool = False
) -> tuple[Instance, ...]:
    """The instances of a series whose bytes are in the store, in the order they came."""
    query = (
        sa.select(STUDIES.c.study_instance_uid, SERIES.c.series_instance_uid, INSTANCES)
        .join(SERIES, INSTANCES.c.series_id == SERIES.c.id)
        .join(STUDIES, SERIES.c.study_id == STUDIES.c.id)
        .where(INSTANCES.c.series_id == series_id, INSTANCES.c.forgotten_at.is_(None))
        .order_by(INSTANCES.c.id)
    )
    if not conflicts:
        query = query.where(~INSTANCES.c.conflict)
    return tuple(_instance(row) for row in connection.execute(query))


def _instance(row: Row[Any]) -> Instance:
    return Instance(
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        digest=row.digest,
        key=row.key,
        size=row.size,
        received_at=row.received_at,
        calling_ae_title=row.calling_ae_title,
        header=row.header,
        conflict=row.conflict,
    )


def _computed(connection: Connection, row: Row[Any]) -> SeriesArrival:
    members = connection.execute(
        sa.select(INSTANCES.c.sop_instance_uid, INSTANCES.c.digest, INSTANCES.c.header)
        .where(INSTANCES.c.series_id == row.id, ~INSTANCES.c.conflict)
        .order_by(INSTANCES.c.id)
    ).all()
    attributes = usual([member.header for member in members]) or row.attributes
    print_ = fingerprint(
        row.study_instance_uid,
        row.series_instance_uid,
        ((member.sop_instance_uid, member.digest) for member in members),
    )
    return _arrival(connection, row, attributes=attributes, print_=print_)


def _closed(connection: Connection, row: Row[Any]) -> SeriesArrival:
    print_ = row.fingerprint or current_fingerprint(connection, row.id)
    return _arrival(connection, row, attributes=row.attributes, print_=print_)


def _arrival(
    connection: Connection, row: Row[Any], *, attributes: Header, print_: str
) -> SeriesArrival:
    return SeriesArrival(
        series_id=row.id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        state=row.state,
        instances=row.instances,
        conflicts=row.conflicts,
        first_received_at=row.first_received_at,
        last_received_at=row.last_received_at,
        attributes=attributes,
        fingerprint=print_,
        own_result=_is_own_result(connection, row, attributes),
        forgotten=_forgotten(connection, row.id),
    )


def _forgotten(connection: Connection, series_id: int) -> int:
    query = sa.select(sa.func.count()).where(
        INSTANCES.c.series_id == series_id, INSTANCES.c.forgotten_at.is_not(None)
    )
    return connection.execute(query).scalar_one()


def _is_own_result(connection: Connection, row: Row[Any], attributes: Header) -> bool:
    if attributes.get("Manufacturer", ()) == (MANUFACTURER,):
        return True
    by_series = sa.exists().where(RESULTS.c.series_instance_uid == row.series_instance_uid)
    by_instance = sa.exists().where(
        INSTANCES.c.series_id == row.id,
        INSTANCES.c.sop_instance_uid == RESULTS.c.sop_instance_uid,
    )
    return bool(connection.execute(sa.select(sa.or_(by_series, by_instance))).scalar_one())
