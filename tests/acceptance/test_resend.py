"""What comes again is no work: a study at once and later, and our own results, come back.

Not covered: resends through a crash (tests/faults), to an archive that deleted the results.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import delivered, studies
from tests.node import Node, dicom_destination, lung_route, running
from tests.peers import Sent, StoragePeer, dcmsend, dcmtk_storescp, storescu

pytestmark = pytest.mark.dcmtk

RESENDS = 3
THORAX = studies.small_thorax(seed=31)
ANOTHER = studies.small_thorax(seed=32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node that was sent one study three times at once, and its PACS."""

    node: Node
    pacs: StoragePeer
    images: list[Path]
    sent: list[Sent]
    outcome: dict[str, Any]


@contextmanager
def node_and_pacs(folder: Path) -> Iterator[tuple[Node, StoragePeer]]:
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        node = Node(
            folder,
            extra=dicom_destination(pacs.port, ae_title=pacs.ae_title)
            + lung_route(["pacs"], model="body_outline"),
        )
        yield stack.enter_context(running(node)), pacs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    images = studies.written(THORAX, folder / "images")
    with node_and_pacs(folder) as (node, pacs):
        with ThreadPoolExecutor(RESENDS) as pool:
            sent = list(pool.map(lambda _: storescu(node.port, images), range(RESENDS)))
        yield Site(node=node, pacs=pacs, images=images, sent=sent, outcome=only_outcome(node))


def only_outcome(node: Node) -> dict[str, Any]:
    """Of the series that was sent first."""
    uid = str(THORAX[0].SeriesInstanceUID)
    settled = node.settled(seconds=90)
    (series,) = (one for one in settled if one["series_instance_uid"] == uid)
    (outcome,) = series["outcomes"]
    assert (series["instances"], series["conflicts"]) == (24, 0)
    found: dict[str, Any] = outcome
    return found


def test_three_at_once_are_one_job_and_one_set_of_results(site: Site) -> None:
    assert [each.code for each in site.sent] == [0] * RESENDS
    assert site.outcome["state"] == "done"
    assert (site.outcome["generation"], site.outcome["attempts"]) == (1, 1)
    received = delivered.objects(site.pacs.received())
    assert [one.Modality for one in received] == ["SEG", "SR"]
    made = {result["sop_instance_uid"] for result in site.outcome["results"]}
    assert {one.SOPInstanceUID for one in received} == made


def test_again_after_the_result_is_nothing_new(site: Site, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in site.pacs.received()}
    assert storescu(site.node.port, site.images).code == 0
    later = studies.written(ANOTHER, tmp_path / "another")
    assert storescu(site.node.port, later).code == 0
    assert only_outcome(site.node) == site.outcome
    after = {path: path.stat().st_mtime_ns for path in site.pacs.received()}
    assert {path: after[path] for path in before} == before
    assert len(after) == 4  # what was sent later has come to its end, and has its own two
    assert len(site.node.events("job")) == 2


def test_the_log_says_that_they_were_duplicates(site: Site) -> None:
    ended = [e for e in site.node.events("association") if e["instances"]]
    resent = sum(each["duplicates"] for each in ended)
    assert resent >= (RESENDS - 1) * len(site.images)
    assert resent % len(site.images) == 0


def test_our_own_results_that_come_back_are_no_input(site: Site) -> None:
    """As from a PACS whose rule forwards every object of a chest CT."""
    before = site.pacs.received()
    jobs = len(site.node.events("job"))
    assert dcmsend(site.node.port, before).code == 0
    own = {one.SeriesInstanceUID: one.Modality for one in delivered.objects(before)}
    settled = site.node.settled(seconds=90)
    found = {s["series_instance_uid"]: s for s in settled if s["series_instance_uid"] in own}
    assert {uid: series["modality"] for uid, series in found.items()} == own
    for series in found.values():
        (outcome,) = series["outcomes"]
        assert (outcome["state"], outcome["model"]) == ("not_analysed", None)
        assert outcome["reason"] == "one of our own results, come back: never an input"
    assert only_outcome(site.node) == site.outcome
    assert site.pacs.received() == before
    assert len(site.node.events("job")) == jobs


def test_another_fresh_node_makes_the_same_bytes(site: Site, tmp_path: Path) -> None:
    with node_and_pacs(tmp_path) as (node, pacs):
        assert storescu(node.port, site.images).code == 0
        assert only_outcome(node)["results"] == site.outcome["results"]
        earlier = delivered.data_sets(site.pacs.received())
        here = delivered.data_sets(pacs.received())
        assert len(here) == 2
        assert here == {uid: earlier[uid] for uid in here}
