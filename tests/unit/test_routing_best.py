"""Of a study the right series is chosen, and every other says why it is not.

Not covered: real headers (tests/integration/test_cli.py).
"""

import pytest

from service import routing
from service.preferences import Kernel, kernel
from service.routing import WAITING
from tests.arrivals import arrival
from tests.routed import BEST_CT, only, routes, winner

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
