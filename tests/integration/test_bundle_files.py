"""Side files and weights of a bundle are its own, as they were added, and never run.

Not covered: code of its own (test_monai_bundle_small.py), what trusts it (test_trust.py).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.bundles import configuration
from inference.errors import ModelRefused
from inference.findings import Verdict
from tests import bundles
from tests.hostile_bundles.pickled import Call
from tests.small_bundles import (
    NETWORK,
    bundle,
    image,
    metadata,
    model,
    written,
)

SHAPED = bundle(
    shape_path="$@bundle_root + '/models/shape.pt'",
    shape="$torch.load(@shape_path, map_location=torch.device('cuda'))",
    network_def={**NETWORK, "channels": "$[int(one) for one in @shape['channels']]"},
)


def shaped(folder: Path, channels: list[int]) -> Path:
    torch.manual_seed(3)
    network = monai_unet(channels)
    written(folder, SHAPED, weights=network.state_dict())
    held = {"channels": np.array(channels), "node": np.ones((2, 2), np.float32), "score": 0.5}
    torch.save(held, folder / "models" / "shape.pt")
    return folder


def monai_unet(channels: list[int]) -> torch.nn.Module:
    from monai.networks.nets import UNet

    return UNet(3, 1, 3, channels, [2])


def test_a_network_is_built_from_a_side_file_of_the_bundle(tmp_path: Path) -> None:
    for channels in ([4, 8], [3, 6]):
        folder = shaped(tmp_path / f"of{channels[0]}", channels)
        found = model(bundles.artifact(folder)).predict(image())
        assert found.verdict is Verdict.MEASURED


def test_a_side_file_that_changed_is_not_read(tmp_path: Path) -> None:
    folder = shaped(tmp_path / "changed", [4, 8])
    artifact = bundles.artifact(folder)
    torch.save({"channels": np.array([3, 6])}, folder / "models" / "shape.pt")
    with pytest.raises(ModelRefused, match=r"shape\.pt changed"):
        model(artifact)


def test_a_side_file_with_code_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    folder = shaped(tmp_path / "code", [4, 8])
    marker = tmp_path / "ran"
    torch.save({"channels": Call(open, str(marker), "w")}, folder / "models" / "shape.pt")
    artifact = bundles.artifact(folder)
    for trusted in (False, True):
        with pytest.raises(ModelRefused, match=r"shape\.pt does not load as weights"):
            model(replace(artifact, trusted=trusted))
    assert not marker.exists()


@pytest.mark.parametrize("form", ["expression", "component", "configuration", "deeper"])
def test_what_a_side_file_says_is_never_run(tmp_path: Path, form: str) -> None:
    """Of a file of plain values MONAI would evaluate texts as it does those of a configuration."""
    marker = tmp_path / "ran"
    hostile: Any = {
        "expression": f"$open({str(marker)!r}, 'w')",
        "component": {"_target_": "builtins.open", "file": str(marker), "mode": "w"},
        "configuration": f"%{marker}.json",
        "deeper": [{"more": [f"$open({str(marker)!r}, 'w')"]}],
    }[form]
    folder = shaped(tmp_path / "says", [4, 8])
    torch.save({"channels": np.array([4, 8]), "more": hostile}, folder / "models" / "shape.pt")
    with pytest.raises(ModelRefused, match=r"shape\.pt holds what MONAI would run"):
        model(bundles.artifact(folder))
    assert not marker.exists()


def test_what_the_metadata_say_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    tree = {
        **SHAPED,
        "shape_path": "$@bundle_root + '/configs/metadata.json'",
        "shape": "$json.loads(pathlib.Path(@shape_path).read_text())",
        "network_def": {**NETWORK, "channels": "$[int(one) for one in @shape['channels']]"},
    }
    stated = {**metadata(), "channels": [4, 8], "more": f"$open({str(marker)!r}, 'w')"}
    folder = written(tmp_path / "says", tree, stated, weights=monai_unet([4, 8]).state_dict())
    with pytest.raises(ModelRefused, match=r"metadata\.json holds what MONAI would run"):
        model(bundles.artifact(folder))
    assert not marker.exists()


def test_a_side_file_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = shaped(tmp_path / "missing", [4, 8])
    (folder / "models" / "shape.pt").unlink()
    with pytest.raises(ModelRefused, match=r"models/shape\.pt is not among the files"):
        model(bundles.artifact(folder))


@pytest.mark.parametrize("path", ["/etc/shape.pt", "models/../../shape.pt", "$open('models/x.pt')"])
def test_other_files_than_the_bundles_own_are_not_loaded(tmp_path: Path, path: str) -> None:
    tree = {**SHAPED, "shape_path": path}
    folder = written(tmp_path / "other", tree, weights={})
    with pytest.raises(ModelRefused, match=r"torch\.load|is not among the files"):
        model(bundles.artifact(folder))


@pytest.mark.parametrize("place", ["../shape.pt", "/etc/hostname", "configs/../../x.json"])
def test_a_configuration_cannot_name_a_side_file_outside_itself(tmp_path: Path, place: str) -> None:
    tree = {**SHAPED, "shape": {configuration.SIDE_FILE: place}}
    with pytest.raises(ModelRefused, match="is not among the files that were added"):
        model(bundles.artifact(written(tmp_path / "outside", tree, weights={})))


# Weights


LOADER = {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/tuned.pt'"}


def test_of_several_weights_those_that_the_bundle_loads(tmp_path: Path) -> None:
    folder = written(tmp_path / "several", bundle(handlers=[LOADER]))
    weights = folder / "models"
    (weights / "model.pt").rename(weights / "tuned.pt")
    torch.save({}, weights / "other.pt")
    artifact = bundles.artifact(folder)
    assert artifact.description.options["weights"] == "models/tuned.pt"
    assert model(artifact).predict(image()).verdict is Verdict.MEASURED


def test_of_several_weights_without_a_word_none_is_guessed(tmp_path: Path) -> None:
    folder = written(tmp_path / "several", bundle())
    (folder / "models" / "model.pt").rename(folder / "models" / "tuned.pt")
    torch.save({}, folder / "models" / "other.pt")
    with pytest.raises(Exception, match="several weights"):
        bundles.artifact(folder)
