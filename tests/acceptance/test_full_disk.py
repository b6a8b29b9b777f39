"""A disk that runs full: the sender is told before it is full, loses nothing, and goes on later.

The disk is a small tmpfs, for which the test needs to be root; the watermark alone is tested for
everybody. Not covered: a database on a machine of its own that runs full, quotas.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import Dataset

from inference import phantom
from inference.phantom import Scan
from tests.acceptance import delivered, studies
from tests.node import Node, catalogue, dicom_destination, eventually, running
from tests.peers import StoragePeer, dcmtk_storescp, storescu

pytestmark = pytest.mark.dcmtk

MIB = 1 << 20
DISK, BALLAST, KEPT_FREE = 200 * MIB, 90 * MIB, 80 * MIB
STUDIES, SLICES = 6, 100  # of 12.5 MiB each
QUIET_SECONDS = 5.0  # nothing is finished, so that retention makes no room, while the disk is full
WANTED = "the last one"
ROUTE = f"""
[retention]
free_gib = {{minimum_free_gib}}

[[models]]
name = "model"
kind = "body_outline"

[[routes]]
name = "the last one"
match = {{{{ SeriesDescription = "{WANTED}" }}}}
models = ["model"]
destinations = ["pacs"]
"""
NO_ROOM = "Refused: OutOfResources"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, where the node will have its files."""
    place = tmp_path / "site" / "node"
    place.mkdir(parents=True)
    if os.geteuid() != 0:
        pytest.skip("a small disk can only be mounted by root")
    mount: list[str | Path] = ["/bin/mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["/bin/umount", "--lazy", place], check=True)


def many_studies() -> list[Dataset]:
    """One body in several studies, each an examination of its own to the node."""
    size = (SLICES, 256, 256), (3.0, 1.5, 1.5)
    body = phantom.thorax(*size, seed=81, vessels=2)
    scans = [
        Scan(study=f"study {number}", series=f"series {number}", description=description)
        for number, description in enumerate([*["another"] * (STUDIES - 1), WANTED])
    ]
    return [one for scan in scans for one in phantom.datasets(body, scan)]


def node_with(folder: Path, pacs: StoragePeer, *, minimum_free_gib: float) -> Node:
    return Node(
        folder,
        extra=dicom_destination(pacs.port, ae_title=pacs.ae_title)
        + ROUTE.format(minimum_free_gib=minimum_free_gib),
        minimum_free_gib=minimum_free_gib,
        quiet_seconds=QUIET_SECONDS,
    )


def registered(node: Node) -> set[str]:
    """SOP Instance UIDs in the catalogue whose file is there."""
    with catalogue(node) as catalog:
        rows = [
            row
            for study in catalog.overview(None, latest=None).studies
            for series in study.series
            for row in catalog.all_instances(series.series_id)
        ]
    return {row.sop_instance_uid for row in rows if (node.folder / "node" / row.key).is_file()}


def acknowledged(datasets: Sequence[Dataset], statuses: Sequence[str]) -> set[str]:
    pairs = zip(datasets, statuses, strict=True)
    return {one.SOPInstanceUID for one, status in pairs if status == "Success"}


def test_a_full_disk_and_what_comes_after(disk: Path, tmp_path: Path) -> None:
    datasets = many_studies()
    files = studies.written(datasets, tmp_path / "images")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(BALLAST))
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(tmp_path / "pacs"))
        node = node_with(disk.parent, pacs, minimum_free_gib=KEPT_FREE / (1 << 30))
        stack.enter_context(running(node))

        first = storescu(node.port, files, "-nh")
        assert set(first.statuses()) == {"Success", NO_ROOM}
        assert shutil.disk_usage(disk).free > MIB
        taken = acknowledged(datasets, first.statuses())
        assert registered(node) == taken
        assert node.events("disk.low")

        ballast.unlink()
        eventually(
            lambda: storescu(node.port, files[-1:]).statuses() == ["Success"],
            seconds=10,
            what="room again, which is looked for every second",
        )
        second = storescu(node.port, files, "-nh")
        assert set(second.statuses()) == {"Success"}
        assert node.events("disk.recovered")
        last = datasets[-1]
        settled = {s["series_instance_uid"]: s for s in node.settled(seconds=120)}
        assert {s["instances"] for s in settled.values()} == {SLICES}
        (outcome,) = settled[last.SeriesInstanceUID]["outcomes"]
        assert outcome["verdict"] == "measured"
        at_pacs = {one.SOPInstanceUID for one in delivered.objects(pacs.received())}
        assert {result["sop_instance_uid"] for result in outcome["results"]} <= at_pacs
        assert len(outcome["results"]) == 2
        assert registered(node) == {one.SOPInstanceUID for one in datasets}
        for event in ("role.died", "sweep.failed", "failure"):
            assert node.events(event) == []


def test_below_the_watermark_nothing_is_taken_and_above_it_the_same_sender_succeeds(
    tmp_path: Path,
) -> None:
    datasets = studies.small_thorax(seed=82, scan=Scan(description=WANTED))
    files = studies.written(datasets, tmp_path / "images")
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(tmp_path / "pacs"))
        node = node_with(tmp_path / "site", pacs, minimum_free_gib=1_000_000)
        with running(node):
            refused = storescu(node.port, files, "-nh")
            assert set(refused.statuses()) == {NO_ROOM}
            assert node.status()["instances"] == 0
            incoming = node.folder / "node" / "incoming"
            assert list(incoming.iterdir()) == []
            assert node.stop() == 0
        node = node_with(tmp_path / "site", pacs, minimum_free_gib=0)
        stack.enter_context(running(node))
        assert set(storescu(node.port, files).statuses()) == {"Success"}
        (series,) = node.settled(seconds=60)
        assert series["outcomes"][0]["verdict"] == "measured"
        assert len(pacs.received()) == 2
