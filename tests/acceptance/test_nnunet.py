"""Two nnU-Net folders on one route, as TotalSegmentator's are joined: C-STORE in, SEGs out.

One is an ensemble with its postprocessing. Random weights: asserted is that what arrives is what
the models say of the same image, and that status says where and how it was computed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import torch
from pydicom import Dataset

from inference import description, phantom, volume
from inference.engine import device
from inference.engine.precision import Precision
from inference.model_files import ModelFiles
from inference.models import Artifact, nnunet
from inference.nnunet.postprocessing import LARGEST
from service import model_add, sidecar
from tests import nnunet_folders
from tests.acceptance import delivered, studies
from tests.acceptance.test_bundles import send
from tests.nnunet_folders import FLAT, Net, Study
from tests.node import Node, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STUDIES = {
    "organs": Study(nets=(FLAT, Net()), dataset="Dataset291_Organs"),
    "vertebrae": Study(
        dataset="Dataset292_Vertebrae",
        labels={"background": 0, "vertebrae_L1": 1, "vertebrae_L2": 2},
        seed=9,
    ),
}
AFTER = "ensembles/ensemble___2d___3d_fullres/postprocessing.json"


def slices() -> list[Dataset]:
    grid = phantom.regular((12, 40, 36), (3.0, 1.4, 1.4))
    return phantom.datasets(phantom.markers(grid, base=20), phantom.Scan())


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A node that came to an end. `outcomes`: by model."""

    folders: dict[str, Path]
    outcomes: dict[str, dict[str, Any]]
    results: list[Dataset]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("nnunet")
    folders = {
        name: nnunet_folders.write(place / "models", study) for name, study in STUDIES.items()
    }
    file = folders["organs"] / AFTER
    file.parent.mkdir(parents=True)
    steps = {"postprocessing_fns": [LARGEST], "postprocessing_kwargs": [{"labels_or_regions": 1}]}
    file.write_text(json.dumps(steps))
    for folder in folders.values():
        model_add.add(folder)
    ensemble(folders["organs"])
    models = "".join(
        f'[[models]]\nname = "{name}"\nkind = "nnunet"\npath = "{folder}"\n'
        for name, folder in folders.items()
    )
    route = (
        f'[[routes]]\nname = "CT"\nmatch = {{ Modality = "CT" }}\nmodels = {list(folders)}\n'
        'destinations = ["results"]\n'
    )
    out = f'[[destinations]]\nname = "results"\nkind = "folder"\npath = "{place / "out"}"\n'
    node = Node(place / "node", extra=out + models + route)
    with running(node):
        send(node.port, studies.written(slices(), place / "images"))
        outcomes = {
            one["model"]: one for each in node.settled(seconds=240) for one in each["outcomes"]
        }
        files = sorted((place / "out").glob("*.dcm"))
        yield Site(folders=folders, outcomes=outcomes, results=delivered.objects(files))


def ensemble(folder: Path) -> None:
    """What a person writes into the sidecar."""
    file = sidecar.path_of(folder)
    document = tomlkit.parse(file.read_text())
    document["options"] = {"ensemble": ["2d", "3d_fullres"], "postprocessing": AFTER}
    file.write_text(tomlkit.dumps(document))


@pytest.mark.parametrize("name", STUDIES)
def test_each_folder_gives_a_segmentation_of_its_own(site: Site, name: str) -> None:
    outcome = site.outcomes[name]
    assert (outcome["state"], outcome["verdict"]) == ("done", "measured"), outcome
    folder = site.folders[name]
    parsed = description.parse(sidecar.read(folder).plain)
    files = ModelFiles(path=folder, digests=parsed.files)
    model = nnunet.load({}, Artifact(description=parsed, files=files))
    said = model.predict(volume.read(slices()).image).segments
    instances = {one["sop_instance_uid"] for one in outcome["results"]}
    (found,) = (
        one for one in site.results if one.SOPInstanceUID in instances and one.Modality == "SEG"
    )
    assert delivered.voxels(found) == {
        one.definition.label: int(one.mask.array.sum()) for one in said
    }


@pytest.mark.parametrize("name", STUDIES)
def test_status_says_where_and_how_it_was_computed(site: Site, name: str) -> None:
    outcome = site.outcomes[name]
    assert outcome["device"] == device.choose().name
    assert outcome["arithmetic"] in set(Precision)
    assert outcome["peak_bytes"] > 0
