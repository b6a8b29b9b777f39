"""An instance is registered once whoever sends it again; a batch costs a handful of statements, not one each."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database import chunks, insert
from storage.records import Instance, Registration, SeriesState
from storage.schema import INSTANCES, SERIES, STUDIES

Identity = tuple[str, str]
"""SOP Instance UID and digest: the same bytes under the same name are the same object."""
SeriesUids = tuple[str, str]
"""Study Instance UID and Series Instance UID."""


def register(connection: Connection, batch: Sequence[Instance]) -> dict[Identity, Registration]:
    """Registers each distinct object of the batch; the rows of its studies stay locked until the commit."""
    distinct = {identity(instance): instance for instance in reversed(batch)}
    ordered = list(reversed(distinct.values()))
    series = _series_ids(connection, ordered)
    fresh = _insert(connection, ordered, series, conflict=False)
    rest = [instance for instance in ordered if identity(instance) not in fresh]
    restored = _restore(connection, rest)
    rest = [instance for instance in rest if identity(instance) not in restored]
    conflicting = _insert(connection, rest, series, conflict=True)
    _mark_arrivals(connection, ordered, series, fresh=fresh, restored=restored)
    _count_conflicts(connection, [series[_uids(i)] for i in rest if identity(i) in conflicting])
    return (
        dict.fromkeys(distinct, Registration.DUPLICATE)
        | dict.fromkeys(conflicting, Registration.CONFLICT)
        | dict.fromkeys(fresh | restored, Registration.NEW)
    )


def identity(instance: Instance) -> Identity:
    """What makes two receptions the same object."""
    return instance.sop_instance_uid, instance.digest


def _uids(instance: Instance) -> SeriesUids:
    return instance.study_instance_uid, instance.series_instance_uid


def _series_ids(connection: Connection, batch: Sequence[Instance]) -> dict[SeriesUids, int]:
    studies = _lock_studies(connection, batch)
    first = {_uids(instance): instance for instance in reversed(batch)}
    rows = [_series_row(instance, studies) for instance in first.values()]
    connection.execute(insert(connection, SERIES).on_conflict_do_nothing(), rows)
    found = connection.execute(
        sa.select(SERIES.c.id, SERIES.c.study_id, SERIES.c.series_instance_uid).where(
            SERIES.c.series_instance_uid.in_([uids[1] for uids in first])
        )
    )
    ids = {(row.study_id, row.series_instance_uid): row.id for row in found}
    return {uids: ids[studies[uids[0]], uids[1]] for uids in first}


def _lock_studies(connection: Connection, batch: Sequence[Instance]) -> dict[str, int]:
    uids = sorted({instance.study_instance_uid for instance in batch})
    moments = {i.study_instance_uid: i.received_at for i in reversed(batch)}
    connection.execute(
        insert(connection, STUDIES).on_conflict_do_nothing(),
        [
            {
                "study_instance_uid": uid,
                "first_received_at": moments[uid],
                "last_received_at": moments[uid],
                "routed": False,
            }
            for uid in uids
        ],
    )
    locked = connection.execute(
        sa.select(STUDIES.c.study_instance_uid, STUDIES.c.id)
        .where(STUDIES.c.study_instance_uid.in_(uids))
        .order_by(STUDIES.c.study_instance_uid)
        .with_for_update(key_share=True)
    )
    return {uid: study_id for uid, study_id in locked}


def _series_row(instance: Instance, studies: Mapping[str, int]) -> dict[str, Any]:
    return {
        "study_id": studies[instance.study_instance_uid],
        "series_instance_uid": instance.series_instance_uid,
        "modality": "".join(instance.header.get("Modality", ())[:1]).replace("\x00", ""),
        "state": SeriesState.RECEIVING,
        "instances": 0,
        "conflicts": 0,
        "first_received_at": instance.received_at,
        "last_received_at": instance.received_at,
        "attributes": instance.header,
    }


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
    statement = (
        insert(connection, INSTANCES)
        .on_conflict_do_nothing()
        .returning(INSTANCES.c.sop_instance_uid, INSTANCES.c.digest)
    )
    rows = [
        _instance_row(instance, series[_uids(instance)], conflict=conflict) for instance in batch
    ]
    return {(sop, digest) for sop, digest in connection.execute(statement, rows)}


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


def _restore(connection: Connection, batch: Sequence[Instance]) -> set[Identity]:
    """Objects whose bytes retention gave up and that came again: their rows name the new bytes."""
    wanted = {identity(instance): instance for instance in batch}
    restored = set()
    for part in chunks([instance.sop_instance_uid for instance in batch]):
        query = sa.select(INSTANCES.c.id, INSTANCES.c.sop_instance_uid, INSTANCES.c.digest).where(
            INSTANCES.c.sop_instance_uid.in_(part), INSTANCES.c.forgotten_at.is_not(None)
        )
        for row in connection.execute(query).all():
            again = wanted.get((row.sop_instance_uid, row.digest))
            if again is not None:
                _restore_one(connection, row.id, again)
                restored.add(identity(again))
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


def _mark_arrivals(
    connection: Connection,
    batch: Sequence[Instance],
    series: Mapping[SeriesUids, int],
    *,
    fresh: Collection[Identity],
    restored: Collection[Identity],
) -> None:
    arrived = [i for i in batch if identity(i) in fresh or identity(i) in restored]
    if not arrived:
        return
    added = Counter(series[_uids(i)] for i in arrived if identity(i) in fresh)
    moments = _latest((series[_uids(i)], i.received_at) for i in arrived)
    connection.execute(
        sa.update(SERIES)
        .where(SERIES.c.id == sa.bindparam("of"))
        .values(
            state=SeriesState.RECEIVING,
            reason=None,
            instances=SERIES.c.instances + sa.bindparam("added"),
            last_received_at=_later(SERIES.c.last_received_at),
        ),
        [{"of": id_, "added": added[id_], "at": at} for id_, at in sorted(moments.items())],
    )
    studies = _latest((i.study_instance_uid, i.received_at) for i in arrived)
    connection.execute(
        sa.update(STUDIES)
        .where(STUDIES.c.study_instance_uid == sa.bindparam("of"))
        .values(routed=False, last_received_at=_later(STUDIES.c.last_received_at)),
        [{"of": uid, "at": at} for uid, at in sorted(studies.items())],
    )


def _later(column: "sa.Column[datetime]") -> sa.Case[datetime]:
    at = sa.bindparam("at", type_=column.type)
    return sa.case((column < at, at), else_=column)


def _latest(moments: Any) -> dict[Any, datetime]:
    latest: dict[Any, datetime] = {}
    for name, at in moments:
        latest[name] = max(at, latest.get(name, at))
    return latest


def _count_conflicts(connection: Connection, series_ids: Sequence[int]) -> None:
    counts = Counter(series_ids)
    if counts:
        connection.execute(
            sa.update(SERIES)
            .where(SERIES.c.id == sa.bindparam("of"))
            .values(conflicts=SERIES.c.conflicts + sa.bindparam("added")),
            [{"of": series_id, "added": added} for series_id, added in counts.items()],
        )
