"""Bundles on an in-memory image against `monai.bundle`'s own run from file to file, voxel by voxel.

Both start from one oblique stack: ours from DICOM data sets, MONAI's from a NIfTI or PNG file that
is written here with an affine of our own reckoning, and MONAI's evaluator reads, runs, inverts and
saves as `python -m monai.bundle run` does. Random weights: nothing here says that a model is good.
Not covered: GPUs, mixed precision (the evaluator's `amp` does nothing on a CPU).
"""

import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from inference import phantom, regions, volume
from inference.bundles import recipe
from inference.findings import Acquisition, Findings, Image, PlanarImage, Verdict
from inference.models import Artifact
from inference.models.monai_bundle import BundleModel
from inference.phantom import Scan
from tests import bundles
from tests.volumes import turned

pytestmark = [pytest.mark.shared_data, pytest.mark.usefixtures("one_thread")]

SMALL_WINDOW: dict[str, Any] = {  # the same in both runs, where a whole one takes too long
    "swin_unetr_btcv_segmentation": {"inferer::roi_size": [64, 64, 64]},
    "wholeBody_ct_segmentation": {"inferer::roi_size": [48, 48, 48]},
    "ventricular_short_axis_3label": {"inferer::roi_size": [64, 64]},
}
SMALL_IMAGE = {"swin_unetr_btcv_segmentation": (12, 30, 24)}
LIST = {"segmentation_template": "data_list"}  # under which key the files are named
RUN = {"ventricular_short_axis_3label": "evaluating"}


def oblique(shape: tuple[int, int, int] = (16, 40, 32)) -> Image:
    """Three markers on an oblique stack whose three spacings differ; sizes that networks take."""
    right, down = turned((0.2, -0.15, 0.3))
    grid = phantom.regular(shape, (2.6, 1.1, 1.3), right=right, down=down)
    return volume.read(phantom.datasets(phantom.markers(grid, base=20), Scan())).image


def nifti(image: Image, folder: Path) -> Path:
    """The image as a file: (column, row, slice) and RAS mm, doubles (NIfTI-2)."""
    path = folder / "image.nii"
    affine = np.array(image.volume.affine)[:, [2, 1, 0, 3]]
    affine[:2] *= -1
    nibabel.save(nibabel.Nifti2Image(image.volume.array.transpose(2, 1, 0), affine), path)
    return path


def run_by_monai(bundle: Path, output: Path, **overrides: Any) -> None:
    """What `python -m monai.bundle run` does, in this process."""
    from monai.bundle import ConfigWorkflow

    with warnings.catch_warnings(action="ignore"):
        workflow = ConfigWorkflow(
            config_file=str(bundles.configuration_of(bundle)),
            meta_file=str(bundle / "configs" / "metadata.json"),
            workflow_type="infer",
            bundle_root=str(bundle),
            dataset_dir=str(bundle.parent),
            output_dir=str(output),
            run_id=RUN.get(bundle.name, "run"),
            **{"dataloader::num_workers": 0} | overrides,
        )
        workflow.parser["network_def"].pop("img_size", None)  # MONAI no longer takes it
        workflow.initialize()
        workflow.run()
        workflow.finalize()


def saved(output: Path) -> NDArray[np.int32]:
    """The label map that MONAI wrote, in our axes."""
    (file,) = output.rglob("*.nii*")
    written = np.asarray(nibabel.load(file).dataobj).squeeze()
    return np.rint(written).astype(np.int32).transpose(2, 1, 0)


def label_map(findings: Findings, image: Image, values: dict[str, int]) -> NDArray[Any]:
    """The segments as one map again."""
    found = np.zeros(image.volume.spatial_shape, np.int32)
    for segment in findings.segments:
        mask = regions.on_grid(segment.mask, image.volume).whole()
        found[mask] = values[segment.definition.label]
    return found


def reader(bundle: Path) -> dict[str, Any]:
    """ITK is not installed here; nibabel reads the same NIfTI."""
    swin = bundle.name.startswith("swin")
    return {"preprocessing::transforms::0::reader": "NibabelReader"} if swin else {}


def exact(artifact: Artifact) -> BundleModel:
    """The bundle by its own four parts alone, on the CPU."""
    return BundleModel(
        recipe=recipe.build(
            artifact.files, artifact.description.options, trusted=False, device="cpu"
        ),
        description=artifact.description,
        requirements=artifact.requirements,
    )


@pytest.mark.parametrize("name", bundles.SEGMENTING)
def test_a_segmentation_is_that_of_monai_voxel_by_voxel(
    name: str, tmp_path: Path, data: Path
) -> None:
    bundle = bundles.make(name, tmp_path, data)
    image = oblique(SMALL_IMAGE.get(name, (16, 40, 32)))
    override = SMALL_WINDOW.get(name, {})
    file = nifti(image, tmp_path)
    files = {LIST.get(name, "datalist"): [str(file)]}
    run_by_monai(bundle, tmp_path / "out", **files | override | reader(bundle))
    theirs = saved(tmp_path / "out")

    changes = {"options": {"override": override}, "input": {"modalities": ["CT"]}}
    artifact = bundles.artifact(bundle, changes)
    findings = exact(artifact).predict(image)

    values = {label.definition.label: label.value for label in artifact.description.labels}
    ours = label_map(findings, image, values)
    assert findings.verdict is Verdict.MEASURED
    assert len(np.unique(theirs)) > 1, "random weights that say one thing prove nothing"
    np.testing.assert_array_equal(ours, theirs)
    for segment in findings.segments:
        np.testing.assert_array_equal(segment.mask.affine[:3, :3], image.volume.affine[:3, :3])
        assert segment.mask.array.any()


def picture(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    """The pixels as a file that loses none."""
    path = folder / "image.png"
    Picture.fromarray(pixels).save(path)
    return path


def planar(pixels: NDArray[np.uint8], modality: str) -> PlanarImage:
    return PlanarImage(pixels=pixels, acquisition=Acquisition(modality=modality))


def probabilities_by_monai(bundle: Path, file: Path) -> NDArray[np.float32]:
    """The softmax of the bundle's own network after its own reading and preprocessing."""
    from monai.bundle import ConfigParser

    with warnings.catch_warnings(action="ignore"), torch.inference_mode():
        parser = ConfigParser(ConfigParser.load_config_file(bundles.configuration_of(bundle)))
        sample = parser.get_parsed_content("preprocessing")({"image": str(file)})
        network = parser.get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
        logits = parser.get_parsed_content("inferer")(sample["image"][None], network)
    return np.asarray(torch.softmax(logits.as_tensor()[0], dim=0).numpy(), np.float32)


def everything(artifact: Artifact) -> Artifact:
    """The same, with every class said whatever its probability."""
    labels = tuple(replace(label, threshold=0.0) for label in artifact.description.labels)
    return replace(artifact, description=replace(artifact.description, labels=labels))


def test_a_photograph_is_classified_as_monai_does(tmp_path: Path, data: Path) -> None:
    bundle = bundles.make("endoscopic_inbody_classification", tmp_path, data)
    pixels = np.random.default_rng(3).integers(0, 255, (96, 128, 3), np.uint8)
    pixels[:40] //= 4
    file = picture(tmp_path, pixels)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([{"image": str(file), "label": 0}]))
    run_by_monai(bundle, tmp_path / "out", test_json=str(listed))
    with (tmp_path / "out" / "predictions.csv").open() as table:
        (row,) = csv.reader(table)
    theirs = [float(cell) for cell in row[1:]].index(1.0)

    artifact = bundles.artifact(bundle)
    findings = exact(artifact).predict(planar(pixels, "ES"))
    (said,) = findings.classifications
    assert said.answer == artifact.description.labels[theirs].definition.type
    assert said.question.meaning == "Endoscopic inbody classification"
    every = exact(everything(artifact)).predict(planar(pixels, "ES")).classifications
    np.testing.assert_array_equal(
        [one.probability for one in every], probabilities_by_monai(bundle, file)
    )


def test_a_radiograph_is_classified_as_monai_does(tmp_path: Path, data: Path) -> None:
    bundle = bundles.make("classification_template", tmp_path, data)
    pixels = np.random.default_rng(4).integers(0, 255, (128, 96), np.uint8)
    theirs = probabilities_by_monai(bundle, picture(tmp_path, pixels))
    artifact = bundles.artifact(bundle)
    (said,) = exact(artifact).predict(planar(pixels, "DX")).classifications
    assert said.answer == artifact.description.labels[int(theirs.argmax())].definition.type
    every = exact(everything(artifact)).predict(planar(pixels, "DX")).classifications
    np.testing.assert_array_equal([one.probability for one in every], theirs)
    assert sum(one.probability or 0 for one in every) == pytest.approx(1)
