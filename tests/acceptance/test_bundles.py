"""The seven bundles with the node: added, edited as a person would, C-STORE in, SEG and SR out.

Their weights are random, so that what they find means nothing: asserted is that it arrives, coded
as the sidecar says, and is what the bundle's own four parts say of the same image. Not covered:
GPUs, real
weights, series roles; voxel by voxel all of them are in tests/integration/test_monai_bundle.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
import torch
from pydicom import Dataset

from inference import phantom, volume
from inference.bundles import recipe
from inference.findings import Acquisition, Findings, Image, PlanarImage
from inference.models.monai_bundle import BundleModel
from inference.phantom import Scan
from service import model_add, sidecar
from tests import bundles
from tests.acceptance import delivered, studies
from tests.node import Node, running
from tests.part10_files import take_apart
from tests.pictures import DX, PHOTO, picture
from tests.raw_peer import RawPeer

pytestmark = [pytest.mark.shared_data, pytest.mark.slow, pytest.mark.timeout(900)]

QUICK = ("segmentation_template", "spleen_ct_segmentation", "ventricular_short_axis_3label")
ADDED_BY_COMMAND = ("spleen_ct_segmentation", "segmentation_template")
EDITS: dict[str, dict[str, dict[str, Any]]] = {  # what a person writes into the sidecar
    "swin_unetr_btcv_segmentation": {
        "options": {"override": {"inferer::roi_size": [64, 64, 64], "inferer::overlap": 0}}
    },
    "wholeBody_ct_segmentation": {"options": {"override": {"inferer::roi_size": [48, 48, 48]}}},
    "ventricular_short_axis_3label": {
        "input": {"modalities": ["CT"]},
        "options": {"override": {"inferer::roi_size": [64, 64]}},
    },
}
PIXELS = np.random.default_rng(5).integers(0, 255, (96, 128, 3), np.uint8)


def slices() -> list[Dataset]:
    """A small CT of three markers; sizes that networks without a sliding window take."""
    grid = phantom.regular((16, 40, 32), (2.6, 1.1, 1.3))
    return phantom.datasets(phantom.markers(grid, base=20), Scan())


def pictures() -> list[Dataset]:
    """A radiograph and a photograph, of a study each."""
    return [
        picture(PIXELS[..., 0], DX, study="radiograph", Modality="DX"),
        picture(PIXELS, PHOTO, study="photograph", colour=True, Modality="ES"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node that came to an end with all that was sent."""

    folder: Path
    outcomes: dict[str, dict[str, Any]]  # by model
    results: list[Dataset]

    def result(self, model: str, modality: str) -> Dataset:
        """The only SEG or SR of a model."""
        instances = {one["sop_instance_uid"] for one in self.outcomes[model]["results"]}
        (found,) = (
            one
            for one in self.results
            if one.SOPInstanceUID in instances and one.Modality == modality
        )
        return found

    def exact(self, model: str, image: Image | PlanarImage) -> Findings:
        """What the bundle's own parts say, in this process."""
        bundle = self.folder / model
        added = sidecar.read(bundle)
        artifact = bundles.described(bundle, added.plain)
        built = recipe.build(
            artifact.files, artifact.description.options, trusted=False, device="cpu"
        )
        return BundleModel(
            recipe=built, description=artifact.description, requirements=artifact.requirements
        ).predict(image)


@pytest.fixture(scope="module")
def site(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bundles")
    models = folder / "models"
    models.mkdir()
    node = Node(folder / "node", extra=configured(models, data))
    for name in bundles.NAMES:
        added(node, bundles.make(name, models, data))
    with running(node):
        send(node.port, studies.written([*slices(), *pictures()], folder / "images"))
        settled = node.settled(seconds=600)
        found = {outcome["model"]: outcome for one in settled for outcome in one["outcomes"]}
        files = sorted((folder / "out").glob("*.dcm"))
        yield Site(folder=models, outcomes=found, results=delivered.objects(files))


def added(node: Node, bundle: Path) -> None:
    """The sidecar written, then edited."""
    if bundle.name in ADDED_BY_COMMAND:
        said = node.command("models", "--add", str(bundle)).stdout
        assert "monai_bundle" in said
    else:
        model_add.add(bundle)
    file = sidecar.path_of(bundle)
    document = tomlkit.parse(file.read_text())
    for table, values in EDITS.get(bundle.name, {}).items():
        for key, value in values.items():
            document[table][key] = value
    file.write_text(tomlkit.dumps(document))


def configured(models: Path, data: Path) -> str:
    """A folder as destination; CT to the five that segment, pictures to those that classify."""
    named = "".join(
        f'[[models]]\nname = "{name}"\nkind = "monai_bundle"\npath = "{models / name}"\n'
        for name in bundles.NAMES
    )
    routes = {
        "CT": bundles.SEGMENTING,
        "DX": ("classification_template",),
        "ES": ("endoscopic_inbody_classification",),
    }
    routed = "".join(
        f'[[routes]]\nname = "{modality}"\nmatch = {{ Modality = "{modality}" }}\n'
        f"models = {list(found)}\ndestinations = ['results']\n"
        for modality, found in routes.items()
    )
    place = models.parent / "out"
    return f'[[destinations]]\nname = "results"\nkind = "folder"\npath = "{place}"\n{named}{routed}'


def send(port: int, files: list[Path]) -> None:
    """All in one association, each answered Success."""
    parts = [part for file in files if (part := take_apart(file.read_bytes(), file.name))]
    pairs = sorted({(part.sop_class, part.transfer_syntax) for part in parts})
    with RawPeer(port) as peer:
        peer.associate([(sop_class, [syntax]) for sop_class, syntax in pairs])
        for part in parts:
            context = peer.context(part.sop_class, part.transfer_syntax)
            status = peer.store(context, part.sop_class, part.sop_instance, part.data_set)
            assert status == 0
        peer.release()


@pytest.mark.parametrize("name", bundles.NAMES)
def test_every_bundle_measures_and_is_delivered(site: Site, name: str) -> None:
    outcome = site.outcomes[name]
    assert (outcome["state"], outcome["verdict"]) == ("done", "measured"), outcome
    report = site.result(name, "SR")
    assert str(report.ConceptNameCodeSequence[0].CodeMeaning) == "Imaging Measurement Report"


@pytest.mark.parametrize("name", QUICK)
def test_the_segments_are_what_the_bundle_says_of_the_image(site: Site, name: str) -> None:
    said = site.exact(name, volume.read(slices()).image).segments
    expected = {one.definition.label: int(one.mask.array.sum()) for one in said}
    found = delivered.voxels(site.result(name, "SEG"))
    total = sum(expected.values())
    differing = sum(abs(found.get(label, 0) - expected[label]) for label in expected)
    assert expected
    assert differing <= 0.01 * total  # the engine's arithmetic against float32 throughout
    assert set(found) - set(expected) == set() or differing > 0


@pytest.mark.parametrize("name", bundles.SEGMENTING)
def test_segments_are_coded_as_the_sidecar_says(site: Site, name: str) -> None:
    labels = {one["name"]: one for one in sidecar.read(site.folder / name).plain["labels"]}
    for segment in site.result(name, "SEG").SegmentSequence:
        (code,) = segment.SegmentedPropertyTypeCodeSequence
        wanted = labels[segment.SegmentLabel]["type"]
        assert [code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning] == list(wanted)


def test_version_and_licence_of_the_model_are_in_the_objects(site: Site) -> None:
    for modality in ("SEG", "SR"):
        text = str(site.result("spleen_ct_segmentation", modality))
        assert "Spleen CT segmentation" in text
        assert "0.5.9" in text


@pytest.mark.parametrize(
    ("name", "modality"),
    [("classification_template", "DX"), ("endoscopic_inbody_classification", "ES")],
)
def test_a_class_is_reported_with_its_probability(site: Site, name: str, modality: str) -> None:
    pixels = PIXELS if modality == "ES" else PIXELS[..., 0]
    image = PlanarImage(
        pixels=pixels if modality == "ES" else pixels.astype(np.int16),
        acquisition=Acquisition(modality=modality),
    )
    (said,) = site.exact(name, image).classifications
    assert said.probability is not None
    report = site.result(name, "SR")
    answers = [one.ConceptCodeSequence[0].CodeValue for one in items(report, "CODE")]
    assert said.answer.value in answers
    numbers = [float(one.MeasuredValueSequence[0].NumericValue) for one in items(report, "NUM")]
    assert min(abs(number - 100 * said.probability) for number in numbers) < 0.01  # percent


def items(content: Dataset, value_type: str) -> Iterator[Dataset]:
    """The content items of a type, at any depth."""
    for item in content.get("ContentSequence", []):
        if item.ValueType == value_type:
            yield item
        yield from items(item, value_type)
