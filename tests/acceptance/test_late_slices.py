"""Slices that come late: a new result supersedes the old one, in its series, and names it.

Not covered: viewers that show both generations, PostgreSQL, a destination that is down meanwhile
(tests/contracts/test_storage_deliveries.py withdraws what was not delivered).
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from inference import phantom
from inference.phantom import Scan
from tests.acceptance import delivered, studies
from tests.node import Node, catalogue, dicom_destination, eventually, lung_route, running
from tests.peers import StoragePeer, dcmtk_storescp, storescu

pytestmark = pytest.mark.dcmtk

SLICES, FIRST = 100, 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A running node and its PACS."""

    node: Node
    pacs: StoragePeer

    def send(self, images: list[Path]) -> None:
        assert storescu(self.node.port, images).code == 0

    def series(self, of: list[Dataset]) -> dict[str, Any]:
        """A series in `status`."""
        uid = of[0].SeriesInstanceUID
        (found,) = (s for s in self.node.series() if s["series_instance_uid"] == uid)
        return found

    def settled(self, of: list[Dataset], *, instances: int) -> dict[str, Any]:
        """The only outcome of a series, once it is one of so many instances and delivered."""

        def ended() -> dict[str, Any] | None:
            series = self.series(of)
            assert "failed" not in [o["state"] for o in series["outcomes"]], series
            jobs = [o for o in series["outcomes"] if o["state"] == "done"]
            done = series["instances"] == instances and series["state"] == "complete" and jobs
            return jobs[0] if done and len(series["outcomes"]) == 1 and _arrived(jobs[0]) else None

        found: dict[str, Any] = eventually(ended, seconds=120, what="one outcome", every=0.3)
        return found

    def received(self, of: list[Dataset]) -> list[Dataset]:
        """What the PACS has of a study, SEG before SR, by generation."""
        study = of[0].StudyInstanceUID
        found = delivered.objects(self.pacs.received())
        return [one for one in found if one.StudyInstanceUID == study]


def _arrived(outcome: dict[str, Any]) -> bool:
    states = {delivery["state"] for delivery in outcome["deliveries"]}
    return bool(states) and states <= {"sent", "committed"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        node = Node(
            folder,
            extra=dicom_destination(pacs.port, ae_title=pacs.ae_title)
            + lung_route(["pacs"], model="body_outline"),
        )
        yield Site(node=stack.enter_context(running(node)), pacs=pacs)


def thorax(seed: int, pixels: int) -> list[Dataset]:
    """100 slices; the more pixels, the longer the model takes."""
    size = 390.0 / pixels
    made = phantom.thorax((SLICES, pixels, pixels), (3.0, size, size), seed=seed, vessels=5)
    return phantom.datasets(made, Scan(patient_id=f"LATE{seed}"))


def test_a_late_part_leads_to_a_result_that_supersedes_the_first(
    site: Site, tmp_path: Path
) -> None:
    datasets = thorax(seed=41, pixels=64)
    images = studies.written(datasets, tmp_path / "images")
    site.send(images[:FIRST])
    early = site.settled(datasets, instances=FIRST)
    assert early["generation"] == 1
    first_seg, first_report = site.received(datasets)

    site.send(images[FIRST:])
    late = site.settled(datasets, instances=SLICES)
    assert late["generation"] == 2
    old_seg, seg, old_report, report = site.received(datasets)

    assert (old_seg, old_report) == (first_seg, first_report)
    assert {r["sop_instance_uid"] for r in late["results"]} == {
        seg.SOPInstanceUID,
        report.SOPInstanceUID,
    }
    for old, new in ((old_seg, seg), (old_report, report)):
        assert new.SeriesInstanceUID == old.SeriesInstanceUID
        assert new.SOPInstanceUID != old.SOPInstanceUID
        assert (old.InstanceNumber, new.InstanceNumber) == (1, 2)
    assert sum(delivered.voxels(seg).values()) > sum(delivered.voxels(old_seg).values())
    check_predecessor(report, old_report)


def check_predecessor(report: Dataset, old: Dataset) -> None:
    """The new report names the old one, which names none (PS3.3 C.17.2)."""
    assert "PredecessorDocumentsSequence" not in old
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == old.StudyInstanceUID
    assert series.SeriesInstanceUID == old.SeriesInstanceUID
    assert document.ReferencedSOPInstanceUID == old.SOPInstanceUID


def test_slices_that_come_while_the_job_runs_lead_to_one_current_result(
    site: Site, tmp_path: Path
) -> None:
    datasets = thorax(seed=42, pixels=320)
    images = studies.written(datasets, tmp_path / "images")
    site.send(images[:FIRST])
    with catalogue(site.node) as catalog:
        eventually(
            lambda: catalog.overview(None, latest=1).running,
            seconds=60,
            what="a job that runs",
            every=0.02,
        )
    site.send(images[FIRST:])
    outcome = site.settled(datasets, instances=SLICES)
    received = {one.SOPInstanceUID: one for one in site.received(datasets)}
    current = [received[result["sop_instance_uid"]] for result in outcome["results"]]
    assert sorted(one.Modality for one in current) == ["SEG", "SR"]
    for one in current:
        assert one.InstanceNumber == outcome["generation"] > 1
    (seg,) = (one for one in current if one.Modality == "SEG")
    (series,) = seg.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) > FIRST
    uid = datasets[0].SeriesInstanceUID
    jobs = [e for e in site.node.events("job") if e["series_instance_uid"] == uid]
    generations = [each["generation"] for each in jobs]
    assert generations == sorted(generations)
    assert generations[-1] == outcome["generation"]
