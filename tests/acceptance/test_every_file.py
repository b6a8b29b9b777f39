"""Every DICOM file of the folder of real studies, odd and broken ones too, in the midst of normal
load: each has one visible outcome, nothing dies, what is normal goes on as if nothing were.

A route without a condition gives every series to a model, so that every file is also parsed and
answered by a report. deploy/docs/ACCEPTANCE.md is the table of what came of them; this test
compares it with what happens, and HOUNSFIELD_RENEW=1 writes it anew.

Not covered: files made to harm (tests/integration/test_receive_faults.py has broken data sets),
other senders' ways to send these files.
"""

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from inference import volume
from inference.models import body_outline
from tests.acceptance import delivered, studies
from tests.acceptance.shared_files import SharedFile, every_file
from tests.node import Node, dicom_destination, running
from tests.peers import StoragePeer, dcmtk_storescp, storescu
from tests.raw_peer import RawPeer

pytestmark = [pytest.mark.shared_data, pytest.mark.dcmtk]

DOCUMENT = Path(__file__).resolve().parents[2] / "deploy" / "docs" / "ACCEPTANCE.md"
SENDER = "ARCHIVE"
RENEW = "HOUNSFIELD_RENEW"
NORMAL = [studies.small_thorax(seed=seed) for seed in (71, 72, 73)]
SHORTEST = 4  # characters of an identifier that is looked for: shorter ones are in other words
ROUTE = """
[[models]]
name = "body"
kind = "body_outline"

[[routes]]
name = "everything"
models = ["body"]
destinations = ["pacs"]
"""
HEAD = """# What becomes of real, odd and broken files

Every DICOM file of the project's folder of real studies, sent as it is to a running node that works
on other studies at the same time. A route gives every series to the model `body_outline`, so that
every file is read to its end. Written by `HOUNSFIELD_RENEW=1 pytest
tests/acceptance/test_every_file.py`, which otherwise compares it with what happens.

Status: the answer to C-STORE. Outcome and reason: as `hounsfield status` says them. Back: the
result objects that the PACS has.

| files | status | series | outcome | reason | back |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node that has come to an end with every file, and what it answered to each."""

    node: Node
    pacs: StoragePeer
    files: list[SharedFile]
    answers: dict[str, int]
    document: dict[str, Any]

    @property
    def series(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Of `status`, by (study, series)."""
        return {
            (study["study_instance_uid"], series["series_instance_uid"]): series
            for study in self.document["studies"]
            for series in study["series"]
        }


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """What became of a file, but for its name."""

    folder: str
    status: str
    series: str
    outcome: str
    reason: str
    back: str


@pytest.fixture(scope="module")
def site(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    files = every_file(data)
    images = [studies.written(one, folder / f"{n}") for n, one in enumerate(NORMAL)]
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        destination = dicom_destination(pacs.port, ae_title=pacs.ae_title)
        node = Node(folder, extra=destination + ROUTE)
        stack.enter_context(running(node))
        load = threading.Thread(target=lambda: [storescu(node.port, each) for each in images])
        load.start()
        answers = send(node.port, files)
        load.join()
        node.settled(seconds=240)
        yield Site(node=node, pacs=pacs, files=files, answers=answers, document=node.status())


def send(port: int, files: Sequence[SharedFile]) -> dict[str, int]:
    """The status of each file, a folder in an association."""
    answers: dict[str, int] = {}
    for _, group in groupby(files, key=lambda file: file.folder):
        together = list(group)
        pairs = sorted({(file.sop_class, file.transfer_syntax) for file in together})
        with RawPeer(port, calling=SENDER) as peer:
            peer.associate([(sop_class, [syntax]) for sop_class, syntax in pairs])
            for file in together:
                context = peer.context(file.sop_class, file.transfer_syntax)
                answers[file.name] = peer.store(
                    context, file.sop_class, file.sop_instance, file.data_set
                )
            peer.release()
    return answers


def rows(site: Site) -> dict[str, Row]:
    """File -> what became of it."""
    refusals = (e for e in site.node.events("object.refused") if e["calling_ae_title"] == SENDER)
    return {
        file.name: _refused(file, next(refusals)) if site.answers[file.name] else _kept(site, file)
        for file in site.files
    }


def _refused(file: SharedFile, event: dict[str, Any]) -> Row:
    return Row(file.folder, event["status"], "", "quarantined", event["reason"], "")


def _kept(site: Site, file: SharedFile) -> Row:
    series = site.series[file.series]
    (outcome,) = series["outcomes"]
    conflicts = f", {series['conflicts']} in conflict" if series["conflicts"] else ""
    kinds = {"segmentation": "SEG", "measurement_report": "SR"}
    return Row(
        folder=file.folder,
        status="0x0000",
        series=series["state"] + conflicts,
        outcome=(outcome["verdict"] or outcome["state"]).replace("_", " "),
        reason=outcome["reason"],
        back=" ".join(kinds[result["kind"]] for result in outcome["results"]),
    )


def table(site: Site) -> str:
    """The document: alike files of a folder are one line."""
    lines = []
    found = sorted((one, name) for name, one in rows(site).items())
    for one, group in groupby(found, key=lambda each: each[0]):
        names = [name for _, name in group]
        files = names[0] if len(names) == 1 else f"{one.folder}/ ({len(names)} files)"
        cells = (files, one.status, one.series, one.outcome, one.reason, one.back)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n")
    return HEAD + "".join(lines)


def test_every_file_has_one_visible_outcome(site: Site) -> None:
    assert len(site.answers) == len(site.files) > 400
    for name, found in rows(site).items():
        assert found.outcome in ("measured", "withheld", "not analysed", "quarantined"), name
        assert found.reason, name


def test_what_was_refused_is_in_quarantine(site: Site) -> None:
    refused = Counter(len(file.data_set) for file in site.files if site.answers[file.name])
    assert refused.total() > 0
    kept = site.document["quarantined_objects"]
    assert Counter(each["bytes"] for each in kept) == refused
    assert all(each["reason"] for each in kept)


def test_what_was_analysed_or_refused_is_answered_at_the_pacs(site: Site) -> None:
    made = {
        result["sop_instance_uid"]
        for series in site.series.values()
        for outcome in series["outcomes"]
        for result in outcome["results"]
    }
    assert set(delivered.data_sets(site.pacs.received())) >= made


@pytest.mark.parametrize("normal", NORMAL, ids=lambda one: f"phantom {one[0].AccessionNumber}")
def test_normal_work_went_on(site: Site, normal: list[Dataset]) -> None:
    image = normal[0]
    series = site.series[image.StudyInstanceUID, image.SeriesInstanceUID]
    (outcome,) = series["outcomes"]
    assert outcome["verdict"] == "measured"
    received = delivered.objects(site.pacs.received())
    (seg,) = (
        one
        for one in received
        if one.Modality == "SEG" and one.StudyInstanceUID == image.StudyInstanceUID
    )
    (expected,) = body_outline.load({}).predict(volume.read(normal).image).segments
    assert delivered.voxels(seg) == {"Body": int(np.count_nonzero(expected.mask.array))}


def test_no_process_died(site: Site) -> None:
    for event in ("role.died", "role.failed", "role.killed", "child.ended", "node.failed"):
        assert site.node.events(event) == []
    assert len(site.node.events("role.ready")) == 5
    assert len(site.node.events("child.started")) == 1


def test_no_attempt_of_a_job_failed(site: Site) -> None:
    ended = {
        event["outcome"]
        for event in site.node.events("job")
        if event["reason"] != "instances came since; waits until the series is complete again"
    }
    assert ended <= {"done", "lost"}


def test_no_patient_is_in_the_log(site: Site) -> None:
    identifiers = {i for file in site.files for i in file.identifiers if len(i) >= SHORTEST}
    assert len(identifiers) > 60
    said = "\n".join(
        value
        for line in site.node.log_lines()
        for key, value in line.items()
        if isinstance(value, str) and key != "time" and not key.endswith("_uid")
    )
    found = {each for each in identifiers if re.search(rf"\b{re.escape(each)}\b", said)}
    assert found == set()


def test_the_document_says_what_happens(site: Site, tmp_path: Path) -> None:
    found = table(site)
    (tmp_path / DOCUMENT.name).write_text(found, encoding="utf-8")
    if os.environ.get(RENEW):
        DOCUMENT.write_text(found, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == found, f"{RENEW}=1 writes it anew"
