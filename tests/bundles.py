"""Bundles of the zoo as a data scientist would have them: their configuration, random weights.

The weights are those of a freshly made network, seeded, in the file that the bundle loads.
"""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inference import description
from inference.bundles import configuration
from inference.model_files import ModelFiles
from inference.models import Artifact
from service import model_add, sidecar
from service.validation import Place

SEGMENTING = (
    "segmentation_template",
    "spleen_ct_segmentation",
    "swin_unetr_btcv_segmentation",
    "ventricular_short_axis_3label",
    "wholeBody_ct_segmentation",
)
CLASSIFYING = ("classification_template", "endoscopic_inbody_classification")
NAMES = (*SEGMENTING, *CLASSIFYING)
SEED = 7


def make(name: str, folder: Path, shared: Path) -> Path:
    """A copy of the bundle in `folder`, unmodified, with weights: models/model.pt."""
    bundle = folder / name
    shutil.copytree(shared / "bundles" / name, bundle)
    for path in bundle.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (bundle / "models").mkdir()
    torch.save(network(bundle).state_dict(), bundle / "models" / "model.pt")
    return bundle


def configuration_of(bundle: Path) -> Path:
    """Its inference configuration."""
    return next(bundle / name for name in configuration.NAMES if (bundle / name).exists())


def network(bundle: Path) -> torch.nn.Module:
    """The bundle's network as MONAI builds it, with seeded random weights."""
    from monai.bundle import ConfigParser

    with warnings.catch_warnings(action="ignore"):
        parser = ConfigParser(ConfigParser.load_config_file(configuration_of(bundle)))
        parser["network_def"].pop("img_size", None)  # MONAI no longer takes it
        torch.manual_seed(SEED)
        made: torch.nn.Module = parser.get_parsed_content("network_def")
    return made


def artifact(bundle: Path, changes: dict[str, Any] | None = None) -> Artifact:
    """The bundle as the node has it once it was added and `changes` made to its sidecar."""
    _, proposed = model_add.proposal(bundle)
    plain = model_add.drafted(bundle, proposed).unwrap()
    for key, value in (changes or {}).items():
        plain[key] = {**plain[key], **value} if isinstance(value, dict) else value
    return described(bundle, sidecar.parse(plain, Place(file=sidecar.path_of(bundle))).plain)


def described(bundle: Path, plain: Mapping[str, Any]) -> Artifact:
    """The bundle as its sidecar describes it."""
    parsed = description.parse(plain)
    return Artifact(description=parsed, files=ModelFiles(path=bundle, digests=parsed.files))
