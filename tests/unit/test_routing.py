"""Every series gets a decision and a reason from every route.

Not covered: roles (test_routing_roles.py), the best of a study (test_routing_best.py), that storage
keeps the decisions (tests/contracts), real headers (tests/integration/test_cli.py).
"""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import criteria, routing
from service.attributes import IDENTIFYING
from service.config import Route
from service.preferences import PREFERENCES
from service.routing import NOT_ANALYSED, SeriesDecision
from storage.records import Priority, SeriesArrival, SeriesState
from tests.arrivals import arrival
from tests.routed import BEST_CT, EACH_CT, routes, winner

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
    assert str(both) == "a text like '1' and at least 1 and at most 2.5"


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
