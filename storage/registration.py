"""An instance is registered once whoever sends it again; a batch costs a handful of statements, not
one each.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningInsert

from storage.database import chunks, insert, insert_for
from storage.records import Header, Instance, Registration, SeriesState
from storage.schema import INSTANCES, SERIES, STUDIES

Identity = tuple[str, str]
"""SOP Instance UID and digest: the same bytes under the same name are the same object."""
SeriesUids = tuple[str, str]
"""Study Instance UID and Series Instance UID."""


def _later(column: "sa.Column[datetime]") -> sa.Case[datetime]:
    at = sa.bindparam("at", type_=column.type)
    return sa.case((column < at, at), else_=column)


# Built once: to build a statement takes longer than to run it.
_FIND_SERIES = (
    sa.select(STUDIES.c.study_instance_uid, SERIES.c.series_instance_uid, SERIES.c.id)
    .join(SERIES, SERIES.c.study_id == STUDIES.c.id)
    .where(
        STUDIES.c.study_instance_uid.in_(sa.bindparam("studies", expanding=True)),
        SERIES.c.series_instance_uid.in_(sa.bindparam("series", expanding=True)),
    )
    .order_by(STUDIES.c.study_instance_uid)
    .with_for_update(key_share=True, of=STUDIES)
)
_FIND_FORGOTTEN = sa.select(
    INSTANCES.c.id, INSTANCES.c.sop_instance_uid, INSTANCES.c.digest, INSTANCES.c.conflict
).where(
    INSTANCES.c.sop_instance_uid.in_(sa.bindparam("sops", expanding=True)),
    INSTANCES.c.forgotten_at.is_not(None),
)
_ADD_ARRIVALS = (
    sa.update(SERIES)
    .where(SERIES.c.id == sa.bindparam("of"))
    .values(
        state=SeriesState.RECEIVING,
        reason=None,
        instances=SERIES.c.instances + sa.bindparam("added"),
        size=SERIES.c.size + sa.bindparam("more"),
        last_received_at=_later(SERIES.c.last_received_at),
    )
)
_ADD_CONFLICTS = (
    sa.update(SERIES)
    .where(SERIES.c.id == sa.bindparam("of"))
    .values(
        conflicts=SERIES.c.conflicts + sa.bindparam("added"),
        size=SERIES.c.size + sa.bindparam("more"),
    )
)
_MARK_STUDIES = (
    sa.update(STUDIES)
    .where(STUDIES.c.study_instance_uid == sa.bindparam("of"))
    .values(routed=False, last_received_at=_later(STUDIES.c.last_received_at))
)


@cache
def _insert_instances(dialect: str) -> ReturningInsert[Any]:
    return (
        insert_for(dialect, INSTANCES)
        .on_conflict_do_nothing()
        .returning(INSTANCES.c.sop_instance_uid, INSTANCES.c.digest)
    )


def register(connection: Connection, batch: Sequence[Instance]) -> dict[Identity, Registration]:
    """Registers each distinct object of the batch; the rows of its studies stay locked until the
    commit.
    """
    distinct = _firsts(batch, identity)
    ordered = list(distinct.values())
    series = _series_ids(connection, ordered)
    fresh = _insert(connection, ordered, series, conflict=False)
    rest = [instance for instance in ordered if identity(instance) not in fresh]
    restored = _restore(connection, rest)
    rest = [instance for instance in rest if identity(instance) not in restored]
    conflicting = _insert(connection, rest, series, conflict=True)
    answers = (
        dict.fromkeys(distinct, Registration.DUPLICATE)
        | dict.fromkeys(conflicting, Registration.CONFLICT)
        | dict.fromkeys(fresh, Registration.NEW)
        | restored
    )
    arrived = [i for i in ordered if answers[identity(i)] is Registration.NEW]
    against = [i for i in ordered if answers[identity(i)] is Registration.CONFLICT]
    _count_arrivals(connection, _growth(arrived, series, counted=fresh))
    _count_conflicts(connection, _growth(against, series, counted=conflicting))
    _mark_studies(connection, arrived)
    return answers


def identity(instance: Instance) -> Identity:
    """What makes two receptions the same object."""
    return instance.sop_instance_uid, instance.digest


def _firsts(
    batch: Iterable[Instance], key: Callable[[Instance], tuple[str, str]]
) -> dict[tuple[str, str], Instance]:
    """The first instance of each key, in the order of the batch."""
    firsts: dict[tuple[str, str], Instance] = {}
    for instance in batch:
        firsts.setdefault(key(instance), instance)
    return firsts


def _uids(instance: Instance) -> SeriesUids:
    return instance.study_instance_uid, instance.series_instance_uid


def _series_ids(connection: Connection, batch: Sequence[Instance]) -> dict[SeriesUids, int]:
    """The series' rows; the rows of their studies are locked, in one order, until the commit."""
    first = _firsts(batch, _uids)
    found = _find_series(connection, first)
    missing = [instance for uids, instance in first.items() if uids not in found]
    if not missing:
        return found
    studies = _insert_studies(connection, first.values())
    rows = [_series_row(instance, studies) for instance in missing]
    connection.execute(insert(connection, SERIES).on_conflict_do_nothing(), rows)
    return _find_series(connection, first)


def _find_series(connection: Connection, wanted: Iterable[SeriesUids]) -> dict[SeriesUids, int]:
    wanted = frozenset(wanted)
    uids = {
        "studies": sorted({study for study, _ in wanted}),
        "series": sorted({series for _, series in wanted}),
    }
    found = connection.execute(_FIND_SERIES, uids)
    return {(row[0], row[1]): row[2] for row in found if (row[0], row[1]) in wanted}


def _insert_studies(connection: Connection, firsts: Iterable[Instance]) -> dict[str, int]:
    moments: dict[str, datetime] = {}
    for instance in firsts:
        moments.setdefault(instance.study_instance_uid, instance.received_at)
    connection.execute(
        insert(connection, STUDIES).on_conflict_do_nothing(),
        [
            {
                "study_instance_uid": uid,
                "first_received_at": at,
                "last_received_at": at,
                "routed": False,
            }
            for uid, at in sorted(moments.items())
        ],
    )
    locked = connection.execute(
        sa.select(STUDIES.c.study_instance_uid, STUDIES.c.id)
        .where(STUDIES.c.study_instance_uid.in_(moments))
        .order_by(STUDIES.c.study_instance_uid)
        .with_for_update(key_share=True)
    )
    return {row[0]: row[1] for row in locked}


def _series_row(instance: Instance, studies: Mapping[str, int]) -> dict[str, Any]:
    return {
        "study_id": studies[instance.study_instance_uid],
        "series_instance_uid": instance.series_instance_uid,
        "modality": "".join(instance.header.get("Modality", ())[:1]).replace("\x00", ""),
        "patient": patient_key(instance.header),
        "state": SeriesState.RECEIVING,
        "instances": 0,
        "conflicts": 0,
        "size": 0,
        "first_received_at": instance.received_at,
        "last_received_at": instance.received_at,
        "attributes": instance.header,
    }


def patient_key(header: Header) -> str:
    """SHA-256 of patient ID and issuer, so that a patient is recognised without being named."""
    values = [header.get(keyword, ()) for keyword in ("PatientID", "IssuerOfPatientID")]
    if not any(values[0]):
        return ""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _insert(
    connection: Connection,
    batch: Sequence[Instance],
    series: Mapping[SeriesUids, int],
    *,
    conflict: bool,
) -> set[Identity]:
    """The identities that were inserted; whatever breaks a unique constraint is left out."""
    if not batch:
        return set()
    rows = [
        _instance_row(instance, series[_uids(instance)], conflict=conflict) for instance in batch
    ]
    return {
        (sop, digest)
        for sop, digest in connection.execute(_insert_instances(connection.dialect.name), rows)
    }


def _instance_row(instance: Instance, series_id: int, *, conflict: bool) -> dict[str, Any]:
    return {
        "series_id": series_id,
        "sop_instance_uid": instance.sop_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "digest": instance.digest,
        "key": instance.key,
        "size": instance.size,
        "received_at": instance.received_at,
        "calling_ae_title": instance.calling_ae_title,
        "header": instance.header,
        "conflict": conflict,
        "purged": False,
    }


def _restore(connection: Connection, batch: Sequence[Instance]) -> dict[Identity, Registration]:
    """Objects whose bytes retention gave up and that came again: their rows name the new bytes."""
    wanted = {identity(instance): instance for instance in batch}
    restored = {}
    for part in chunks([instance.sop_instance_uid for instance in batch]):
        for row in connection.execute(_FIND_FORGOTTEN, {"sops": part}).all():
            again = wanted.get((row.sop_instance_uid, row.digest))
            if again is not None:
                _restore_one(connection, row.id, again)
                answer = Registration.CONFLICT if row.conflict else Registration.NEW
                restored[identity(again)] = answer
    return restored


def _restore_one(connection: Connection, instance_id: int, again: Instance) -> None:
    connection.execute(
        sa.update(INSTANCES)
        .where(INSTANCES.c.id == instance_id)
        .values(
            key=again.key,
            size=again.size,
            received_at=again.received_at,
            calling_ae_title=again.calling_ae_title,
            forgotten_at=None,
            purged=False,
        )
    )


@dataclass(slots=True)
class _Growth:
    """What a batch adds to a series."""

    latest: datetime
    added: int = 0
    size: int = 0


def _growth(
    batch: Sequence[Instance],
    series: Mapping[SeriesUids, int],
    *,
    counted: Collection[Identity],
) -> dict[int, _Growth]:
    """By series: bytes and latest reception of the batch; `added` counts those in `counted`."""
    grown: dict[int, _Growth] = {}
    for instance in batch:
        growth = grown.setdefault(series[_uids(instance)], _Growth(latest=instance.received_at))
        growth.latest = max(growth.latest, instance.received_at)
        growth.added += identity(instance) in counted
        growth.size += instance.size
    return grown


def _count_arrivals(connection: Connection, grown: Mapping[int, _Growth]) -> None:
    rows = [
        {"of": series_id, "added": one.added, "more": one.size, "at": one.latest}
        for series_id, one in sorted(grown.items())
    ]
    if rows:
        connection.execute(_ADD_ARRIVALS, rows)


def _count_conflicts(connection: Connection, grown: Mapping[int, _Growth]) -> None:
    rows = [
        {"of": series_id, "added": one.added, "more": one.size}
        for series_id, one in sorted(grown.items())
    ]
    if rows:
        connection.execute(_ADD_CONFLICTS, rows)


def _mark_studies(connection: Connection, arrived: Sequence[Instance]) -> None:
    latest: dict[str, datetime] = {}
    for instance in arrived:
        at = latest.get(instance.study_instance_uid, instance.received_at)
        latest[instance.study_instance_uid] = max(at, instance.received_at)
    if latest:
        rows = [{"of": uid, "at": at} for uid, at in sorted(latest.items())]
        connection.execute(_MARK_STUDIES, rows)
