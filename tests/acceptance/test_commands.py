"""The commands as a new user meets them: the demo, then status, requeue and similar on a node.

Not covered: `make demo` from a fresh checkout (it installs), the demo's page in a browser.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from inference import phantom
from inference.phantom import Scan
from tests.acceptance import delivered, studies
from tests.node import HOUNSFIELD, Node, dicom_destination, eventually, lung_route, running
from tests.peers import StoragePeer, dcmtk_storescp, storescu

REFERENCE = Path(__file__).resolve().parents[2] / "deploy" / "hounsfield.toml"
COLOURED = 30  # how far two of red, green and blue lie apart in a pixel with a segment's colour


def run(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HOUNSFIELD, *words], capture_output=True, text=True, cwd=folder, timeout=240
    )


# The demo


def test_the_demo_shows_what_came_back(tmp_path: Path) -> None:
    done = run("demo", "--once", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 images, each answered Success" in done.stdout
    assert re.search(
        r"segmentation +Segmentation Storage  "
        r"Right lung [\d,]+ ml, Left lung [\d,]+ ml, Trachea and main bronchi [\d,]+ ml",
        done.stdout,
    )
    assert "measurement_report  Comprehensive 3D SR Storage  AI: lung_ct" in done.stdout
    shown = re.search(r"The images with their segments: (\S+\.png)", done.stdout)
    assert shown is not None
    picture = np.asarray(Image.open(tmp_path / shown[1]).convert("RGB")).astype(int)
    assert picture.std() > 10
    coloured = np.ptp(picture, axis=2) > COLOURED
    assert coloured.mean() > 0.01


def test_the_demo_of_a_folder_without_dicom_says_so_in_a_line(tmp_path: Path) -> None:
    empty = tmp_path / "pictures"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")
    done = run("demo", "--once", "--study", empty, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"hounsfield: {empty}: holds no DICOM files\n"
    assert list(tmp_path.iterdir()) == [empty]


def test_the_demo_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = run("demo", "--once", "--study", tmp_path / "absent", folder=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1


def test_the_reference_configuration_passes_the_check(tmp_path: Path) -> None:
    done = run("check", REFERENCE, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'ae_title = "HOUNSFIELD"' in done.stdout


# A node with three patients

CHEST, OTHER_CHEST, ABDOMEN = "Chest^One", "Chest^Two", "Abdomen^One"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node that has analysed three studies, its PACS, and each patient's study."""

    node: Node
    pacs: StoragePeer
    studies: dict[str, str]

    def outcome(self, patient: str) -> dict[str, Any]:
        """The only outcome of a patient's study."""
        answer = self.node.command("status", "--json", "--study", self.studies[patient])
        (study,) = json.loads(answer.stdout)["studies"]
        (series,) = study["series"]
        (outcome,) = series["outcomes"]
        found: dict[str, Any] = outcome
        return found


def patients() -> dict[str, list[Dataset]]:
    """Two chests, and a body whose lungs are as dense as a liver."""
    shape, spacing = studies.SMALL, studies.SMALL_SPACING
    bodies = {
        CHEST: (phantom.thorax(shape, spacing, seed=61), "Thorax"),
        OTHER_CHEST: (phantom.thorax(shape, spacing, seed=62), "Thorax"),
        ABDOMEN: (phantom.thorax(shape, spacing, seed=63, lung_hu=50), "Abdomen"),
    }
    return {
        name: phantom.datasets(
            body, Scan(patient_name=name, patient_id=f"ID-{name}", description=description)
        )
        for name, (body, description) in bodies.items()
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    sent = patients()
    files = studies.written([one for each in sent.values() for one in each], folder / "images")
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        node = Node(
            folder,
            extra=dicom_destination(pacs.port, ae_title=pacs.ae_title)
            + lung_route(["pacs"], model="body_outline"),
        )
        stack.enter_context(running(node))
        assert storescu(node.port, files).code == 0
        node.settled(seconds=90)
        yield Site(
            node=node,
            pacs=pacs,
            studies={name: str(each[0].StudyInstanceUID) for name, each in sent.items()},
        )


@pytest.mark.dcmtk
def test_status_names_no_patient_unless_asked(site: Site) -> None:
    plain = site.node.command("status").stdout
    document = site.node.command("status", "--json").stdout
    asked = site.node.command("status", "--identifiers").stdout
    for name, study in site.studies.items():
        assert study in plain
        for identifier in (name, f"ID-{name}", name.split("^")[0] + "^"):
            assert identifier not in plain + document
        assert name in asked
        assert f"ID-{name}" in asked


@pytest.mark.dcmtk
def test_similar_ranks_the_other_chest_before_the_abdomen(site: Site) -> None:
    study = site.studies[CHEST]
    found = json.loads(site.node.command("similar", "--study", study, "--json").stdout)
    assert [each["study_instance_uid"] for each in found] == [
        site.studies[OTHER_CHEST],
        site.studies[ABDOMEN],
    ]
    first, second = found
    assert 1 >= first["score"] > second["score"] > 0
    for each in found:
        assert any("grey values" in reason for reason in each["reasons"])
    words = site.node.command("similar", "--study", study).stdout
    assert words.index(site.studies[OTHER_CHEST]) < words.index(site.studies[ABDOMEN])
    assert not any(name in words for name in site.studies)


@pytest.mark.dcmtk
def test_requeue_runs_again_and_sends_the_same_again(site: Site) -> None:
    before, results = site.outcome(CHEST), delivered.data_sets(site.pacs.received())
    sent = len(site.node.events("delivery"))
    done = site.node.command("requeue", "--study", site.studies[CHEST])
    assert done.stdout == "1 analysis is waiting again\n"
    eventually(
        lambda: len(site.node.events("delivery")) == sent + 2,
        seconds=60,
        what="both results sent again",
    )
    after = site.outcome(CHEST)
    assert (after["state"], after["generation"]) == ("done", 1)
    assert after["results"] == before["results"]
    assert delivered.data_sets(site.pacs.received()) == results


@pytest.mark.dcmtk
def test_requeue_of_what_is_not_there_says_so(site: Site) -> None:
    done = site.node.command("requeue", "--study", "1.2.3", check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "hounsfield: 1.2.3: no finished or failed analysis of this study; see status\n"
    )
