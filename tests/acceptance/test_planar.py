"""Radiographs, mammograms, ultrasound and photographs, from C-STORE to files in a folder.

Three small TorchScript models with sidecars: what is bright (segmentation), where it is brightest
(key points, in each of 34 frames), which colour is strongest (classification). What comes back is
read with pydicom alone. Not covered: other networks and kinds (their own tests), viewers.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from pydicom import Dataset

from inference import attributes
from service import model_folder, sidecar
from tests import pictures
from tests.acceptance import delivered
from tests.node import Node, running
from tests.part10_files import take_apart
from tests.pictures import PHOTO, labelled, picture
from tests.raw_peer import RawPeer

pytestmark = pytest.mark.shared_data

BRIGHT = 0.8  # of the range from the darkest to the brightest pixel
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
COLOURS = ("red", "green", "blue")
QUESTION = '["STRONGEST", "99LOCAL", "Strongest colour"]'


class Brighter(torch.nn.Module):
    """Background and what is brighter than BRIGHT, of an image scaled to 0..1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), x - 0.8], dim=1)


class Heat(torch.nn.Module):
    """The image itself as a heat map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Strongest(torch.nn.Module):
    """The mean of each colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=[2, 3])


HEAD = """
name = "{name}"
version = "1"
licence = "Apache-2.0"
summary = "A test's model."
task = "{task}"
limits = ["It finds brightness, not disease."]

[input]
modalities = [{modalities}]
dimensions = 2
"""
BRIGHT_LABEL = """
[[labels]]
value = {value}
name = "Bright"
type = ["BRIGHT", "99LOCAL", "Bright"]
"""
SCALED = '\n[options.input]\nscale = "unit"\n'
MODELS = {
    "bright": (
        Brighter,
        HEAD.format(name="bright", task="segmentation", modalities='"CR", "DX", "MG"')
        + BRIGHT_LABEL.format(value=1)
        + SCALED,
    ),
    "brightest": (
        Heat,
        HEAD.format(name="brightest", task="keypoints", modalities='"US"')
        + BRIGHT_LABEL.format(value=0)
        + SCALED,
    ),
    "strongest": (
        Strongest,
        HEAD.format(name="strongest", task="classification", modalities='"XC"')
        + "".join(
            f'\n[[labels]]\nvalue = {value}\nname = "{colour}"\n'
            f'type = ["{colour.upper()}", "99LOCAL", "{colour}"]\nquestion = {QUESTION}\n'
            for value, colour in enumerate(COLOURS)
        )
        + '\n[options.input]\nchannels = 3\n[options.output]\nactivation = "softmax"\n',
    ),
}
ROUTES = {"bright": '["CR", "DX", "MG"]', "brightest": '"US"', "strongest": '["XC", "CT"]'}


def installed(folder: Path) -> str:
    """The models as files with their sidecars; the TOML that configures them, with a route each."""
    torch.manual_seed(0)
    folder.mkdir()
    lines = [f'[[destinations]]\nname = "results"\nkind = "folder"\npath = "{folder / "out"}"']
    for name, (network, described) in MODELS.items():
        file = folder / f"{name}.pt"
        torch.jit.script(network()).save(str(file))
        digests = "".join(f'"{k}" = "{v}"\n' for k, v in model_folder.digests(file).items())
        sidecar.path_of(file).write_text(f"{described}\n[files]\n{digests}")
        lines.append(f'[[models]]\nname = "{name}"\nkind = "torchscript"\npath = "{file}"')
        lines.append(
            f'[[routes]]\nname = "{name}"\nmatch = {{ Modality = {ROUTES[name]} }}\n'
            f'models = ["{name}"]\ndestinations = ["results"]'
        )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clinic:
    """A node that has come to an end with every image."""

    node: Node
    images: dict[str, Dataset]  # by what the tests call them
    results: list[Dataset]
    series: dict[str, dict[str, Any]]  # of `status`, by Series Instance UID

    def outcome(self, name: str) -> dict[str, Any]:
        """The only outcome of an image's series."""
        (outcome,) = self.series[self.images[name].SeriesInstanceUID]["outcomes"]
        return dict(outcome)

    def result(self, name: str, modality: str) -> Dataset:
        """The only SEG or SR that came back for an image's study."""
        study = self.images[name].StudyInstanceUID
        (found,) = (
            one
            for one in self.results
            if one.StudyInstanceUID == study and one.Modality == modality
        )
        return found

    def pixels(self, name: str) -> list[NDArray[Any]]:
        """Of each view."""
        return [view.image.pixels for view in pictures.read([self.images[name]]).views]


@pytest.fixture(scope="module")
def clinic(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("clinic")
    files = written(data, folder / "images")
    node = Node(folder / "node", extra=installed(folder / "models"))
    with running(node):
        assert send(node.port, list(files.values())) == [0] * len(files)
        settled = node.settled(seconds=120)
        yield Clinic(
            node=node,
            images={name: attributes.parse(file) for name, file in files.items()},
            series={one["series_instance_uid"]: one for one in settled},
            results=delivered.objects(sorted((folder / "models" / "out").glob("*.dcm"))),
        )


def written(data: Path, folder: Path) -> dict[str, Path]:
    """What is sent: real files as they are, and real pixels in files of our own."""
    folder.mkdir()
    coloured = attributes.parse(data / "transfer-syntaxes-more/HTJ2KLossless_08_RGB.dcm")
    pixels = pictures.read([coloured]).views[0].image.pixels
    chests = sorted((data / "cxr-labelled-nih-png").glob("*/*.png"))[::12]
    scan = pydicom.dcmread(data / "transfer-syntaxes-more/693_UNCR.dcm")
    scan.StudyInstanceUID = f"{scan.StudyInstanceUID}.1"
    made = {
        "photograph": picture(pixels, PHOTO, colour=True, study="photo", Modality="XC"),
        "slice": scan,
        **{f"chest {n}": labelled(path) for n, path in enumerate(chests)},
    }
    for name, dataset in made.items():
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return {
        "radiograph": data / "cr-chest-dicom/JPEGLS/RG1_JLSN.dcm",
        "mammogram": data / "mg-siemens/OutOfBoundsOverlay.dcm",
        "echo": data / "us-multiframe/Issue16.dcm",
        **{name: folder / f"{name}.dcm" for name in made},
    }


def send(port: int, files: Sequence[Path]) -> list[int]:
    """The status of each file, all in one association."""
    parts = [take_apart(file.read_bytes(), file.name) for file in files]
    found = [part for part in parts if part is not None]
    pairs = sorted({(part.sop_class, part.transfer_syntax) for part in found})
    with RawPeer(port) as peer:
        peer.associate([(sop_class, [syntax]) for sop_class, syntax in pairs])
        statuses = [
            peer.store(
                peer.context(part.sop_class, part.transfer_syntax),
                part.sop_class,
                part.sop_instance,
                part.data_set,
            )
            for part in found
        ]
        peer.release()
    return statuses


SEGMENTED = ("radiograph", "mammogram", "chest 0", "chest 1")


@pytest.mark.parametrize("name", [*SEGMENTED, "echo", "photograph"])
def test_every_planar_image_is_measured_and_delivered(clinic: Clinic, name: str) -> None:
    outcome = clinic.outcome(name)
    assert (outcome["state"], outcome["verdict"]) == ("done", "measured")
    kinds = {"measurement_report"} | ({"segmentation"} if name in SEGMENTED else set())
    assert {d["kind"] for d in outcome["deliveries"]} == kinds
    assert {d["state"] for d in outcome["deliveries"]} == {"committed"}


@pytest.mark.parametrize("name", SEGMENTED)
def test_a_segmentation_is_the_model_s_mask_in_the_matrix_of_its_image(
    clinic: Clinic, name: str
) -> None:
    image, seg = clinic.images[name], clinic.result(name, "SEG")
    (pixels,) = clinic.pixels(name)
    values = pixels.astype(np.float32)
    expected = (values - values.min()) / np.float32(values.max() - values.min()) > BRIGHT
    assert 0 < expected.sum() < expected.size
    assert (seg.Rows, seg.Columns, seg.NumberOfFrames) == (image.Rows, image.Columns, 1)
    assert np.array_equal(seg.pixel_array.astype(bool), expected)
    (source,) = referenced(seg)
    assert source.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert source.ReferencedSOPClassUID == image.SOPClassUID
    assert "ReferencedFrameNumber" not in source
    assert "FrameOfReferenceUID" not in image or seg.FrameOfReferenceUID
    assert seg.PatientID == image.PatientID


def referenced(seg: Dataset) -> list[Dataset]:
    """The source image of each frame."""
    return [
        groups.DerivationImageSequence[0].SourceImageSequence[0]
        for groups in seg.PerFrameFunctionalGroupsSequence
    ]


def points(report: Dataset) -> dict[int, tuple[float, float]]:
    """Frame number -> (column, row) of the point drawn in it."""
    found = {}
    for item in delivered.items(report):
        if item.ValueType == "SCOORD" and item.GraphicType == "POINT":
            (image,) = item.ContentSequence
            (source,) = image.ReferencedSOPSequence
            column, row = item.GraphicData
            found[int(source.ReferencedFrameNumber)] = (float(column), float(row))
    return found


def test_a_point_lies_in_its_frame_where_it_is_brightest(clinic: Clinic) -> None:
    frames = clinic.pixels("echo")
    found = points(clinic.result("echo", "SR"))
    assert sorted(found) == list(range(1, len(frames) + 1))
    for number, pixels in enumerate(frames, start=1):
        luma = pixels.astype(np.float32) @ LUMA
        column, row = found[number]
        assert 0 < column < pixels.shape[1]
        assert 0 < row < pixels.shape[0]
        brightness = luma[int(row), int(column)]
        assert brightness >= luma.max() - 1, f"frame {number}"


def test_every_report_names_the_images_that_it_is_about(clinic: Clinic) -> None:
    for name in (*SEGMENTED, "echo", "photograph"):
        image, report = clinic.images[name], clinic.result(name, "SR")
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        named = {
            one.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for one in series.ReferencedSOPSequence
        }
        assert image.SOPInstanceUID in named
        assert "It finds brightness, not disease." in delivered.words(report)
        drawn = {
            str(source.ReferencedSOPInstanceUID)
            for item in delivered.items(report)
            if item.ValueType == "IMAGE"
            for source in item.ReferencedSOPSequence
        }
        assert drawn <= named


def test_a_photograph_s_answer_is_coded(clinic: Clinic) -> None:
    (pixels,) = clinic.pixels("photograph")
    strongest = COLOURS[int(pixels.reshape(-1, 3).mean(axis=0).argmax())]
    codes = {
        item.ConceptCodeSequence[0].CodeValue
        for item in delivered.items(clinic.result("photograph", "SR"))
        if item.ValueType == "CODE" and delivered.concept(item) == "STRONGEST"
    }
    assert codes == {strongest.upper()}


def test_a_slice_is_refused_by_a_model_of_planar_images(clinic: Clinic) -> None:
    outcome = clinic.outcome("slice")
    assert outcome["verdict"] == "not_analysed"
    assert outcome["reason"] == "no planar images: 1 x CT Image Storage: not a planar image"
    assert outcome["reason"] in delivered.words(clinic.result("slice", "SR"))


def test_similar_answers_with_radiographs(clinic: Clinic) -> None:
    study = clinic.images["chest 0"].StudyInstanceUID
    done = clinic.node.command("similar", "--study", study, "--json")
    found = json.loads(done.stdout)
    scores = {one["study_instance_uid"]: one["score"] for one in found}
    nearest = found[0]
    assert nearest["study_instance_uid"] == clinic.images["chest 1"].StudyInstanceUID
    assert nearest["modality"] == "DX"
    assert any(reason.startswith("outlines: ") for reason in nearest["reasons"])
    assert scores[clinic.images["echo"].StudyInstanceUID] < nearest["score"]


def test_no_process_died(clinic: Clinic) -> None:
    for event in ("role.died", "role.failed", "child.ended", "node.failed", "failure"):
        assert clinic.node.events(event) == []
