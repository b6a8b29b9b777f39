"""Feature vectors are compared only within one kind and version; each names its series."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Row

from storage.database import Database
from storage.records import Vector
from storage.schema import SERIES, STUDIES, VECTORS

_VECTOR = (
    sa.select(
        STUDIES.c.study_instance_uid,
        SERIES.c.series_instance_uid,
        SERIES.c.modality,
        SERIES.c.patient,
        VECTORS,
    )
    .join(SERIES, VECTORS.c.series_id == SERIES.c.id)
    .join(STUDIES, SERIES.c.study_id == STUDIES.c.id)
    .order_by(VECTORS.c.id)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVector:
    """A vector and its series. `patient`: SHA-256 of patient ID and issuer, "" where there is no
    ID.
    """

    series_id: int
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    patient: str
    vector: Vector


class Vectors:
    """Reads what `Queue.complete` wrote. Methods raise CatalogueUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Every (kind, version) that there is."""
        query = sa.select(VECTORS.c.kind, VECTORS.c.version).distinct()
        with self._database.read() as connection:
            found = connection.execute(query.order_by(VECTORS.c.kind, VECTORS.c.version))
            return tuple((row.kind, row.version) for row in found)

    def all(self, kind: str, version: str) -> tuple[StoredVector, ...]:
        """Every vector of a kind and version, in the order they were first written."""
        return self._select(_VECTOR.where(VECTORS.c.kind == kind, VECTORS.c.version == version))

    def of_study(self, study_instance_uid: str) -> tuple[StoredVector, ...]:
        """The vectors of the series of a study, of every kind and version."""
        return self._select(_VECTOR.where(STUDIES.c.study_instance_uid == study_instance_uid))

    def of_series(self, series_instance_uid: str) -> tuple[StoredVector, ...]:
        """The vectors of a series, of every kind and version."""
        return self._select(_VECTOR.where(SERIES.c.series_instance_uid == series_instance_uid))

    def matrix(
        self, kind: str, version: str
    ) -> tuple[tuple[StoredVector, ...], NDArray[np.float32]]:
        """The vectors of `all` and their values, shape (vectors, dimensions)."""
        stored = self.all(kind, version)
        return stored, as_matrix([one.vector for one in stored])

    def _select(self, query: sa.Select[Any]) -> tuple[StoredVector, ...]:
        with self._database.read() as connection:
            return tuple(_stored(row) for row in connection.execute(query))


def as_matrix(vectors: Sequence[Vector]) -> NDArray[np.float32]:
    """The values of vectors of one kind and version: float32, shape (vectors, dimensions)."""
    dimensions = vectors[0].dimensions if vectors else 0
    joined = b"".join(vector.data for vector in vectors)
    return np.frombuffer(joined, dtype="<f4").reshape(len(vectors), dimensions)


def _stored(row: Row[Any]) -> StoredVector:
    return StoredVector(
        series_id=row.series_id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        modality=row.modality,
        patient=row.patient,
        vector=Vector(kind=row.kind, version=row.version, dimensions=row.dimensions, data=row.data),
    )
