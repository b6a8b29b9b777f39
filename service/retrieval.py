"""`similar`: the studies most like one, each with a score and its reasons in words.

Every stored vector is compared with the query's, kind by kind: an exact answer. A study is as
similar as its most similar series; the query's own study is left out, other studies of the same
patient are marked.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.config import Configuration
from service.exits import SUCCESS, CommandError
from storage.database import open_database
from storage.records import Vector
from storage.vectors import StoredVector, Vectors, as_matrix

Row = NDArray[np.float32]
Matrix = NDArray[np.float32]
Likeness = Callable[[Row, Matrix], NDArray[np.float64]]
"""A query (dimensions,) and candidates (n, dimensions) -> n likenesses from 0 to 1."""

OTHER_MODALITY = 0.5  # factor of a score across modalities: their grey values mean other things
TINY = 1e-12


def cosine(query: Row, candidates: Matrix) -> NDArray[np.float64]:
    """1 for the same direction, 0 for a right angle or worse; two zero vectors are alike."""
    a, b = query.astype(np.float64), candidates.astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b, axis=1)
    same_nothing = (np.linalg.norm(b, axis=1) < TINY) & (np.linalg.norm(a) < TINY)
    return np.where(same_nothing, 1.0, np.clip(b @ a / np.maximum(norms, TINY), 0.0, 1.0))


def overlap(query: Row, candidates: Matrix) -> NDArray[np.float64]:
    """The shared part of two histograms: 1 for equal ones, 0 for those with no bin in common."""
    a, b = query.astype(np.float64), candidates.astype(np.float64)
    both = np.maximum(a, b).sum(axis=1)
    shared = np.minimum(a, b).sum(axis=1)
    return np.where(both < TINY, 1.0, np.clip(shared / np.maximum(both, TINY), 0.0, 1.0))


def agreement(query: Row, candidates: Matrix) -> NDArray[np.float64]:
    """For measurements of any unit: the mean over all of 1 minus the relative difference."""
    a, b = query.astype(np.float64), candidates.astype(np.float64)
    size = np.maximum(np.abs(a), np.abs(b))
    difference = np.abs(a - b) / np.maximum(size, TINY)
    alike = np.clip(1.0 - np.where(size < TINY, 0.0, difference), 0.0, 1.0)
    mean: NDArray[np.float64] = alike.mean(axis=1)
    return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """What a kind of vector describes, how much it counts, and how two of them are compared."""

    words: str
    weight: float
    likeness: Likeness


ASPECTS: Mapping[str, Aspect] = {
    "histogram": Aspect(words="grey values", weight=0.25, likeness=overlap),
    "edge": Aspect(words="edges", weight=0.2, likeness=overlap),
    "texture": Aspect(words="texture", weight=0.2, likeness=agreement),
    "shape": Aspect(words="shape and measurements", weight=0.25, likeness=agreement),
    "text": Aspect(words="description of the series", weight=0.1, likeness=cosine),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A series to find others like. `patient`: as in `StoredVector`."""

    study_instance_uid: str
    modality: str
    patient: str
    vectors: tuple[Vector, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """The stored vectors of one kind and version; `matrix` has a row for each of `stored`."""

    stored: tuple[StoredVector, ...]
    matrix: Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A study, by its most similar series. `score`: from 0 to 1, 1 is the same."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    score: float
    same_patient: bool
    reasons: tuple[str, ...]


def neighbours(
    queries: Sequence[Query], corpora: Mapping[tuple[str, str], Corpus], *, count: int
) -> tuple[Neighbour, ...]:
    """The `count` studies most like any of the queries, best first; equal scores by UID."""
    best: dict[str, Neighbour] = {}
    for query in queries:
        for found in _compared(query, corpora):
            known = best.get(found.study_instance_uid)
            if known is None or found.score > known.score:
                best[found.study_instance_uid] = found
    for query in queries:
        best.pop(query.study_instance_uid, None)
    ranked = sorted(best.values(), key=lambda each: (-each.score, each.study_instance_uid))
    return tuple(ranked[:count])


def aspect(kind: str) -> Aspect:
    """How vectors of a kind are compared: "texture.x" as "texture", an unknown kind by cosine."""
    known = ASPECTS.get(kind.split(".")[0])
    return known or Aspect(words=kind.replace("_", " "), weight=0.1, likeness=cosine)


def _compared(query: Query, corpora: Mapping[tuple[str, str], Corpus]) -> Iterable[Neighbour]:
    """Every stored series as a neighbour of one query."""
    series: dict[int, StoredVector] = {}
    likenesses: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for vector in query.vectors:
        corpus = corpora[vector.kind, vector.version]
        if not corpus.stored:
            continue
        values = aspect(vector.kind).likeness(as_matrix([vector])[0], corpus.matrix)
        values = np.nan_to_num(values, nan=0.0)  # a vector that is not finite is like no other
        for stored, value in zip(corpus.stored, values, strict=True):
            series[stored.series_id] = stored
            likenesses[stored.series_id][vector.kind] = float(value)
    kinds = [vector.kind for vector in query.vectors]
    return (
        _neighbour(query, stored, kinds, likenesses[series_id])
        for series_id, stored in series.items()
    )


def _neighbour(
    query: Query, stored: StoredVector, kinds: Sequence[str], likeness: Mapping[str, float]
) -> Neighbour:
    """What a candidate lacks counts as unlike."""
    weights = {kind: aspect(kind).weight for kind in kinds}
    score = sum(weights[kind] * likeness.get(kind, 0.0) for kind in kinds) / sum(weights.values())
    other = stored.modality != query.modality
    same_patient = bool(query.patient) and stored.patient == query.patient
    marks = [
        *(["another study of the same patient"] if same_patient else []),
        *([f"another modality: {stored.modality}"] if other else []),
    ]
    return Neighbour(
        study_instance_uid=stored.study_instance_uid,
        series_instance_uid=stored.series_instance_uid,
        modality=stored.modality,
        score=round(score * (OTHER_MODALITY if other else 1.0), 4),
        same_patient=same_patient,
        reasons=(*marks, *_reasons(kinds, weights, likeness)),
    )


def _reasons(
    kinds: Sequence[str], weights: Mapping[str, float], likeness: Mapping[str, float]
) -> list[str]:
    """One for each kind, what counts most for the score first, what is missing last."""
    compared = sorted(likeness, key=lambda kind: (-weights[kind] * likeness[kind], kind))
    said = [
        f"{aspect(kind).words}: {degree(likeness[kind])} ({likeness[kind]:.2f})"
        for kind in compared
    ]
    missing = [kind for kind in kinds if kind not in likeness]
    return said + [f"{aspect(kind).words}: not known of this series" for kind in missing]


def degree(likeness: float) -> str:
    """A likeness in words."""
    steps = ((0.98, "the same"), (0.9, "very similar"), (0.75, "similar"), (0.5, "partly similar"))
    return next((words for least, words in steps if likeness >= least), "different")


def print_similar(
    configuration: Configuration,
    *,
    study: str | None,
    series: str | None,
    path: Path | None,
    count: int,
    as_json: bool,
) -> int:
    """Print the neighbours of a stored study or series, or of a folder of files."""
    database = open_database(configuration.database_url)
    try:
        vectors = Vectors(database)
        queries = _queries(configuration, vectors, study=study, series=series, path=path)
        kinds = {(v.kind, v.version) for query in queries for v in query.vectors}
        corpora = {kind: Corpus(*vectors.matrix(*kind)) for kind in kinds}
    finally:
        database.close()
    found = neighbours(queries, corpora, count=count)
    if as_json:
        sys.stdout.write(json.dumps([_element(each) for each in found], indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(map(_lines, found)) + "\n" if found else "no other study\n")
    return SUCCESS


def _queries(
    configuration: Configuration,
    vectors: Vectors,
    *,
    study: str | None,
    series: str | None,
    path: Path | None,
) -> tuple[Query, ...]:
    if path is not None:
        from service.description import described

        return described(configuration, path)
    stored = vectors.of_study(study) if study is not None else vectors.of_series(series or "")
    if not stored:
        asked = f"--study {study}" if study is not None else f"--series {series}"
        raise CommandError(f"{asked}: no feature vectors; see status for what became of it")
    return queries(stored)


def queries(stored: Iterable[StoredVector]) -> tuple[Query, ...]:
    """One query for each series of these vectors."""
    by_series: defaultdict[int, list[StoredVector]] = defaultdict(list)
    for each in stored:
        by_series[each.series_id].append(each)
    return tuple(
        Query(
            study_instance_uid=group[0].study_instance_uid,
            modality=group[0].modality,
            patient=group[0].patient,
            vectors=tuple(each.vector for each in group),
        )
        for group in by_series.values()
    )


def _element(found: Neighbour) -> dict[str, object]:
    return {
        "study_instance_uid": found.study_instance_uid,
        "series_instance_uid": found.series_instance_uid,
        "modality": found.modality,
        "score": found.score,
        "same_patient": found.same_patient,
        "reasons": list(found.reasons),
    }


def _lines(found: Neighbour) -> str:
    reasons = "".join(f"\n       {reason}" for reason in found.reasons)
    return f"{found.score:.3f}  {found.modality:4} {found.study_instance_uid}{reasons}"
