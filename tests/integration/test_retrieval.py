"""`similar`: exact neighbours from stored vectors, in words, the own study left out.

Does not cover what the vectors of a real series say (tests of inference/features.py), nor clinical
quality.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference import phantom
from service import config
from service.description import described
from service.exits import CommandError
from service.retrieval import (
    Corpus,
    Neighbour,
    Query,
    agreement,
    aspect,
    cosine,
    degree,
    neighbours,
    print_similar,
)
from storage.records import Vector
from storage.vectors import StoredVector, as_matrix
from tests.outbox import Outbox, open_outbox

FINITE = st.just(0.0) | st.floats(min_value=0.125, max_value=1e6, width=32)


def vector(kind: str, *values: float) -> Vector:
    """A vector of a kind."""
    data = np.array(values, "<f4")
    return Vector(kind=kind, version="1", dimensions=data.size, data=data.tobytes())


def stored(number: int, one: Vector, *, modality: str = "CT", patient: str = "") -> StoredVector:
    """A vector of the only series of a study."""
    return StoredVector(
        series_id=number,
        study_instance_uid=f"1.2.3.{number}",
        series_instance_uid=f"1.2.3.{number}.1",
        modality=modality,
        patient=patient,
        vector=one,
    )


def corpora(*series: StoredVector) -> dict[tuple[str, str], Corpus]:
    """The corpora of these vectors."""
    made = {}
    for key in {(each.vector.kind, each.vector.version) for each in series}:
        of_kind = tuple(one for one in series if (one.vector.kind, one.vector.version) == key)
        made[key] = Corpus(of_kind, as_matrix([one.vector for one in of_kind]))
    return made


def query(*vectors: Vector, number: int = 0, patient: str = "") -> Query:
    """A CT series to find others like."""
    return Query(
        study_instance_uid=f"1.2.3.{number}", modality="CT", patient=patient, vectors=vectors
    )


def said(kind: str, a: object, b: object) -> str:
    """What inference would say."""
    del a, b
    return f"{kind} differ"


def found(*series: StoredVector, asked: Query, count: int = 10) -> tuple[Neighbour, ...]:
    """The neighbours among these."""
    return neighbours([asked], corpora(*series), count=count, explain=said)


@pytest.mark.parametrize("likeness", [cosine, agreement])
@given(values=arrays(np.float32, (3, 5), elements=FINITE))
def test_a_likeness_is_symmetric_and_one_for_the_same(likeness, values) -> None:
    every = np.array([likeness(row, values) for row in values])
    assert np.all((every >= 0) & (every <= 1))
    assert np.allclose(every, every.T)
    assert np.allclose(np.diag(every), 1)


def test_the_nearest_comes_first_and_the_own_study_not_at_all() -> None:
    own = vector("intensity", 1, 0, 0)
    result = found(
        stored(0, own),
        stored(1, vector("intensity", 0, 0, 1)),
        stored(2, own),
        stored(3, vector("intensity", 0.5, 0.5, 0)),
        asked=query(own),
    )
    assert [each.study_instance_uid for each in result] == ["1.2.3.2", "1.2.3.3", "1.2.3.1"]
    assert result[0].score == 1.0
    assert result[0].reasons == ("grey values: the same (1.00)",)
    assert result[1].reasons == ("grey values: partly similar (0.71); intensity differ",)
    assert result[2].score == 0.0


def test_other_studies_of_the_patient_are_marked_in_words() -> None:
    one = vector("texture", 1, 2)
    same, stranger, unnamed = found(
        stored(1, one, patient="p"),
        stored(2, one, patient="q"),
        stored(3, one),
        asked=query(one, patient="p"),
    )
    assert same.same_patient
    assert same.reasons[0] == "another study of the same patient"
    assert not stranger.same_patient
    assert not unnamed.same_patient
    assert not found(stored(1, one), asked=query(one))[0].same_patient  # nobody has an ID


def test_another_modality_counts_less_and_is_said() -> None:
    one = vector("intensity", 1, 2)
    near, far = found(
        stored(1, one, modality="MR"), stored(2, vector("intensity", 1, 1)), asked=query(one)
    )
    assert (near.modality, far.modality) == ("CT", "MR")
    assert far.score == 0.5
    assert far.reasons[0] == "another modality: MR"


def test_what_a_candidate_lacks_counts_as_unlike() -> None:
    histogram, shape = vector("intensity", 1, 2), vector("shape", 3)
    whole, part = found(
        stored(1, histogram),
        stored(2, histogram),
        stored(2, shape),
        asked=query(histogram, shape),
    )
    assert (whole.study_instance_uid, whole.score) == ("1.2.3.2", 1.0)
    assert part.score == 0.5
    assert part.reasons[-1] == "shape and measurements: not known of this series"


def test_versions_are_never_compared_with_each_other() -> None:
    old = Vector(kind="intensity", version="0", dimensions=1, data=b"\0\0\0\0")
    asked = query(vector("intensity", 1))
    kept = {**corpora(stored(1, old)), ("intensity", "1"): Corpus((), as_matrix([]))}
    assert neighbours([asked], kept, count=5, explain=said) == ()


def test_a_vector_that_is_not_finite_is_like_no_other() -> None:
    broken = stored(1, vector("texture", float("nan")))
    assert found(broken, asked=query(vector("texture", 1)))[0].score == 0.0


def test_at_most_as_many_as_asked_for() -> None:
    one = vector("edges", 1)
    assert len(found(*(stored(n, one) for n in range(1, 9)), asked=query(one), count=3)) == 3


def test_unknown_kinds_have_words() -> None:
    assert aspect("deep_embedding").words == "deep embedding"
    assert degree(0.6) == "partly similar"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[Outbox, config.Configuration]]:
    """A node with a configuration."""
    model = '[[models]]\nname = "body"\nkind = "body_outline"\n'
    (tmp_path / "node.toml").write_text(f'[storage]\ndirectory = "{tmp_path / "node"}"\n{model}')
    outbox = open_outbox(tmp_path / "node")
    yield outbox, config.load(tmp_path / "node.toml")
    outbox.database.close()


def test_the_command_prints_what_the_interface_says(
    node: tuple[Outbox, config.Configuration], capsys: pytest.CaptureFixture[str]
) -> None:
    outbox, configuration = node
    for number, grey in ((1, 1.0), (2, 1.0), (3, 5.0)):
        vectors = [vector("intensity", *[1, grey] * 80), vector("header", 1, 2)]
        outbox.finish(
            number, [], destinations=[], vectors=vectors, patient="A" if number < 3 else "B"
        )
    asked = {"series": None, "path": None, "count": 5}
    print_similar(configuration, study="1.2.3.1", as_json=True, **asked)
    first, second = json.loads(capsys.readouterr().out)
    assert first.keys() >= {
        "study_instance_uid", "series_instance_uid", "modality", "score", "reasons",
    }  # fmt: skip
    assert first["study_instance_uid"] == "1.2.3.2"
    assert first["series_instance_uid"] == "1.2.3.2.1"
    assert first["score"] == 1.0
    assert "another study of the same patient" in first["reasons"]
    assert second["score"] < 1.0
    assert "another study of the same patient" not in second["reasons"]
    print_similar(configuration, study="1.2.3.1", as_json=False, **asked)
    assert "grey values: the same (1.00)" in capsys.readouterr().out


def test_files_that_never_came_are_described_as_those_that_did(
    node: tuple[Outbox, config.Configuration], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox, configuration = node
    files = tmp_path / "files"
    files.mkdir()
    (files / "notes.txt").write_text("not DICOM")
    series = phantom.datasets(phantom.thorax(shape=(24, 64, 64), spacing=(10.0, 6.0, 6.0)))
    for number, dataset in enumerate(series):
        dataset.save_as(files / f"{number}.dcm", enforce_file_format=True)
    (made,) = described(configuration, files)
    outbox.finish(1, [], destinations=[], vectors=made.vectors, patient="PHANTOM")
    asked = {"study": None, "series": None, "count": 5, "as_json": True}
    print_similar(configuration, path=files, **asked)
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["study_instance_uid"], found["score"]) == ("1.2.3.1", 1.0)
    assert found["reasons"][0] == "another study of the same patient"
    with pytest.raises(CommandError, match="no DICOM file"):
        print_similar(configuration, path=files / "notes.txt", **asked)


def test_a_node_that_never_ran_is_named(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("")
    with pytest.raises(CommandError, match="no catalogue yet"):
        print_similar(
            config.load(tmp_path / "node.toml"),
            study="1.2",
            series=None,
            path=None,
            count=5,
            as_json=True,
        )
    assert not (tmp_path / "data" / "catalogue.sqlite").exists()


def test_a_study_without_vectors_is_named(node: tuple[Outbox, config.Configuration]) -> None:
    with pytest.raises(CommandError, match=r"--series 1\.2: no feature vectors"):
        print_similar(node[1], study=None, series="1.2", path=None, count=5, as_json=True)
