"""Detection, key points, classes, numbers and overlapping segments, from C-STORE to the PACS.

Six models of files in one node, four studies of a phantom whose balls lie at known places: what the
PACS received is read back and compared with the phantom and with the network called by hand.
Networks are set by hand or random: nothing here says that a model is good. Not covered: planar
images (test_planar.py), bundles of the zoo (test_bundles.py), viewers.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import tomlkit
import torch
from numpy.typing import NDArray
from pydicom import Dataset
from torch import Tensor, nn

from inference import phantom, volume
from inference.findings import Findings
from inference.models import monai_bundle
from inference.phantom import Phantom, Scan
from service import model_add, sidecar
from tests import annotated, bundles, detecting, reports, validators
from tests.acceptance import delivered, studies
from tests.array_models import label, scripted
from tests.node import Node, dicom_destination, running
from tests.peers import dcmtk_storescp, storescu
from tests.volumes import turned

pytestmark = pytest.mark.dcmtk

QUESTION = ["246112005", "SCT", "Severity"]
YEARS = ["a", "UCUM", "year"]
FINDINGS = ("Clear", "Hazy", "Dense", "Other")
PLATT = {"Clear": [2.0, 0.5], "Hazy": [-1.0, 3.0]}
TEMPERATURE = 1.5
BRIGHTEST, DARKEST = phantom.MARKERS[:2]
NEAR_MM = detecting.SPACING_MM * detecting.STRIDE  # between two anchors, along each axis a half
HEAT_MM = 0.5


class Extremes(nn.Module):
    """Two heat maps: where it is bright and where it is dark."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -2 * x], dim=1)


class Nested(nn.Module):
    """Two channels that overlap: above 300 HU and above 1000 HU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x - 300.0, x - 1000.0], dim=1)


class Age(nn.Module):
    """A number, and the logarithm of its variance, of the mean HU."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=[2, 3, 4])
        return torch.cat([40.0 + mean / 10, mean / 100], dim=1)


NETWORKS: dict[str, type[nn.Module]] = {"points": Extremes, "nested": Nested, "age": Age}
SIDECARS: dict[str, dict[str, Any]] = {  # what a person writes into what `--add` proposes
    "balls": {
        "labels": [
            label(1, "Ball", threshold=0.5) | {"type": ["27925004", "SCT", "Nodule"]},
        ],
    },
    "points": {
        "task": "keypoints",
        "labels": [label(0, "Brightest"), label(1, "Darkest", threshold=0.2)],
        "options": {
            "input": {"orientation": "RAS", "spacing": [1.5, 1.5, 1.5], "multiply": 1 / 2000}
        },
    },
    "severity": {
        "task": "classification",
        "labels": [label(n, name, question=QUESTION) for n, name in enumerate(FINDINGS)],
        "output": {"overlapping": True},
        "options": {
            "weights": "models/model.pt",
            "activation": "sigmoid",
            "calibration": {"temperature": TEMPERATURE, "platt": PLATT},
        },
    },
    "age": {
        "task": "regression",
        "labels": [label(0, "Age", unit=YEARS)],
        "options": {"output": {"intervals": {"Age": {"log_variance": 1}}}},
    },
    "nested": {
        "labels": [label(0, "Bright"), label(1, "Very bright")],
        "output": {"overlapping": True},
        "options": {"output": {"activation": "sigmoid"}},
    },
}
ROUTES = {  # Series Description: models
    "detection": ("balls",),
    "points": ("points",),
    "answers": ("severity", "age"),
    "overlap": ("nested",),
}


def images() -> dict[str, Phantom]:
    """What each study holds, all of them oblique."""
    right, down = turned((0.2, -0.15, 0.3))
    grid = phantom.regular((20, 40, 32), (2.6, 1.3, 1.5), right=right, down=down)
    whole = phantom.markers(grid)
    places = np.stack([grid.points(index) for index in range(len(whole.hu))])
    near = [np.linalg.norm(places - np.asarray(at), axis=-1) < 8 for at in (BRIGHTEST, DARKEST)]
    signed = np.where(near[0], whole.hu, np.where(near[1], -whole.hu // 2, 0))
    return dict.fromkeys(ROUTES, whole) | {"points": replace(whole, hu=signed.astype(np.int16))}


@dataclass(frozen=True)
class Site:
    """What the node says and what the PACS has, by what the studies and models are called."""

    models: Path
    sources: dict[str, list[Dataset]]
    outcomes: dict[str, dict[str, Any]]  # by model
    files: list[Path]

    @cached_property
    def objects(self) -> list[Dataset]:
        return delivered.objects(self.files)

    def results(self, model: str, modality: str) -> list[Dataset]:
        """The SEG or SR of a model."""
        instances = {one["sop_instance_uid"] for one in self.outcomes[model]["results"]}
        found = [one for one in self.objects if one.SOPInstanceUID in instances]
        return [one for one in found if one.Modality == modality]

    def groups(self, model: str) -> list[Dataset]:
        """The measurement groups of its only report."""
        (report,) = self.results(model, "SR")
        return reports.groups(report)

    def said(self, model: str, study: str) -> Findings:
        """What the same bundle says in this process."""
        place = self.models / model
        artifact = bundles.described(place, sidecar.read(place).plain)
        return monai_bundle.load({}, artifact).predict(volume.read(self.sources[study]).image)


def added(folder: Path) -> dict[str, Path]:
    """The models as files, each with a sidecar that was proposed and then completed."""
    folder.mkdir()
    paths = {name: scripted(made(), folder / f"{name}.pt") for name, made in NETWORKS.items()}
    paths["balls"] = detecting.make(folder / "balls")
    paths["severity"] = annotated.classifier(folder / "severity", "DenseNet", 3)
    for name, path in paths.items():
        model_add.add(path)
        place = sidecar.path_of(path)
        document = tomlkit.parse(place.read_text())
        document["name"] = f"Test {name}"
        for key, value in SIDECARS[name].items():
            document[key] = value
        place.write_text(tomlkit.dumps(document))
    return paths


def configured(paths: dict[str, Path], port: int) -> str:
    named = "".join(
        f'[[models]]\nname = "{name}"\npath = "{path}"\n'
        f'kind = "{"monai_bundle" if path.is_dir() else "torchscript"}"\n'
        for name, path in paths.items()
    )
    routed = "".join(
        f'[[routes]]\nname = "{study}"\nmatch = {{ SeriesDescription = "{study}" }}\n'
        f'models = {list(names)}\ndestinations = ["pacs"]\n'
        for study, names in ROUTES.items()
    )
    return dicom_destination(port, ae_title="STORESCP") + named + routed


@pytest.fixture(scope="module")
def site(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("annotations")
    sources = {
        study: phantom.datasets(made, Scan(study=study, series=study, description=study))
        for study, made in images().items()
    }
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        paths = added(folder / "models")
        node = Node(folder / "node", extra=configured(paths, pacs.port))
        stack.enter_context(running(node))
        everything = [one for datasets in sources.values() for one in datasets]
        sent = storescu(node.port, studies.written(everything, folder / "images"))
        assert sent.code == 0, sent.output
        settled = node.settled(seconds=120)
        yield Site(
            models=folder / "models",
            sources=sources,
            outcomes={one["model"]: one for series in settled for one in series["outcomes"]},
            files=pacs.received(),
        )


@pytest.mark.parametrize("model", [name for names in ROUTES.values() for name in names])
def test_every_model_measures_and_its_report_is_at_the_pacs(site: Site, model: str) -> None:
    outcome = site.outcomes[model]
    assert (outcome["state"], outcome["verdict"]) == ("done", "measured"), outcome["reason"]
    (report,) = site.results(model, "SR")
    assert f"Test {model}" in delivered.words(report)
    study = next(study for study, names in ROUTES.items() if model in names)
    source = site.sources[study][0]
    assert report.StudyInstanceUID == source.StudyInstanceUID
    named = {
        str(one.ReferencedSOPInstanceUID)
        for evidence in report.CurrentRequestedProcedureEvidenceSequence
        for series in evidence.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert {str(one.SOPInstanceUID) for one in site.sources[study]} <= named


# Detections


def solid(group: Dataset) -> NDArray[np.float64]:
    """All points of a group that lie in the patient, (n, 3) LPS mm."""
    drawn = [item for item in reports.items(group) if item.ValueType == "SCOORD3D"]
    return np.concatenate([np.reshape(item.GraphicData, (-1, 3)) for item in drawn])


def by_tracking(groups: Sequence[Dataset]) -> dict[str, list[Dataset]]:
    found: dict[str, list[Dataset]] = {}
    for group in groups:
        found.setdefault(reports.tracking(group)[1], []).append(group)
    return found


def test_each_ball_is_a_box_around_its_place_in_the_patient(site: Site) -> None:
    boxes = by_tracking(site.groups("balls"))
    said = site.said("balls", "detection").detections
    assert len(boxes) == len(said) == len(phantom.MARKERS)
    centres = []
    for planar, volumetric in boxes.values():
        assert reports.tracking(planar) == reports.tracking(volumetric)
        corners = solid(volumetric)
        centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
        centres.append(centre)
        one = min(said, key=lambda box: float(np.linalg.norm(box.box.centre - centre)))
        np.testing.assert_allclose(centre, one.box.centre, atol=0.01)
        assert reports.certainty(planar) == pytest.approx(100 * one.probability, rel=1e-4)
        sides = sorted(list(reports.values(volumetric).values())[:3])
        expected = sorted(float(np.linalg.norm(edge)) for edge in one.box.edges)
        assert sides == pytest.approx(expected, rel=1e-3)
    for marker in phantom.MARKERS:
        assert min(np.linalg.norm(centre - marker) for centre in centres) < NEAR_MM


def test_boxes_are_coded_tracked_and_in_the_frame_of_reference_of_the_source(site: Site) -> None:
    (report,) = site.results("balls", "SR")
    content = hd.sr.Comprehensive3DSR.from_dataset(report).content
    found = content.get_volumetric_roi_measurement_groups()
    assert {group.tracking_identifier for group in found} == {"Ball 1", "Ball 2", "Ball 3"}
    assert len({group.tracking_uid for group in found}) == len(phantom.MARKERS)
    assert {group.finding_type.value for group in found} == {"27925004"}
    frames = {
        str(item.ReferencedFrameOfReferenceUID)
        for item in reports.items(report)
        if item.ValueType == "SCOORD3D"
    }
    assert frames == {str(site.sources["detection"][0].FrameOfReferenceUID)}


def in_patient(item: Dataset, sources: Sequence[Dataset]) -> NDArray[np.float64]:
    """A point that is drawn in an image, LPS mm (PS3.3 C.7.6.2.1.1; SCOORD counts from corners)."""
    (reference,) = item.ContentSequence[0].ReferencedSOPSequence
    (image,) = (one for one in sources if one.SOPInstanceUID == reference.ReferencedSOPInstanceUID)
    column, row = (float(part) - 0.5 for part in item.GraphicData)
    cosines = np.asarray(image.ImageOrientationPatient, float).reshape(2, 3)
    down, right = (float(part) for part in image.PixelSpacing)
    place: NDArray[np.float64] = (
        np.asarray(image.ImagePositionPatient, float)
        + cosines[0] * right * column
        + cosines[1] * down * row
    )
    return place


def test_key_points_lie_where_the_balls_are(site: Site) -> None:
    sources = site.sources["points"]
    truth = {"Brightest": BRIGHTEST, "Darkest": DARKEST}
    groups = {reports.tracking(group)[0]: group for group in site.groups("points")}
    assert set(groups) == set(truth)
    for name, place in truth.items():
        (point,) = (i for i in reports.items(groups[name]) if i.ValueType == "SCOORD3D")
        assert point.GraphicType == "POINT"
        assert np.linalg.norm(np.asarray(point.GraphicData, float) - place) < HEAT_MM
        (drawn,) = (i for i in reports.items(groups[name]) if i.ValueType == "SCOORD")
        off = in_patient(drawn, sources) - np.asarray(point.GraphicData, float)
        assert np.linalg.norm(off) <= 2.6 / 2 + 0.05  # the nearest slice's
        assert 50 < (reports.certainty(groups[name]) or 0) <= 100


def test_calibrated_answers_are_coded_with_their_probabilities(site: Site) -> None:
    hu = images()["answers"].hu
    logits = annotated.by_hand(site.models / "severity", hu.transpose(2, 1, 0)) / TEMPERATURE
    lines = [PLATT.get(name, [1.0, 0.0]) for name in FINDINGS]
    probabilities = {
        name.upper(): float(torch.sigmoid(slope * value + add))
        for name, value, (slope, add) in zip(FINDINGS, logits, lines, strict=True)
    }
    expected = {name: value for name, value in probabilities.items() if value >= 0.5}
    found = {
        reports.said(group)[QUESTION[0]]: reports.certainty(group)
        for group in site.groups("severity")
    }
    assert 0 < len(expected) < len(FINDINGS)
    assert found == pytest.approx({name: 100 * p for name, p in expected.items()}, rel=1e-3)


def test_a_number_has_its_unit_and_its_interval(site: Site) -> None:
    (group,) = site.groups("age")
    (number,) = reports.of_type(group, "NUM")
    mean = float(images()["answers"].hu.mean())
    assert reports.values(group) == pytest.approx({"Age": 40 + mean / 10}, rel=1e-4)
    (value,) = number.MeasuredValueSequence
    assert value.MeasurementUnitsCodeSequence[0].CodeValue == "a"
    reach = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in number.ContentSequence
        if item.ValueType == "NUM"
    ]
    assert reach == pytest.approx([1.95996 * np.exp(mean / 200)] * 2, rel=1e-3)


def test_overlapping_segments_are_whole_in_their_objects_and_measured(site: Site) -> None:
    hu = images()["overlap"].hu
    expected = {"Bright": int((hu >= 300).sum()), "Very bright": int((hu >= 1000).sum())}
    segmentations = site.results("nested", "SEG")
    found = {name: n for seg in segmentations for name, n in delivered.voxels(seg).items()}
    assert found == expected
    (report,) = site.results("nested", "SR")
    each = delivered.voxel_millilitres(segmentations[0])
    stated = {name: count * each for name, count in expected.items()}
    assert delivered.volumes(report) == pytest.approx(stated, rel=1e-3)
    uids = {str(segment.TrackingUID) for seg in segmentations for segment in seg.SegmentSequence}
    assert {reports.tracking(group)[1] for group in site.groups("nested")} >= uids
    assert len(uids) == len(expected)


# What independent programs say


@pytest.mark.dicom3tools
def test_dciodvfy_finds_no_error(site: Site) -> None:
    assert site.files
    for file in site.files:
        validators.assert_dciodvfy_finds_no_error(file)


def test_the_shared_check_finds_no_fault_in_the_reports(site: Site) -> None:
    for report in delivered.reports(site.files):
        validators.assert_the_shared_check_passes(report)
