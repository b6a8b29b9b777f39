"""Bare networks and functions as a data scientist would add them: a file, a sidecar, an image."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inference import description, phantom
from inference.findings import Acquisition, Image, PlanarImage
from inference.model_files import ModelFiles
from inference.models import Artifact
from service import model_folder, sidecar
from service.validation import Place
from tests.volumes import turned

STRUCTURE = ["91723000", "SCT", "Anatomical Structure"]


def label(value: int, name: str, **more: Any) -> dict[str, Any]:
    """A label with a code of its own."""
    return {"value": value, "name": name, "type": [name.upper()[:16], "99TEST", name], **more}


def artifact(
    path: Path,
    labels: Sequence[Mapping[str, Any]],
    *,
    options: Mapping[str, Any] | None = None,
    task: str = "segmentation",
    overlapping: bool = False,
    dimensions: int = 3,
    modalities: Sequence[str] = ("CT",),
    roles: Sequence[str] = (),
    trusted: bool = False,
) -> Artifact:
    """What a loader is given for the files at `path` with such a sidecar."""
    raw = {
        "name": "A test's",
        "version": "1",
        "summary": "A test's.",
        "task": task,
        "limits": ["Only a test."],
        "input": {
            "modalities": list(modalities),
            "dimensions": dimensions,
            "series": [{"role": role, "match": {"SeriesDescription": role}} for role in roles],
        },
        "output": {"overlapping": overlapping},
        "labels": [dict(one) for one in labels],
        "options": dict(options or {}),
        "files": model_folder.digests(path),
    }
    parsed = description.parse(sidecar.parse(raw, Place(file=path)).plain)
    files = ModelFiles(path=path, digests=parsed.files)
    return Artifact(description=parsed, files=files, trusted=trusted)


def scripted(network: nn.Module, file: Path) -> Path:
    """The network as a TorchScript file."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch 2.13
        torch.jit.save(torch.jit.script(network), file)
    return file


def oblique(shape: tuple[int, int, int] = (16, 40, 32)) -> Image:
    """Three Gaussian markers, on a stack that lies askew and whose three spacings differ."""
    right, down = turned((0.2, -0.15, 0.3))
    made = phantom.markers(phantom.regular(shape, (2.6, 1.1, 1.3), right=right, down=down))
    return image(made.hu, made.affine)


def image(array: NDArray[Any], affine: NDArray[np.float64], modality: str = "CT") -> Image:
    """An array as an image."""
    volume = hd.Volume(array, affine, "PATIENT", frame_of_reference_uid="2.25.1")
    return Image(volume=volume, acquisition=Acquisition(modality=modality))


def planar(pixels: NDArray[Any], modality: str = "DX") -> PlanarImage:
    """An array as a planar image."""
    return PlanarImage(
        pixels=pixels, acquisition=Acquisition(modality=modality), spacing=(0.5, 0.25)
    )
