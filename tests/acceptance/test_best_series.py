"""A study as scanners make it, with select = "best": one result, from the right series, and why.

Thin and thick, soft and sharp, a scout, a reformat, a dose report, each under the name a scanner
gives it. Not covered: real protocols of many vendors, preferences other than the default.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import XRayRadiationDoseSRStorage

from inference import phantom
from inference.phantom import Scan
from tests.acceptance import delivered, studies
from tests.node import Node, dicom_destination, lung_route, running
from tests.peers import StoragePeer, dcmtk_storescp, storescu

pytestmark = pytest.mark.dcmtk

SOFT, SHARP = "B31f", "B70f"
THIN, THICK = 1.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node that was sent one study, its PACS, and the Series Instance UID of each series."""

    node: Node
    pacs: StoragePeer
    images: Path
    uids: dict[str, str]
    series: dict[str, dict[str, Any]]

    def outcome(self, name: str) -> dict[str, Any]:
        """The only outcome of a series, by its description."""
        (outcome,) = self.series[self.uids[name]]["outcomes"]
        found: dict[str, Any] = outcome
        return found


def study() -> dict[str, list[Dataset]]:
    """Series by their description, in the order of their numbers; `Thorax 1.0 B31f` is the one."""
    body = phantom.thorax(studies.SMALL, studies.SMALL_SPACING, seed=51)
    reformatted = ("DERIVED", "SECONDARY", "REFORMATTED")
    made = [
        _series(body.keeping([12]), "Topogram", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
        _series(body.keeping(range(0, 24, 2)), "Thorax 5.0 B31f", THICK, SOFT),
        _series(body, "Thorax 1.0 B70f", THIN, SHARP),
        _series(body, "Thorax 1.0 B31f", THIN, SOFT),
        _series(_coronal(), "Coronal MPR", THIN, SOFT, image_type=reformatted),
    ]
    found = {series[0].SeriesDescription: series for series in [*made, [_dose_report()]]}
    for number, series in enumerate(found.values(), start=1):
        for dataset in series:
            dataset.SeriesNumber = number
    return found


def _series(
    body: phantom.Phantom,
    description: str,
    thickness_mm: float = THICK,
    kernel: str = SOFT,
    image_type: tuple[str, ...] = phantom.PLAIN.image_type,
) -> list[Dataset]:
    scan = Scan(
        series=description,
        description=description,
        thickness_mm=thickness_mm,
        kernel=kernel,
        image_type=image_type,
    )
    return phantom.datasets(body, scan)


def _coronal() -> phantom.Phantom:
    grid = phantom.regular(
        studies.SMALL, studies.SMALL_SPACING, right=(1.0, 0.0, 0.0), down=(0.0, 0.0, -1.0)
    )
    return phantom.markers(grid, seed=51)


def _dose_report() -> Dataset:
    """The header of one: what is inside is not looked at."""
    body = phantom.thorax(studies.SMALL, studies.SMALL_SPACING, seed=51).keeping([0])
    (report,) = phantom.datasets(body, Scan(series="dose", description="Dose Report"))
    for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient"):
        delattr(report, keyword)
    report.Modality = "SR"
    report.SOPClassUID = XRayRadiationDoseSRStorage
    report.file_meta.MediaStorageSOPClassUID = XRayRadiationDoseSRStorage
    return report


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    series = study()
    images = folder / "images"
    files = studies.written([one for each in series.values() for one in each], images)
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        node = Node(
            folder,
            extra=dicom_destination(pacs.port, ae_title=pacs.ae_title)
            + lung_route(["pacs"], model="body_outline", more='select = "best"'),
        )
        stack.enter_context(running(node))
        assert storescu(node.port, files, "+C", "-R").code == 0
        settled = node.settled(seconds=90)
        yield Site(
            node=node,
            pacs=pacs,
            images=images,
            uids={name: str(each[0].SeriesInstanceUID) for name, each in series.items()},
            series={each["series_instance_uid"]: each for each in settled},
        )


def test_there_is_one_result_and_it_is_of_the_thin_soft_series(site: Site) -> None:
    chosen = site.outcome("Thorax 1.0 B31f")
    assert (chosen["state"], chosen["verdict"]) == ("done", "measured")
    seg, report = delivered.objects(site.pacs.received())
    assert (seg.Modality, report.Modality) == ("SEG", "SR")
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == site.uids["Thorax 1.0 B31f"]


def test_status_says_why_that_one(site: Site) -> None:
    reason = site.outcome("Thorax 1.0 B31f")["reason"]
    for words in (
        "route 'chest CT': chosen: ",
        "1.0 mm slices against 5.0 mm slices in series 2",
        "soft kernel B31f against sharp kernel B70f in series 3",
        "slices that are not axial in series 5",
        "1 set aside",
    ):
        assert words in reason


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Topogram", "set aside: a localizer"),
        ("Thorax 5.0 B31f", '"Thorax 1.0 B31f" was chosen: 1.0 mm slices against 5.0 mm slices'),
        ("Thorax 1.0 B70f", "was chosen: soft kernel B31f against sharp kernel B70f here"),
        ("Coronal MPR", "was chosen: slices that are not axial here"),
        ("Dose Report", "no route wants it: route 'chest CT': Modality is SR"),
    ],
)
def test_status_says_why_not_the_others(site: Site, name: str, words: str) -> None:
    outcome = site.outcome(name)
    assert outcome["state"] == "not_analysed"
    assert words in outcome["reason"]
    assert (outcome["results"], outcome["deliveries"]) == ([], [])


def test_explain_says_beforehand_what_the_node_did(site: Site) -> None:
    said = json.loads(site.node.command("explain", str(site.images), "--json").stdout)
    assert {each["series_instance_uid"] for each in said} == set(site.series)
    for each in said:
        (decision,) = each["decisions"]
        (outcome,) = site.series[each["series_instance_uid"]]["outcomes"]
        assert decision["matches"] == (outcome["state"] == "done")
        assert decision["reason"] in outcome["reason"]
        assert each["instances"] == site.series[each["series_instance_uid"]]["instances"]
