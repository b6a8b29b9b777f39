"""`similar`: the studies most like one, each with a score and its reasons in words.

Every stored vector is compared with the query's, kind by kind: an exact answer. A study is as
similar as its most similar series; the query's own study is left out, other studies of the same
patient are marked.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service import catalogue
from service.config import Configuration
from service.exits import SUCCESS, CommandError
from storage.records import Vector
from storage.vectors import StoredVector, Vectors, as_matrix

Row = NDArray[np.float32]
Matrix = NDArray[np.float32]
Likeness = Callable[[Row, Matrix], NDArray[np.float32]]
"""A query (dimensions,) and candidates (n, dimensions) -> n likenesses from 0 to 1."""
Explain = Callable[[str, Row, Row], str]
"""A kind and two of its vectors -> what tells them apart, in words (inference/view_features.py)."""

OTHER_MODALITY = 0.5  # factor of a score across modalities: their grey values mean other things
TINY = 1e-12
SAME = 0.9995  # 1 but for rounding
DEGREES = ((SAME, "the same"), (0.9, "very similar"), (0.75, "similar"), (0.5, "partly similar"))


def cosine(query: Row, candidates: Matrix) -> NDArray[np.float32]:
    """1 for the same direction, 0 for a right angle or worse; two zero vectors are alike.

    Of histograms whose square roots are taken it is the Bhattacharyya coefficient.
    """
    length, lengths = np.linalg.norm(query), np.linalg.norm(candidates, axis=1)
    both_empty = (length < TINY) & (lengths < TINY)
    directions = candidates / np.maximum(lengths, TINY)[:, np.newaxis]
    angles = np.clip(directions @ (query / np.maximum(length, TINY)), 0.0, 1.0)
    return np.where(both_empty, 1.0, angles).astype(np.float32)


def agreement(query: Row, candidates: Matrix) -> NDArray[np.float32]:
    """For measurements of any unit: 1 minus the relative difference, over those either has."""
    size = np.maximum(np.abs(query), np.abs(candidates))
    either = size > TINY
    difference = np.abs(query - candidates) / np.where(either, size, 1.0)
    alike = np.where(either, np.clip(1.0 - difference, 0.0, 1.0), 0.0).sum(axis=1)
    count = either.sum(axis=1)
    return np.where(count > 0, alike / np.maximum(count, 1), 1.0).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """What a kind of vector describes, how much it counts, and how two of them are compared."""

    words: str
    weight: float
    likeness: Likeness


ASPECTS: Mapping[str, Aspect] = {
    "intensity": Aspect(words="grey values", weight=0.25, likeness=cosine),
    "edges": Aspect(words="outlines", weight=0.2, likeness=cosine),
    "texture": Aspect(words="texture", weight=0.2, likeness=agreement),
    "shape": Aspect(words="shape and measurements", weight=0.25, likeness=agreement),
    "header": Aspect(words="description", weight=0.1, likeness=cosine),
    "view_intensity": Aspect(words="brightness and colours", weight=0.3, likeness=cosine),
    "view_edges": Aspect(words="outlines", weight=0.4, likeness=cosine),
    "view_texture": Aspect(words="texture", weight=0.2, likeness=agreement),
}
"""The kinds of inference/features.py and inference/view_features.py."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """A stored series against one query: kind -> (likeness, row of the corpus)."""

    query: Query
    stored: StoredVector
    alike: Mapping[str, tuple[float, int]]

    @property
    def score(self) -> float:
        """The weighted mean over the query's kinds; what the series lacks counts as unlike."""
        weights = {each.kind: aspect(each.kind).weight for each in self.query.vectors}
        mean = sum(weights[kind] * value for kind, (value, _) in self.alike.items())
        factor = 1.0 if self.stored.modality == self.query.modality else OTHER_MODALITY
        return factor * mean / sum(weights.values())


def neighbours(
    queries: Sequence[Query],
    corpora: Mapping[tuple[str, str], Corpus],
    *,
    count: int,
    explain: Explain,
) -> tuple[Neighbour, ...]:
    """The `count` studies most like any of the queries, best first; equal scores by UID."""
    own = {query.study_instance_uid for query in queries}
    best: dict[str, tuple[float, _Match]] = {}
    for match in (match for query in queries for match in _matches(query, corpora)):
        study, score = match.stored.study_instance_uid, match.score
        if study not in own and (study not in best or score > best[study][0]):
            best[study] = score, match
    ranked = sorted(best.items(), key=lambda each: (-each[1][0], each[0]))
    return tuple(_neighbour(match, corpora, explain) for _, (_, match) in ranked[:count])


def aspect(kind: str) -> Aspect:
    """How vectors of a kind are compared; those of an unknown kind by cosine."""
    unknown = Aspect(words=kind.replace("_", " "), weight=0.1, likeness=cosine)
    return ASPECTS.get(kind, unknown)


def _matches(query: Query, corpora: Mapping[tuple[str, str], Corpus]) -> Iterator[_Match]:
    """Every stored series against one query."""
    series: dict[int, StoredVector] = {}
    alike: defaultdict[int, dict[str, tuple[float, int]]] = defaultdict(dict)
    for vector in query.vectors:
        corpus = corpora[vector.kind, vector.version]
        if not corpus.stored:
            continue
        values = _likenesses(vector, corpus)
        for row, stored in enumerate(corpus.stored):
            series[stored.series_id] = stored
            alike[stored.series_id][vector.kind] = float(values[row]), row
    for series_id, stored in series.items():
        yield _Match(query=query, stored=stored, alike=alike[series_id])


def _likenesses(vector: Vector, corpus: Corpus) -> NDArray[np.float32]:
    """Of each stored vector to one; what is not finite is like no other."""
    query = as_matrix([vector])[0]
    finite = np.isfinite(corpus.matrix).all(axis=1) & np.isfinite(query).all()
    values = aspect(vector.kind).likeness(np.nan_to_num(query), np.nan_to_num(corpus.matrix))
    return np.where(finite, values, np.float32(0.0))


def _neighbour(
    match: _Match, corpora: Mapping[tuple[str, str], Corpus], explain: Explain
) -> Neighbour:
    stored, query = match.stored, match.query
    same_patient = bool(query.patient) and stored.patient == query.patient
    marks = []
    if same_patient:
        marks.append("another study of the same patient")
    if stored.modality != query.modality:
        marks.append(f"another modality: {stored.modality}")
    return Neighbour(
        study_instance_uid=stored.study_instance_uid,
        series_instance_uid=stored.series_instance_uid,
        modality=stored.modality,
        score=round(match.score, 4),
        same_patient=same_patient,
        reasons=(*marks, *_reasons(match, corpora, explain)),
    )


def _reasons(
    match: _Match, corpora: Mapping[tuple[str, str], Corpus], explain: Explain
) -> Iterator[str]:
    """One for each kind; what counts most for the score comes first, what is missing last."""

    def part(vector: Vector) -> float:
        return -aspect(vector.kind).weight * match.alike.get(vector.kind, (-1.0, 0))[0]

    for vector in sorted(match.query.vectors, key=part):
        words = aspect(vector.kind).words
        if vector.kind not in match.alike:
            yield f"{words}: not known of this series"
            continue
        likeness, row = match.alike[vector.kind]
        said = f"{words}: {degree(likeness)} ({likeness:.2f})"
        if vector.kind in ASPECTS and likeness < SAME:
            other = corpora[vector.kind, vector.version].matrix[row]
            said += f"; {explain(vector.kind, as_matrix([vector])[0], other)}"
        yield said


def degree(likeness: float) -> str:
    """A likeness in words."""
    return next((words for least, words in DEGREES if likeness >= least), "different")


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
    with catalogue.opened(configuration) as database:
        vectors = Vectors(database)
        queries = _queries(configuration, vectors, study=study, series=series, path=path)
        kinds = {(v.kind, v.version) for query in queries for v in query.vectors}
        corpora = {kind: Corpus(*vectors.matrix(*kind)) for kind in kinds}
    from inference.view_features import explain  # loads scikit-image: only when asked for

    found = neighbours(queries, corpora, count=count, explain=explain)
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

        return tuple(
            Query(
                study_instance_uid=each.study_instance_uid,
                modality=each.modality,
                patient=each.patient,
                vectors=each.vectors,
            )
            for each in described(configuration, path)
        )
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
