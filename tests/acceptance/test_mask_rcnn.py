"""A Mask R-CNN in a node: radiograph, cine and photograph in, boxes and masks at the PACS.

The network is set by hand and finds discs (tests/disc_finder.py); what the PACS received is read
with pydicom, and compared with the discs and with what the network says in this process. Not
covered: trained weights, viewers; without torchvision, that the job fails with the one line.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
import torch
from numpy.typing import NDArray
from pydicom import Dataset

from inference import planar, torchvision_operators
from inference.findings import Findings
from inference.models import mask_rcnn
from service import model_add, sidecar
from tests import bundles, disc_finder, reports, validators
from tests.acceptance import delivered, studies
from tests.array_models import label
from tests.disc_finder import BRIGHT, GREY, NETWORK, Disc
from tests.node import Node, dicom_destination, running
from tests.peers import dcmtk_storescp, storescu
from tests.pictures import CINE, DX, PHOTO, picture

pytestmark = pytest.mark.dcmtk

SPACING = (0.2, 0.2)  # mm
DISCS = (Disc(BRIGHT, 60, 70, 32), Disc(GREY, 180, 60, 32), Disc(GREY, 150, 190, 20))
TOUCHING = (Disc(BRIGHT, 80, 100, 32), Disc(BRIGHT, 138, 100, 32))
FRAMES = ((Disc(BRIGHT, 60, 70, 32),), (Disc(BRIGHT, 180, 150, 32),))
LABELS = [
    label(BRIGHT, "Bright", threshold=0.5) | {"type": ["27925004", "SCT", "Nodule"]},
    label(GREY, "Grey", threshold=0.5),
]
MODEL = "discs"


def images() -> dict[str, Dataset]:
    """What is sent."""
    grey = (disc_finder.drawn(DISCS) * 4000).astype(np.uint16)
    apart = (disc_finder.drawn(TOUCHING) * 4000).astype(np.uint16)
    cine = np.stack([(disc_finder.drawn(one) * 255).astype(np.uint8) for one in FRAMES])
    colour = np.repeat((disc_finder.drawn(DISCS) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    spaced = {"PixelSpacing": [*map(str, SPACING)], "PixelSpacingCalibrationType": "GEOMETRY"}
    return {
        "radiograph": picture(grey, DX, study="radiograph", Modality="DX", **spaced),
        "overlap": picture(apart, DX, study="overlap", Modality="DX", **spaced),
        "cine": picture(cine, CINE, study="cine", frames=len(FRAMES), Modality="US"),
        "photograph": picture(colour, PHOTO, study="photograph", colour=True, Modality="XC"),
    }


@dataclass(frozen=True)
class Site:
    """What the node says and what the PACS has, by what the images are called."""

    model: Path
    sources: dict[str, Dataset]
    outcomes: dict[str, dict[str, Any]]
    files: list[Path]

    @cached_property
    def objects(self) -> list[Dataset]:
        return delivered.objects(self.files)

    def results(self, name: str, modality: str) -> list[Dataset]:
        """The SEG or SR of an image."""
        study = self.sources[name].StudyInstanceUID
        found = [one for one in self.objects if one.StudyInstanceUID == study]
        return [one for one in found if one.Modality == modality]

    def said(self, name: str) -> list[Findings]:
        """What the model says in this process of each frame."""
        artifact = bundles.described(self.model, sidecar.read(self.model).plain)
        model = mask_rcnn.load({}, artifact)
        _, found = planar.each(planar.read([self.sources[name]]), model.predict)
        return list(found)


def added(folder: Path, file: Path) -> Path:
    """The model with a sidecar that was proposed and then completed."""
    model_add.add(file)
    place = sidecar.path_of(file)
    document = tomlkit.parse(place.read_text())
    document["name"] = "Test discs"
    document["labels"] = LABELS
    document["input"]["modalities"] = ["DX", "US", "XC"]  # type: ignore[index]
    document["options"]["network"].update(NETWORK)  # type: ignore[index,union-attr]
    place.write_text(tomlkit.dumps(document))
    return file


def configured(file: Path, port: int) -> str:
    return (
        dicom_destination(port, ae_title="STORESCP")
        + f'[[models]]\nname = "{MODEL}"\nkind = "mask_rcnn"\npath = "{file}"\n'
        + f'[[routes]]\nname = "all"\nmatch = {{ Modality = ["DX", "US", "XC"] }}\n'
        f'models = ["{MODEL}"]\ndestinations = ["pacs"]\n'
    )


def run(folder: Path, file: Path, sent: dict[str, Dataset]) -> Site:
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        node = Node(folder / "node", extra=configured(file, pacs.port))
        stack.enter_context(running(node))
        done = storescu(node.port, studies.written([*sent.values()], folder / "images"))
        assert done.code == 0, done.output
        by_series = {one["series_instance_uid"]: one for one in node.settled(seconds=200)}
        outcomes = {}
        for name, image in sent.items():
            (outcomes[name],) = by_series[image.SeriesInstanceUID]["outcomes"]
        return Site(model=file, sources=sent, outcomes=outcomes, files=pacs.received())


@pytest.fixture(scope="module")
def site(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Site:
    if line := disc_finder.unusable():
        pytest.skip(line)
    folder = tmp_path_factory.mktemp("site")
    (folder / "models").mkdir()
    file = added(folder, disc_finder.saved(folder / "models" / "discs.pt"))
    return run(folder, file, images())


NAMES = ("radiograph", "overlap", "cine", "photograph")


@pytest.mark.parametrize("name", NAMES)
def test_every_image_is_measured_and_its_results_are_at_the_pacs(site: Site, name: str) -> None:
    outcome = site.outcomes[name]
    assert (outcome["state"], outcome["verdict"]) == ("done", "measured"), outcome["reason"]
    assert {one["state"] for one in outcome["deliveries"]} == {"sent"}
    (report,) = site.results(name, "SR")
    assert "Test discs" in delivered.words(report)


def masks(site: Site, name: str) -> dict[str, tuple[str, int, NDArray[np.bool_]]]:
    """Tracking UID -> label, frame (0: the only one) and mask, by pydicom alone."""
    found = {}
    for seg in site.results(name, "SEG"):
        frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns) > 0
        shared = seg.SharedFunctionalGroupsSequence[0]
        for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
            owner = group if "SegmentIdentificationSequence" in group else shared
            number = int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            image = group.DerivationImageSequence[0].SourceImageSequence[0]
            assert image.ReferencedSOPInstanceUID == site.sources[name].SOPInstanceUID
            segment = seg.SegmentSequence[number - 1]
            key = str(segment.TrackingUID)
            assert key not in found
            found[key] = (
                str(segment.SegmentLabel),
                int(image.get("ReferencedFrameNumber", 0)),
                frame,
            )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_masks_boxes_and_scores_are_exactly_the_model_s(site: Site, name: str) -> None:
    said, stored = site.said(name), masks(site, name)
    (report,) = site.results(name, "SR")
    boxes: dict[str, Dataset] = {}
    for group in reports.groups(report):
        if not reports.of_type(group, "IMAGE"):
            boxes[reports.tracking(group)[1]] = group
    assert set(boxes) == set(stored)
    assert len(stored) == sum(len(one.detections) for one in said) > 0
    for uid, (named, frame, mask) in stored.items():
        found = said[max(frame, 1) - 1]
        (segment,) = (one for one in found.segments if one.definition.label == named)
        (detection,) = (one for one in found.detections if one.segment == named)
        assert np.array_equal(mask, segment.mask.whole())
        assert reports.certainty(boxes[uid]) == pytest.approx(100 * detection.probability, rel=1e-5)
        (outline,) = reports.of_type(boxes[uid], "SCOORD")
        assert outline.GraphicType == "POLYLINE"
        corners = np.reshape(outline.GraphicData, (-1, 2))  # (column, row) from the outer corner
        middle = np.add(detection.box.centre, 0.5)
        half = np.abs(detection.box.edges).sum(axis=0) / 2
        limits = np.clip([middle - half, middle + half], 0, disc_finder.EDGE)
        np.testing.assert_allclose(corners.min(axis=0), limits[0], atol=1e-3)
        np.testing.assert_allclose(corners.max(axis=0), limits[1], atol=1e-3)
        (source,) = outline.ContentSequence[0].ReferencedSOPSequence
        assert source.ReferencedSOPInstanceUID == site.sources[name].SOPInstanceUID
        assert int(source.get("ReferencedFrameNumber", 0)) == frame


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize(
    ("name", "frame", "discs"),
    [
        ("radiograph", 0, DISCS),
        ("photograph", 0, DISCS),
        ("overlap", 0, TOUCHING),
        ("cine", 1, FRAMES[0]),
        ("cine", 2, FRAMES[1]),
    ],
)
def test_each_disc_that_was_drawn_is_there_once(
    site: Site, name: str, frame: int, discs: tuple[Disc, ...]
) -> None:
    stored = [(kind, mask) for kind, place, mask in masks(site, name).values() if place == frame]
    assert len(stored) == len(discs)
    for disc in discs:
        true = disc.mask((disc_finder.EDGE, disc_finder.EDGE))
        kind, mask = max(stored, key=lambda one: dice(one[1], true))
        assert dice(mask, true) > 0.9
        assert kind.startswith("Bright" if disc.kind == BRIGHT else "Grey")


def test_masks_that_overlap_are_in_two_objects(site: Site) -> None:
    found = site.results("overlap", "SEG")
    assert len(found) == len({one.SeriesInstanceUID for one in found}) == 2
    one, other = (mask for _, _, mask in masks(site, "overlap").values())
    assert (one & other).any()


def test_sizes_are_in_millimetres_where_the_image_has_a_spacing(site: Site) -> None:
    (report,) = site.results("radiograph", "SR")
    numbers: dict[str, dict[str, float]] = {}
    for group in reports.groups(report):
        numbers.setdefault(reports.tracking(group)[0], {}).update(reports.values(group))
    (bright,) = (one for name, one in numbers.items() if name == "Bright")
    assert bright["Width"] == pytest.approx(64 * SPACING[1], rel=0.02)
    assert bright["Area"] == pytest.approx(np.pi * 32**2 * SPACING[0] * SPACING[1], rel=0.1)


# What independent programs say


@pytest.mark.dicom3tools
def test_dciodvfy_finds_no_error(site: Site) -> None:
    assert len(site.files) == 9  # four reports, five segmentations
    for file in site.files:
        validators.assert_dciodvfy_finds_no_error(file)


def test_the_shared_check_finds_no_fault_in_the_reports(site: Site) -> None:
    for report in delivered.reports(site.files):
        validators.assert_the_shared_check_passes(report)


# Without torchvision


def test_without_torchvision_the_job_fails_with_the_one_line(tmp_path: Path) -> None:
    if disc_finder.unusable() is None:
        pytest.skip("torchvision is there")
    names = "roi_heads.mask_predictor.mask_fcn_logits"
    file = tmp_path / "models" / "discs.pt"
    file.parent.mkdir()
    torch.save(
        {f"{names}.weight": torch.zeros(3, 256, 1, 1), f"{names}.bias": torch.zeros(3)}, file
    )
    site = run(tmp_path, added(tmp_path, file), {"radiograph": images()["radiograph"]})
    outcome = site.outcomes["radiograph"]
    assert outcome["state"] == "failed"
    assert "kind mask_rcnn needs torchvision: it is not installed" in outcome["reason"]
    assert torchvision_operators.HOW in outcome["reason"]
