"""A model that wants several series at once gets them by their roles, or each says why not."""

from dataclasses import replace
from pathlib import Path

import pytest

from service import config, criteria, routing
from service.config import Artifact, ConfigurationError, Route
from service.sidecar import Role, Sidecar
from service.validation import Place
from storage.records import SeriesArrival
from tests.arrivals import arrival
from tests.routed import BEST_CT

ROLES = (
    Role(name="T1", match=(criteria.parse("SeriesDescription", {"pattern": "t1"}),)),
    Role(name="T2", match=(criteria.parse("SeriesDescription", {"pattern": "t2"}),)),
)


def together() -> tuple[Route, ...]:
    """A route on whole studies for a model of two roles."""
    plain = {"input": {"modalities": ["MR"], "series": []}}
    described = Sidecar(
        file=Path("m.toml"), name="m", version="1", licence="", summary="", roles=ROLES, plain=plain
    )
    (route,) = BEST_CT
    (model,) = route.models
    several = replace(
        model,
        requirements={"modalities": ("MR",)},
        artifact=Artifact(path=Path("m"), sidecar=described, trusted=False),
    )
    return (replace(route, match=(), models=(several,)),)


def magnetic(number: int, description: str, instances: int = 30) -> SeriesArrival:
    return arrival(number, modality="MR", SeriesDescription=description, instances=instances)


def test_each_role_gets_its_series_and_the_job_is_the_first_one_s() -> None:
    found = [magnetic(1, "AX T2"), magnetic(2, "AX T1"), magnetic(3, "SAG PD")]
    study = routing.decide_study(found, together())
    (job,) = study.jobs
    assert (job.series_id, dict(job.inputs)) == (2, {"T1": 2, "T2": 1})
    assert job.fingerprint not in {each.fingerprint for each in found}
    assert job.reason == 'route \'chest\': chosen: T1: series 2 "AX T1", T2: series 1 "AX T2"'
    assert {each.series_id: each.reason for each in study.dispositions} == {
        1: 'used as its T2; the result is with series 2 "AX T1"',
        3: "none of T1, T2",
    }
    grown = [magnetic(1, "AX T2", instances=31), *found[1:]]
    changed = replace(grown[0], fingerprint="changed")
    (other,) = routing.decide_study([changed, *found[1:]], together()).jobs
    assert other.fingerprint != job.fingerprint
    assert other.scope == job.scope


def test_a_role_without_a_series_is_told_at_every_series() -> None:
    study = routing.decide_study([magnetic(1, "AX T1"), magnetic(2, "PD")], together())
    assert not study.jobs
    why = "the model wants T1, T2 at once; the study has no T2"
    assert {each.series_id: each.reason for each in study.dispositions} == {
        1: f"its T1, but {why}",
        2: f"none of its series: {why}",
    }


def test_of_several_series_for_a_role_one_is_chosen_and_the_other_told() -> None:
    found = [magnetic(1, "T1", instances=20), magnetic(2, "T1", instances=90), magnetic(3, "T2")]
    study = routing.decide_study(found, together())
    (job,) = study.jobs
    (lost,) = {1, 2} - {job.series_id}
    assert dict(job.inputs) == {"T1": job.series_id, "T2": 3}
    reasons = {each.series_id: each.reason for each in study.dispositions}
    assert reasons[lost].startswith("as T1 series")


def test_a_series_plays_one_role_only() -> None:
    study = routing.decide_study([magnetic(1, "T1 and T2")], together())
    assert not study.jobs


def test_a_model_of_several_roles_runs_on_studies_only(tmp_path: Path) -> None:
    (route,) = together()
    raw = {"name": "r", "models": ["several"], "destinations": []}
    several = replace(route.models[0], name="several")
    with pytest.raises(
        ConfigurationError, match=r"wants several series of a study at once \(T1, T2"
    ):
        config._route(raw, Place(file=tmp_path), models=(several,), destinations=())
