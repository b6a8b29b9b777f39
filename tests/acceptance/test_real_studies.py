"""A real chest and a real abdomen, from DCMTK's senders through the node to storescp and Orthanc.

Two fresh nodes, one fed by storescu and one by dcmsend, one that reports what it did not analyse
and one that does not. Not covered: whether the borders are right (the model's card and its tests),
viewers, other vendors' archives.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset

from tests import validators
from tests.acceptance import delivered, studies
from tests.integration.test_lung_ct_real import VOXELS
from tests.node import Node, dicom_destination, lung_route, running
from tests.peers import (
    Orthanc,
    Sent,
    StoragePeer,
    dcmsend,
    dcmtk_storescp,
    orthanc,
    storescu,
)

pytestmark = [pytest.mark.shared_data, pytest.mark.dcmtk, pytest.mark.orthanc]

SILENT = "[results]\nreport_not_analysed = false\n"
PATIENT_AND_STUDY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
)
SECONDS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """A node that has done its work, its PACS, and how the senders ended."""

    node: Node
    pacs: StoragePeer
    sent: tuple[Sent, ...]
    series: dict[str, dict[str, Any]]

    def outcome(self, images: list[Path]) -> dict[str, Any]:
        """The only outcome of a series."""
        (outcome,) = self.series[source(images).SeriesInstanceUID]["outcomes"]
        found: dict[str, Any] = outcome
        return found

    def results(self, images: list[Path]) -> list[Dataset]:
        """What the PACS has of the study of these images."""
        study = source(images).StudyInstanceUID
        received = delivered.objects(self.pacs.received())
        return [one for one in received if one.StudyInstanceUID == study]


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """Both hospitals, the archive of the first, and the studies."""

    first: Hospital
    second: Hospital
    archive: Orthanc
    chest: list[Path]
    abdomen: list[Path]


def source(images: list[Path]) -> Dataset:
    return pydicom.dcmread(images[0], stop_before_pixels=True)


@pytest.fixture(scope="module")
def town(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Both studies sent to both nodes; both nodes have come to an end with them."""
    folder = tmp_path_factory.mktemp("town")
    chest = studies.unpacked(data / "ct-chest-ge.tar.xz", folder / "chest")
    abdomen = studies.unpacked(data / "ct-abdomen-pelvis-ge-lowdose.tar.xz", folder / "abdomen")
    with ExitStack() as stack:
        archive = stack.enter_context(orthanc(folder / "orthanc"))
        first = _hospital(stack, folder / "first", "", archive)
        second = _hospital(stack, folder / "second", SILENT, None)
        sent = {
            one[0].port: tuple(sender(one[0].port, images) for images in (chest, abdomen))
            for one, sender in ((first, _storescu), (second, dcmsend))
        }
        ended = [
            Hospital(node=node, pacs=pacs, sent=sent[node.port], series=_settled(node))
            for node, pacs in (first, second)
        ]
        yield Town(first=ended[0], second=ended[1], archive=archive, chest=chest, abdomen=abdomen)


def _hospital(
    stack: ExitStack, folder: Path, extra: str, archive: Orthanc | None
) -> tuple[Node, StoragePeer]:
    pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
    destinations = {"pacs": dicom_destination(pacs.port, ae_title=pacs.ae_title)}
    if archive is not None:
        destinations["archive"] = dicom_destination(
            archive.port, name="archive", ae_title=archive.ae_title
        )
    node = Node(
        folder, extra=extra + "".join(destinations.values()) + lung_route(list(destinations))
    )
    stack.enter_context(running(node))
    return node, pacs


def _storescu(port: int, images: list[Path]) -> Sent:
    return storescu(port, images, "+C")


def _settled(node: Node) -> dict[str, dict[str, Any]]:
    return {one["series_instance_uid"]: one for one in node.settled(seconds=SECONDS)}


def test_every_image_was_answered_success(town: Town) -> None:
    for hospital in (town.first, town.second):
        assert [sent.code for sent in hospital.sent] == [0, 0]
        counts = [one["instances"] for one in hospital.series.values()]
        assert sorted(counts) == sorted([len(town.chest), len(town.abdomen)])
    assert town.first.sent[0].statuses() == ["Success"] * len(town.chest)


def test_the_chest_is_measured_and_its_results_are_at_both_destinations(town: Town) -> None:
    outcome = town.first.outcome(town.chest)
    assert (outcome["state"], outcome["verdict"], outcome["reason"]) == (
        "done",
        "measured",
        "route 'chest CT': matches: Modality is CT",
    )
    sent = {(d["destination"], d["kind"]): d["state"] for d in outcome["deliveries"]}
    assert set(sent) == {
        (destination, kind)
        for destination in ("pacs", "archive")
        for kind in ("segmentation", "measurement_report")
    }
    assert set(sent.values()) <= {"sent", "committed"}


def test_one_segmentation_and_one_report_and_equal_at_both(town: Town) -> None:
    received = delivered.data_sets(town.first.pacs.received())
    archived = town.archive.instances()
    assert {uid: delivered.data_set(raw)[1] for uid, raw in archived.items()} == received
    assert [one.Modality for one in town.first.results(town.chest)] == ["SEG", "SR"]
    assert len(received) == 3  # and the report of the abdomen


def test_the_voxels_are_those_of_the_model_and_the_volumes_are_theirs(town: Town) -> None:
    seg, report = town.first.results(town.chest)
    counted = delivered.voxels(seg)
    assert counted == VOXELS
    expected = {label: count * delivered.voxel_millilitres(seg) for label, count in VOXELS.items()}
    stated = delivered.volumes(report)
    assert {label: stated[label] for label in expected} == pytest.approx(expected, rel=1e-4)


def test_results_belong_to_the_patient_and_the_study_of_their_source(town: Town) -> None:
    for images in (town.chest, town.abdomen):
        image = source(images)
        for one in town.first.results(images):
            for keyword in PATIENT_AND_STUDY:
                assert one.get(keyword) == image.get(keyword), keyword
            assert one.SeriesInstanceUID != image.SeriesInstanceUID


def test_the_segmentation_lies_on_the_images_that_were_sent(town: Town) -> None:
    seg, _ = town.first.results(town.chest)
    image = source(town.chest)
    assert seg.FrameOfReferenceUID == image.FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    names = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in town.chest}
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} <= names


def test_the_abdomen_is_not_analysed_and_its_report_says_why(town: Town) -> None:
    outcome = town.first.outcome(town.abdomen)
    assert outcome["state"] == "not_analysed"
    assert "no trachea" in outcome["reason"]
    (report,) = town.first.results(town.abdomen)
    assert report.Modality == "SR"
    assert outcome["reason"] in delivered.words(report)
    assert delivered.volumes(report) == {}


def test_no_report_of_it_where_the_configuration_wants_none(town: Town) -> None:
    outcome = town.second.outcome(town.abdomen)
    assert outcome["reason"] == town.first.outcome(town.abdomen)["reason"]
    assert (outcome["results"], outcome["deliveries"]) == ([], [])
    assert town.second.results(town.abdomen) == []


def test_another_node_another_sender_the_same_bytes(town: Town) -> None:
    first, second = (
        delivered.data_sets(hospital.pacs.received()) for hospital in (town.first, town.second)
    )
    assert len(second) == 2
    for uid, data_set in second.items():
        assert first[uid] == data_set


@pytest.fixture
def files(town: Town) -> list[Path]:
    """What storescp wrote: SEG, SR, and the SR of the abdomen."""
    return town.first.pacs.received()


@pytest.mark.dicom3tools
def test_dciodvfy_finds_no_error(files: list[Path]) -> None:
    for file in files:
        validators.assert_dciodvfy_finds_no_error(file)


def test_the_shared_check_of_reports_passes(files: list[Path], data: Path) -> None:
    reports = delivered.reports(files)
    assert len(reports) == 2
    for report in reports:
        validators.assert_the_shared_check_passes(report, data.parent / "tools")


def test_nothing_died_on_the_way(town: Town) -> None:
    for hospital in (town.first, town.second):
        log = hospital.node.log.read_text()
        for event in ("role.died", "role.failed", "child.ended", "failure", "log.dropped"):
            assert f'"event": "{event}"' not in log
            assert f'"event":"{event}"' not in log
