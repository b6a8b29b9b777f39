"""Every series gets a decision and a reason from every route; the right series is chosen.

Not covered: that storage keeps the decisions (tests/contracts), real headers
(tests/integration/test_cli.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import config, criteria, routing
from service.attributes import IDENTIFYING
from service.config import Artifact, ConfigurationError, Route, parse
from service.preferences import PREFERENCES, Kernel, kernel
from service.routing import NOT_ANALYSED, WAITING, SeriesDecision
from service.sidecar import Role, Sidecar
from service.validation import Place
from storage.records import Priority, SeriesArrival, SeriesState
from tests.arrivals import arrival

TWO_MODELS = """
[[models]]
name = "body"
kind = "body_outline"
[[models]]
name = "lung"
kind = "lung_ct"
[[destinations]]
name = "pacs"
kind = "folder"
path = "pacs"
[[destinations]]
name = "research"
kind = "folder"
path = "research"
"""


def routes(toml: str) -> tuple[Route, ...]:
    """The routes of a configuration with the models body and lung."""
    return parse(TWO_MODELS + toml, file=Path("/x/node.toml")).routes


EACH_CT = routes(
    '[[routes]]\nname="CT"\nmatch={Modality="CT"}\nmodels=["body"]\ndestinations=["pacs"]'
)
BEST_CT = routes(
    '[[routes]]\nname="chest"\nmatch={Modality="CT"}\nmodels=["lung"]\nselect="best"\n'
    'destinations=["pacs"]'
)


def only(found: Sequence[SeriesArrival], way: Sequence[Route]) -> tuple[str, dict[int, str]]:
    """The reason of the one job of a study, and for each other series (by number) why not."""
    study = routing.decide_study(found, way)
    (job,) = study.jobs
    return job.reason, {each.series_id: each.reason for each in study.dispositions}


def winner(*found: SeriesArrival, prefer: Sequence[str] = ()) -> int:
    """The number of the series that is chosen."""
    way = [replace(BEST_CT[0], prefer=tuple(prefer))] if prefer else BEST_CT
    (job,) = routing.decide_study(found, way).jobs
    return job.series_id


# A model that wants several series at once

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


# What a route asks of an element


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ("CT", ("CT",), True),
        ("ct ", ("CT",), True),
        ("CT", ("PT",), False),
        ("CT", (), False),
        (["CT", "PT"], ("PT",), True),
        ("AXIAL", ("ORIGINAL", "PRIMARY", "AXIAL"), True),
        (1, ("1.0",), True),
        (1.5, ("1.50",), True),
        (512, ("511",), False),
        ({"pattern": "lung"}, ("CT Lung 1.0",), True),
        ({"pattern": "^lung"}, ("CT Lung 1.0",), False),
        ({"pattern": "^lung$|^thorax"}, ("Thorax 5.0",), True),
        ({"max": 2.5}, ("2.5",), True),
        ({"max": 2.5}, ("2.6",), False),
        ({"min": 1, "max": 2.5}, ("0.5",), False),
        ({"min": 1}, ("thin",), False),
        ({"min": 1, "max": 2}, ("0.5", "1.5"), True),
        ({"pattern": "^1", "min": 5}, ("1", "6"), False),
    ],
)
def test_a_criterion(wanted: object, found: tuple[str, ...], expected: bool) -> None:
    assert criteria.parse("SliceThickness", wanted).matches(found) is expected


def test_a_criterion_says_what_it_wants() -> None:
    assert str(criteria.parse("Modality", ["CT", "PT"])) == "CT or PT"
    both = criteria.parse("SliceThickness", {"pattern": "1", "min": 1, "max": 2.5})
    assert str(both) == "like '1' and at least 1 and at most 2.5"


# Each


def test_a_series_that_matches_gets_a_job() -> None:
    decision = routing.decide_series(arrival(1), EACH_CT)
    (job,) = decision.jobs
    assert (job.model, job.destinations, job.routes) == ("body", ("pacs",), ("CT",))
    assert job.fingerprint == "fingerprint of 1"
    assert job.scope == "series 1.2.3 1.2.3.1"
    assert job.reason == "route 'CT': matches: Modality is CT"
    assert decision.dispositions == ()


def test_a_series_that_no_route_wants_says_why() -> None:
    decision = routing.decide_series(arrival(1, modality="MR"), EACH_CT)
    assert decision.jobs == ()
    (disposition,) = decision.dispositions
    assert disposition.state == NOT_ANALYSED
    assert (disposition.route, disposition.model) == (None, None)
    assert disposition.reason == (
        "no route wants it: route 'CT': Modality is MR, the route wants CT"
    )


def test_without_routes_that_is_the_reason() -> None:
    (disposition,) = routing.decide_series(arrival(1), ()).dispositions
    assert disposition.reason == "no route is configured"


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (arrival(1, own_result=True), "one of our own results, come back: never an input"),
        (arrival(1, state=SeriesState.QUARANTINED), "quarantined: it cannot be read"),
        (
            arrival(1, instances=0),
            "each of its instances contradicts one received before under the same UID",
        ),
        (
            replace(arrival(1), forgotten=30),
            (
                "the bytes of 30 of its 100 instances were deleted by retention; "
                "send the whole series again"
            ),
        ),
    ],
)
def test_what_is_never_an_input(series: SeriesArrival, reason: str) -> None:
    decision = routing.decide_series(series, EACH_CT + BEST_CT)
    assert decision.jobs == ()
    assert [each.reason for each in decision.dispositions] == [reason]
    assert routing.decide_study([series], BEST_CT).jobs == ()


def test_an_absent_element_and_too_few_images_are_named() -> None:
    (way,) = routes(
        '[[routes]]\nname="r"\nmatch={BodyPartExamined="CHEST"}\nmodels=["body"]\n'
        "minimum_instances=20"
    )
    (said,) = routing.decide_series(arrival(1), [way]).decisions
    assert said.reason == "BodyPartExamined is absent, the route wants CHEST"
    chest = arrival(1, instances=1, BodyPartExamined="CHEST")
    (said,) = routing.decide_series(chest, [way]).decisions
    assert said.reason == "1 image, the route wants at least 20"
    assert routing.decide_series(replace(chest, instances=20), [way]).jobs


def test_frames_are_images() -> None:
    enhanced = arrival(1, instances=1, NumberOfFrames="300")
    assert winner(arrival(2, instances=50, SliceThickness="5"), enhanced) == 1


@pytest.mark.parametrize("keyword", sorted(IDENTIFYING))
def test_a_reason_never_tells_what_identifies_a_patient(keyword: str) -> None:
    way = routes(f'[[routes]]\nname="r"\nmatch={{{keyword}="secret wish"}}\nmodels=["body"]')
    attributes = {keyword: "secret value"}
    (said,) = routing.decide_series(arrival(1, **attributes), way).decisions
    assert said.reason == f"{keyword} is not what the route wants"
    matching = {keyword: "secret wish"}
    (said,) = routing.decide_series(arrival(1, **matching), way).decisions
    assert said.matches
    assert "secret" not in said.reason


def test_routes_that_want_the_same_make_one_job() -> None:
    ways = routes(
        '[[routes]]\nname="a"\nmodels=["body"]\ndestinations=["pacs"]\n'
        '[[routes]]\nname="b"\nmodels=["lung","body"]\ndestinations=["research","pacs"]\n'
        'priority="stat"'
    )
    body, lung = routing.decide_series(arrival(1), ways).jobs
    assert (body.model, lung.model) == ("body", "lung")
    assert body.routes == ("a", "b")
    assert body.destinations == ("pacs", "research")
    assert body.priority is Priority.STAT


# Best

SCOUT = arrival(1, instances=2, ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER"))
THIN_SOFT = arrival(2, SeriesDescription="Thorax 1.0 B31f")
THIN_SHARP = arrival(3, ConvolutionKernel="B70f")
THICK_SOFT = arrival(4, SliceThickness="5.0", instances=60)
THICK_SHARP = arrival(5, SliceThickness="5.0", ConvolutionKernel="B70f", instances=60)
REFORMAT = arrival(
    6,
    ImageType=("DERIVED", "SECONDARY", "MPR"),
    ImageOrientationPatient=("1", "0", "0", "0", "0", "-1"),
)
AXIAL_MIP = arrival(7, ImageType=("DERIVED", "PRIMARY", "MIP"))
DOSE_REPORT = arrival(8, modality="SR", instances=1, ImageType="")
DOSE_PAGE = arrival(9, instances=30, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
SCREEN = arrival(10, ImageType=("DERIVED", "SECONDARY", "SCREEN SAVE"))
RENDERING = arrival(11, PhotometricInterpretation="RGB")
CHEST = [
    SCOUT,
    THIN_SOFT,
    THIN_SHARP,
    THICK_SOFT,
    THICK_SHARP,
    REFORMAT,
    AXIAL_MIP,
    DOSE_REPORT,
    DOSE_PAGE,
    SCREEN,
    RENDERING,
]


def test_a_chest_ct_gives_one_job_from_the_right_series() -> None:
    reason, others = only(CHEST, BEST_CT)
    assert reason == (
        "route 'chest': chosen: soft kernel B31f against sharp kernel B70f in series 3; "
        "1.0 mm slices against 5.0 mm slices in series 4 and series 5; derived or reformatted "
        "images in series 7; slices that are not axial in series 6; 4 set aside"
    )
    chosen = 'series 2 "Thorax 1.0 B31f" was chosen: '
    assert others == {
        1: "set aside: a localizer",
        3: f"{chosen}soft kernel B31f against sharp kernel B70f here",
        4: f"{chosen}1.0 mm slices against 5.0 mm slices here",
        5: f"{chosen}1.0 mm slices against 5.0 mm slices here",
        6: f"{chosen}slices that are not axial here",
        7: f"{chosen}derived or reformatted images here",
        9: "set aside: secondary captures",
        10: "set aside: pictures of a screen",
        11: "set aside: pictures of a screen",
    }


def test_until_the_study_is_complete_its_series_wait() -> None:
    decision = routing.decide_series(THIN_SOFT, BEST_CT)
    assert decision.jobs == ()
    (waiting,) = decision.dispositions
    assert (waiting.state, waiting.route, waiting.model) == (WAITING, "chest", "lung")
    assert waiting.reason.endswith("the best series is chosen when the study is complete")


def test_a_series_that_the_model_cannot_take_loses() -> None:
    far = arrival(1, SliceThickness="0.5", SpacingBetweenSlices="12")
    assert winner(far, THICK_SHARP) == 5
    reason, others = only([far, THICK_SHARP], BEST_CT)
    assert "slices 12 mm apart (the model takes at most 10 mm)" in others[1]
    assert "slices 12 mm apart" in reason


def test_what_has_a_fault_is_used_when_there_is_nothing_else() -> None:
    reason, others = only([SCOUT, AXIAL_MIP], BEST_CT)
    assert reason == "route 'chest': chosen: the only series that can be used; 1 set aside"
    assert others == {1: "set aside: a localizer"}


def test_when_nothing_can_be_used_every_series_says_why() -> None:
    few = arrival(2, instances=5)
    study = routing.decide_study([SCOUT, few], BEST_CT)
    assert study.jobs == ()
    assert {each.series_id: each.reason for each in study.dispositions} == {
        1: "set aside: a localizer",
        2: "set aside: 5 images, at least 20 are needed",
    }


@pytest.mark.parametrize(
    ("prefer", "chosen"),
    [
        (["thick_slices", "soft_kernel"], 4),
        (["sharp_kernel", "thin_slices"], 3),
        (["sharp_kernel", "thick_slices"], 5),
        (["most_instances", "sharp_kernel"], 3),
        (["soft_kernel"], 2),
    ],
)
def test_the_stated_preferences_decide_in_their_order(prefer: list[str], chosen: int) -> None:
    assert winner(*CHEST, prefer=prefer) == chosen


def test_contrast_can_be_preferred_either_way() -> None:
    native, enhanced = arrival(1), arrival(2, ContrastBolusAgent="IOMERON")
    assert winner(native, enhanced, prefer=["contrast"]) == 2
    assert winner(native, enhanced, prefer=["no_contrast"]) == 1


def test_equals_are_decided_by_the_series_number() -> None:
    ten, nine = arrival(10), arrival(9)
    assert winner(ten, nine) == 9
    assert "equal by every preference" in only([ten, nine], BEST_CT)[0]
    unnumbered = [arrival(1, SeriesNumber=""), arrival(2, SeriesNumber="")]
    assert winner(*unnumbered) == 1
    assert "the lower series UID" in only(unnumbered, BEST_CT)[0]


def test_what_is_not_stated_never_wins_by_that() -> None:
    silent = arrival(1, SliceThickness="", ConvolutionKernel="", ImageType="")
    assert winner(silent, THICK_SHARP) == 5


def test_each_model_of_a_route_gets_its_own_best_series() -> None:
    way = routes('[[routes]]\nname="r"\nmodels=["body","lung"]\nselect="best"')
    short = arrival(1, instances=10, SliceThickness="1.0")
    long = arrival(2, instances=60, SliceThickness="5.0")
    study = routing.decide_study([short, long], way)
    assert {job.model: job.series_id for job in study.jobs} == {"body": 1, "lung": 2}
    (said,) = study.decisions[1]
    assert (said.matches, said.models) == (True, ("body",))
    assert said.reason == (
        "body: chosen: 1.0 mm slices against 5.0 mm slices in series 2; "
        "lung: set aside: 10 images, at least 20 are needed"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("B31f", Kernel.SOFT),
        ("B70f", Kernel.SHARP),
        ("I46f", Kernel.MEDIUM),
        ("Br40d", Kernel.SOFT),
        ("Bl57d", Kernel.SHARP),
        ("Hr59h", Kernel.SHARP),
        ("STANDARD", Kernel.SOFT),
        ("SOFT", Kernel.SOFT),
        ("LUNG", Kernel.SHARP),
        ("BONEPLUS", Kernel.SHARP),
        ("DETAIL", Kernel.MEDIUM),
        ("FC08", Kernel.SOFT),
        ("FC18-H", Kernel.SOFT),
        ("FC30", Kernel.SHARP),
        ("FC51", Kernel.SHARP),
        ("FC25", Kernel.MEDIUM),
        ("B", Kernel.SOFT),
        ("YB", Kernel.SHARP),
        ("something new", Kernel.MEDIUM),
    ],
)
def test_kernels_of_the_common_manufacturers(name: str, expected: Kernel) -> None:
    assert kernel(name) is expected


# Whatever comes

VALUES = {
    "ImageType": [
        "",
        ("ORIGINAL", "PRIMARY", "AXIAL"),
        ("ORIGINAL", "PRIMARY", "LOCALIZER"),
        ("DERIVED", "SECONDARY", "MPR"),
    ],
    "SliceThickness": ["", "1.0", "5", "thick"],
    "ConvolutionKernel": ["", "B31f", "B70f", "LUNG"],
    "ContrastBolusAgent": ["", "IOMERON"],
    "NumberOfFrames": ["", "1", "40"],
    "SeriesNumber": ["", "1", "2"],
    "ImageOrientationPatient": [
        "",
        ("1", "0", "0", "0", "1", "0"),
        ("0", "1", "0", "0", "0", "-1"),
    ],
}


@st.composite
def studies(draw: st.DrawFn) -> list[SeriesArrival]:
    """Up to six series of anything."""
    count = draw(st.integers(1, 6))
    return [
        arrival(
            number,
            instances=draw(st.integers(1, 60)),
            modality=draw(st.sampled_from(["CT", "MR", "SR", "SEG"])),
            state=draw(st.sampled_from([SeriesState.COMPLETE, SeriesState.QUARANTINED])),
            own_result=draw(st.booleans()),
            **{keyword: draw(st.sampled_from(of)) for keyword, of in VALUES.items()},
        )
        for number in range(1, count + 1)
    ]


WAYS = st.lists(
    st.sampled_from(
        EACH_CT
        + BEST_CT
        + routes(
            '[[routes]]\nname="both"\nmodels=["body","lung"]\nselect="best"\nprefer=["contrast"]\n'
            '[[routes]]\nname="thin"\nmatch={SliceThickness={max=2}}\nmodels=["lung"]\n'
            "minimum_instances=30"
        )
    ),
    unique_by=lambda route: route.name,
)


def _ends(series: SeriesDecision) -> bool:
    stated = [*series.jobs, *series.dispositions]
    return bool(stated) and all(each.reason for each in stated)


@given(found=studies(), ways=WAYS)
def test_every_series_ends_in_a_job_or_a_reason(
    found: list[SeriesArrival], ways: list[Route]
) -> None:
    for series in routing.decide(found, ways):
        assert len(series.decisions) == len(ways)
        assert all(said.reason for said in series.decisions)
        assert all(said.matches == bool(said.models) for said in series.decisions)
        assert _ends(series)
    for alone in found:
        assert _ends(routing.decide_series(alone, ways))


@given(found=studies(), ways=WAYS, shuffled=st.randoms(use_true_random=False))
def test_the_order_of_series_does_not_matter(
    found: list[SeriesArrival], ways: list[Route], shuffled: st.DrawFn
) -> None:
    other = list(found)
    shuffled.shuffle(other)  # type: ignore[attr-defined]
    expected = {each.arrival.series_id: each for each in routing.decide(found, ways)}
    again = {each.arrival.series_id: each for each in routing.decide(other, ways)}
    assert again == expected


@given(found=studies(), ways=WAYS)
def test_a_route_that_wants_the_best_makes_at_most_one_job_a_model(
    found: list[SeriesArrival], ways: list[Route]
) -> None:
    study = routing.decide_study(found, ways)
    scopes = [(job.scope, job.model) for job in study.jobs]
    assert len(scopes) == len(set(scopes))
    jobs = {(job.series_id, job.model, *job.routes) for job in study.jobs}
    lost = {(each.series_id, each.model, each.route) for each in study.dispositions}
    assert jobs.isdisjoint(lost)


@given(found=studies(), name=st.sampled_from(sorted(PREFERENCES)))
def test_every_preference_has_a_measure_and_words_for_everything(
    found: list[SeriesArrival], name: str
) -> None:
    for each in found:
        assert PREFERENCES[name].measure(each) == PREFERENCES[name].measure(each)
        assert PREFERENCES[name].words(each)


def test_a_series_whose_bytes_are_gone_altogether_keeps_its_job() -> None:
    gone = replace(arrival(1), forgotten=100)
    assert (
        routing.decide_series(gone, EACH_CT).jobs == routing.decide_series(arrival(1), EACH_CT).jobs
    )
