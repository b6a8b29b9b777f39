"""Which series of a study a model of planar images is offered, and why not the others.

Not covered: volumes (tests/unit/test_routing.py), that the node obeys (tests/acceptance).
"""

import pytest

from service.selection import Wanted, select, wanted
from storage.records import SeriesArrival
from tests.arrivals import arrival

CLASS = "1.2.840.10008.5.1.4.1.1."
CR, DX, RAW_DX = f"{CLASS}1", f"{CLASS}1.1", f"{CLASS}1.1.1"
MG, RAW_MG, CAPTURE, CINE = f"{CLASS}1.2", f"{CLASS}1.2.1", f"{CLASS}7", f"{CLASS}3.1"
NO_SLICE = {"SliceThickness": "", "ConvolutionKernel": "", "ImageOrientationPatient": ""}
CHEST = {"modalities": ["CR", "DX"], "dimensions": 2}  # as a sidecar has it


def planar(number: int, sop_class: str, modality: str = "DX", **more: str) -> SeriesArrival:
    """A series of planar images, derived from what the detector gave as most are."""
    stated = {"ImageType": ("DERIVED", "PRIMARY"), **NO_SLICE, "SOPClassUID": sop_class, **more}
    return arrival(number, instances=1, modality=modality, **stated)


def chosen(
    *series: SeriesArrival, requirements: dict[str, object] | None = None, minimum: int = 1
) -> tuple[int | None, dict[int, str]]:
    """The series number that is chosen, and the reason of every other."""
    selection = select(
        series, wants=wanted(requirements or CHEST), prefer=("original",), minimum=minimum
    )
    best = selection.chosen
    return None if best is None else best.series_id, dict(selection.others)


def test_what_a_model_of_planar_images_declares() -> None:
    assert wanted(CHEST) == Wanted(modalities=("CR", "DX"), planar=True)
    demanding = {**CHEST, "axial": True, "min_slices": 40, "max_spacing_mm": 3.0}
    assert wanted(demanding) == wanted(CHEST)
    assert not wanted({"modalities": ("CT",), "dimensions": 3}).planar


def test_a_sidecar_s_modalities_count_as_a_built_in_model_s_do() -> None:
    for listed in (["CT"], ("CT",)):
        assert wanted({"modalities": listed}).modalities == ("CT",)
    assert chosen(planar(1, DX), requirements={"modalities": ["CT"]}) == (
        None,
        {1: "set aside: DX, not CT"},
    )


def test_one_radiograph_is_enough() -> None:
    assert chosen(planar(1, DX)) == (1, {})
    assert chosen(planar(1, CR, "CR")) == (1, {})


def test_a_derived_radiograph_for_presentation_is_preferred_to_the_raw_original() -> None:
    raw = planar(1, RAW_DX, ImageType=("ORIGINAL", "PRIMARY"))
    number, others = chosen(raw, planar(2, DX))
    assert number == 2
    assert others[1].endswith("images for processing, not for presentation here")
    assert chosen(raw) == (1, {})


def test_secondary_captures_are_a_last_resort() -> None:
    number, others = chosen(planar(1, CAPTURE), planar(2, DX))
    assert number == 2
    assert others[1].endswith("secondary captures here")
    photograph = {"modalities": ["OT"], "dimensions": 2}
    assert chosen(planar(1, CAPTURE, "OT"), requirements=photograph) == (1, {})


def test_slices_are_set_aside_whatever_the_modalities() -> None:
    either = {"modalities": ["CT", "MR", "PT", "DX"], "dimensions": 2}
    slices = [
        arrival(number, modality=modality, SOPClassUID=f"{CLASS}{leaf}")
        for number, (modality, leaf) in enumerate(
            [("CT", "2"), ("CT", "2.1"), ("MR", "4"), ("MR", "4.1"), ("PT", "128"), ("PT", "130")]
        )
    ]
    number, others = chosen(*slices, planar(9, DX), requirements=either)
    assert number == 9
    assert set(others.values()) == {"set aside: slices, not planar images"}


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (planar(1, MG, "MG"), "set aside: MG, not CR or DX"),
        (planar(1, CINE, "US"), "set aside: US, not CR or DX"),
        (planar(1, f"{CLASS}88.34", "SR"), "set aside: no images but SR objects"),
        (arrival(1), "set aside: CT, not CR or DX"),
    ],
)
def test_what_cannot_be_used_says_why(series: SeriesArrival, reason: str) -> None:
    assert chosen(series) == (None, {1: reason})


def test_frames_count_as_images() -> None:
    echo = {"modalities": ["US"], "dimensions": 2}
    cine = planar(1, CINE, "US", NumberOfFrames="34")
    assert chosen(cine, requirements=echo, minimum=30) == (1, {})
    assert chosen(cine, requirements=echo, minimum=35)[1] == {
        1: "set aside: 34 images, at least 35 are needed"
    }


def test_volumes_still_refuse_secondary_captures() -> None:
    volumes = {"modalities": ("CT",)}
    found = arrival(1, SOPClassUID=CAPTURE)
    assert chosen(found, requirements=volumes) == (None, {1: "set aside: secondary captures"})
