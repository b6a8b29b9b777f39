"""Requeue as an administrator uses it after a model was added: what is there is analysed by it.

The catalogue, the store and the worker are real; what the node would have routed is a plain call.
Not covered: results that are sent (tests/acceptance/test_commands.py).
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service import cli
from tests.workplace import Workplace, slices

BEFORE = """
[storage]
directory = "{folder}"
[[models]]
name = "good"
kind = "body_outline"
[[models]]
name = "spare"
kind = "vessels"
[[routes]]
name = "CT"
match = {{ Modality = "CT" }}
models = ["good"]
"""
ADDED = """
[[models]]
name = "later"
kind = "body_outline"
[[routes]]
name = "chest"
match = { Modality = "CT" }
models = ["later"]
"""
STUDY = str(slices()[0].StudyInstanceUID)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A node that has received and routed a study of two series, for nobody."""
    made = Workplace(tmp_path)
    made.receive([*slices("one"), *slices("two")])
    made.close()
    return made


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(BEFORE.format(folder=tmp_path))
    return file


def complete(place: Workplace) -> None:
    now = datetime.now(UTC)
    (study,) = place.catalog.ripe_studies(now)
    assert place.catalog.close_study(study, [], [], now)


def outcomes(toml: Path, capsys: pytest.CaptureFixture[str]) -> list[list[tuple[str, str]]]:
    capsys.readouterr()
    assert cli.main(["status", str(toml), "--json", "--study", STUDY]) == 0
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    return [[(one["model"], one["state"]) for one in each["outcomes"]] for each in study["series"]]


def new(toml: Path, *more: str, study: str = STUDY) -> int:
    return cli.main(["requeue", str(toml), "--study", study, "--new", *more])


def test_a_model_that_was_added_later_analyses_what_is_there(
    toml: Path, place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(place)
    assert new(toml) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("2 analyses are new and waiting; a node that was started before")
    assert said[0].startswith("good: series ")
    assert "route 'CT': matches: Modality is CT" in said[0]
    toml.write_text(toml.read_text() + ADDED)
    assert new(toml) == 0
    assert capsys.readouterr().out.count("later: series ") == 2
    assert outcomes(toml, capsys) == [[("good", "waiting"), ("later", "waiting")]] * 2
    assert new(toml) == 0
    assert capsys.readouterr().out == "nothing new; status says why\n"
    assert outcomes(toml, capsys) == [[("good", "waiting"), ("later", "waiting")]] * 2


def test_of_one_model_alone(
    toml: Path, place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(place)
    toml.write_text(toml.read_text() + ADDED)
    assert new(toml, "--model", "later") == 0
    assert outcomes(toml, capsys) == [[("later", "waiting")]] * 2


def test_a_route_that_wants_the_best_takes_one_and_says_why_not_the_other(
    toml: Path, place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(place)
    toml.write_text(toml.read_text() + ADDED + 'select = "best"\nminimum_instances = 1\n')
    assert new(toml, "--model", "later") == 0
    assert sorted(outcomes(toml, capsys)) == [[("later", "not_analysed")], [("later", "waiting")]]
    before = outcomes(toml, capsys)
    assert new(toml, "--model", "later") == 0
    assert outcomes(toml, capsys) == before


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--failed", "--new"], 2, "--new: is of one study; allowed: with --study UID"),
        (["--study", "1.2.3", "--new"], 1, "1.2.3: no such study; allowed: one that status shows"),
        (["--study", STUDY, "--new"], 1, f"{STUDY}: is still coming in, or changed just now"),
        (["--study", STUDY, "--new", "--model", "spare"], 2, "--model: no route runs 'spare'"),
        (
            ["--study", STUDY, "--model", "good"],
            1,
            f"{STUDY}: no finished or failed analysis of this study by good; for a model that",
        ),
    ],
)
def test_what_cannot_be_asked_is_a_line(
    words: list[str],
    status: int,
    line: str,
    toml: Path,
    place: Workplace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["requeue", str(toml), *words]) == status
    assert capsys.readouterr().err.startswith(f"hounsfield: {line}")
    assert all(not one.outcomes for one in place.series())
