"""What independent programs say of our results: dicom3tools, PixelMed, DCMTK, dcmqi, cornerstone3D.

Not covered: OHIF itself in a browser, archives (tests/acceptance), signs of validators newer than
Debian's (Device UID among contributing equipment is newer than dciodvfy and only warned of).
"""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from inference import phantom, volume
from inference.encoding import measurement_report, segmentation
from inference.findings import Findings
from inference.volume import Stack
from tests import encoded, validators
from tests.peers import debian_program
from tests.validators import TOOLS, VENV, run
from tests.volumes import NAMED_ORIENTATIONS, turned


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A series, what was found in it, and the results as files."""

    stack: Stack
    findings: Findings
    sources: Path
    files: dict[str, Path]


def make(folder: Path, datasets: Sequence[Dataset], chosen: list[NDArray[np.bool_]]) -> Made:
    sources = folder / "source"
    sources.mkdir()
    for index, dataset in enumerate(datasets):
        dataset.save_as(sources / f"{index:04}.dcm", enforce_file_format=True)
    stack = volume.read(datasets)
    findings = encoded.findings(stack, chosen)
    (seg,) = segmentation.encode(stack, findings, provenance=encoded.PROVENANCE)
    report = measurement_report.encode(
        stack, findings, provenance=encoded.PROVENANCE, segmentations=[seg]
    )
    refusal = encoded.not_analysed(datasets)
    files = encoded.written(folder, seg=seg, report=report, refusal=refusal)
    return Made(stack=stack, findings=findings, sources=sources, files=files)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two images: PixelMed takes seconds per referenced image."""
    datasets = encoded.series((2, 16, 16))
    labels = np.zeros((2, 16, 16), np.uint8)
    labels[:, 3:9, 2:7], labels[:, 3:12, 9:14] = 1, 2
    return make(tmp_path_factory.mktemp("small"), datasets, [labels == 1, labels == 2])


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Made:
    """Every fourth slice of a real chest CT; its "lungs" are the air left and right in it."""
    folder = tmp_path_factory.mktemp("chest")
    with tarfile.open(data / "ct-chest-ge.tar.xz") as archive:
        archive.extractall(folder / "received", filter="data")
    received = [dcmread(p) for p in (folder / "received").rglob("*") if p.is_file()]
    datasets = sorted(received, key=lambda one: one.ImagePositionPatient[2])[::4]
    array = volume.read(datasets).image.volume.array
    air = (array < -500) & (array > -1000)
    right = np.arange(array.shape[2]) < array.shape[2] // 2
    return make(folder, datasets, [air & right, air & ~right])


NAMES = ("seg", "report", "refusal")


@pytest.mark.dicom3tools
@pytest.mark.parametrize("source", ["small", "chest"])
@pytest.mark.parametrize("name", NAMES)
def test_dciodvfy_finds_no_error(request: pytest.FixtureRequest, source: str, name: str) -> None:
    made: Made = request.getfixturevalue(source)
    validators.assert_dciodvfy_finds_no_error(made.files[name])


@pytest.mark.dicom3tools
def test_dciodvfy_finds_no_error_in_results_of_one_segment(tmp_path: Path) -> None:
    datasets = [phantom.enhanced(phantom.markers(phantom.regular((6, 16, 12), (3.0, 2.0, 2.0))))]
    made = make(tmp_path, datasets, encoded.masks((6, 16, 12), 1))
    for name in ("seg", "report"):
        validators.assert_dciodvfy_finds_no_error(made.files[name])


@pytest.mark.pixelmed
@pytest.mark.parametrize("name", ["report", "refusal"])
def test_pixelmed_finds_no_error(small: Made, name: str) -> None:
    lines = validators.said_by_pixelmed(small.files[name])
    for words in ("Found Root Template TID_1500", "Root Template Validation Complete"):
        assert any(words in line for line in lines)
    assert [line for line in lines if line.startswith("Error")] == []


@pytest.mark.dcmtk
@pytest.mark.parametrize("name", ["report", "refusal"])
@pytest.mark.parametrize("program", ["dsrdump", "dsr2html"])
def test_dcmtk_reads_the_report(small: Made, tmp_path: Path, name: str, program: str) -> None:
    found = debian_program(program, "dcmtk")
    target = [tmp_path / "report.html"] if program == "dsr2html" else []
    options = ["+Pl"] if program == "dsrdump" else []
    done = run(found, *options, small.files[name], *target)
    assert done.returncode == 0, done.stderr
    text = target[0].read_text(encoding="utf-8") if target else done.stdout
    assert "Not for diagnosis." in text
    expected = {"report": "LAA-950, Perc15", "refusal": "Not analysed: slices 3 and 4"}
    assert expected[name] in text


@pytest.mark.parametrize("source", ["small", "chest"])
def test_dcmqi_reads_the_voxels(
    request: pytest.FixtureRequest, source: str, tmp_path: Path
) -> None:
    made: Made = request.getfixturevalue(source)
    assert_dcmqi_agrees(made, tmp_path)


@pytest.mark.parametrize(
    ("right", "down"), [*NAMED_ORIENTATIONS.values(), turned((0.3, -0.5, 0.9))]
)
def test_dcmqi_reads_the_voxels_of_every_orientation(
    right: tuple[float, float, float], down: tuple[float, float, float], tmp_path: Path
) -> None:
    grid = phantom.regular((6, 16, 12), (3.0, 2.0, 2.5), right=right, down=down)
    datasets = phantom.datasets(phantom.markers(grid))
    made = make(tmp_path, datasets, encoded.masks((6, 16, 12)))
    assert_dcmqi_agrees(made, tmp_path)


def assert_dcmqi_agrees(made: Made, folder: Path) -> None:
    """Every voxel of dcmqi's image has, at its place in the patient, the finding's value."""
    target = folder / "nrrd"
    target.mkdir()
    done = run(
        VENV / "segimage2itkimage",
        *("--inputDICOM", made.files["seg"], "--outputDirectory", target, "-t", "nrrd"),
        *("--prefix", "s", "--mergeSegments"),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (file,) = target.glob("*.nrrd")
    image = SimpleITK.ReadImage(str(file))
    read = SimpleITK.GetArrayFromImage(image)
    truth = np.zeros(made.stack.image.volume.spatial_shape, np.uint8)
    for number, segment in enumerate(made.findings.segments, start=1):
        truth[segment.mask.array] = number
    assert np.bincount(read.ravel(), minlength=4)[1:].tolist() == (
        np.bincount(truth.ravel(), minlength=4)[1:].tolist()
    )
    where = np.argwhere(read > 0)
    affine = itk_affine(image)
    patient = where[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    indices = made.stack.image.volume.map_reference_to_indices(patient)
    assert np.abs(indices - np.rint(indices)).max() < 1e-2
    places = tuple(np.rint(indices).astype(int).T)
    assert np.array_equal(truth[places], read[tuple(where.T)])


def itk_affine(image: SimpleITK.Image) -> NDArray[np.float64]:
    """Index (x, y, z) to LPS mm."""
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (3, 3))
    affine[:3, :3] = directions * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def test_dcmqi_reads_the_measurements(small: Made, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    done = run(
        VENV / "tid1500reader",
        *("--inputDICOM", small.files["report"], "--outputMetadata", target),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    groups = json.loads(target.read_text())["Measurements"]
    seg = dcmread(small.files["seg"])
    for segment, group in zip(seg.SegmentSequence, groups, strict=False):
        assert group["TrackingIdentifier"] == segment.SegmentLabel
        assert group["TrackingUniqueIdentifier"] == segment.TrackingUID
        volumes = [
            float(item["value"])
            for item in group["measurementItems"]
            if item["quantity"]["CodeMeaning"] == "Volume"
        ]
        truth = [
            one.value
            for one in small.findings.measurements
            if one.segment == segment.SegmentLabel and one.name.meaning == "Volume"
        ]
        assert volumes == pytest.approx(truth, rel=1e-5)


def test_cornerstone_reads_the_voxels(chest: Made) -> None:
    """The shared check: raw bits, cornerstone3D in both stack orders, dcmqi, and OHIF's rules."""
    node = debian_program("node", "nodejs")
    engine = Path(os.environ.get("CORNERSTONE_DIR", TOOLS / "cornerstone"))
    if not (TOOLS / "check_seg.py").is_file() or not (engine / "node_modules").is_dir():
        pytest.skip("cornerstone3D is missing: npm install it and name its folder CORNERSTONE_DIR")
    search = os.pathsep.join([str(VENV), str(node.parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, TOOLS / "check_seg.py", chest.sources, chest.files["seg"]],
        env={**os.environ, "PATH": search, "CORNERSTONE_DIR": str(engine)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["report", "refusal"])
def test_the_shared_check_of_reports_passes(small: Made, name: str) -> None:
    validators.assert_the_shared_check_passes(small.files[name])
