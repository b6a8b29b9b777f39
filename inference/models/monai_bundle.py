"""MONAI bundles: a folder with configs/inference.json or .yaml and weights, run as it is."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.bundles import answers, averages, detection, fast, grids, proposal, recipe
from inference.bundles.detection import Detector
from inference.bundles.fast import FastBundle
from inference.bundles.grids import Values
from inference.bundles.recipe import Recipe, Sample
from inference.description import Description, Task
from inference.engine import device
from inference.engine.resampling import Oblique
from inference.engine.sliding_window import UnevenScores
from inference.errors import ModelRefused
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.models import Artifact, Model, Requirements

VERSION = "1.0.0"

ACTIVATIONS = ("softmax", "sigmoid", "none")
WRONG_SIZE = ("must match", "size mismatch", "smaller than kernel", "Expected more than 1 value")
ANSWERED = (Task.SEGMENTATION, Task.CLASSIFICATION, Task.REGRESSION)


def propose(path: Path) -> Mapping[str, Any] | None:
    """See `proposal.propose`."""
    return proposal.propose(path)


def load(settings: Mapping[str, object], artifact: Artifact) -> Model:  # noqa: ARG001
    """The bundle with its weights, on the GPU where there is one; raises ModelRefused."""
    description = artifact.description
    if description.task is Task.DETECTION:
        return _detector(artifact)
    if description.task not in ANSWERED:
        raise ModelRefused(f"bundles that answer with {description.task} are not run yet")
    activation = description.options.get("activation", "none")
    if activation not in ACTIVATIONS:
        raise ModelRefused(f"options.activation is none of {', '.join(ACTIVATIONS)}")
    chosen, options = device.choose(artifact.device), description.options
    built = recipe.build(
        artifact.files, options, trusted=artifact.trusted, device=str(chosen.torch)
    )
    built = averages.averaged(built, artifact.files, options)
    return BundleModel(
        recipe=built,
        description=description,
        requirements=artifact.requirements,
        quick=fast.load(built, description, chosen),
    )


def _detector(artifact: Artifact) -> "DetectionModel":
    description, chosen = artifact.description, device.choose(artifact.device)
    built = detection.build(
        artifact.files, description.options, trusted=artifact.trusted, device=str(chosen.torch)
    )
    return DetectionModel(
        detector=built, description=description, requirements=artifact.requirements
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionModel:
    """A bundle that finds boxes."""

    detector: Detector
    description: Description
    requirements: Requirements

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the bundle detects in one image."""
        unmet = self.requirements.unmet(image)
        if unmet is not None:
            return Findings(verdict=Verdict.NOT_ANALYSED, reason=unmet)
        with warnings.catch_warnings(action="ignore"):  # a bundle's own, of the year it was written
            boxes = detection.found(self.detector, image, self.description)
        return detection.findings(boxes, image, self.description)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleModel:
    """A bundle that was built. `quick`: the engine's way through it, if it has one."""

    recipe: Recipe
    description: Description
    requirements: Requirements
    quick: FastBundle | None = None

    @property
    def arithmetic(self) -> str:
        """Of the network: float32 or bfloat16."""
        return "float32" if self.quick is None else self.quick.choice.precision.value

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the bundle says of one image."""
        unmet = self.requirements.unmet(image)
        if unmet is not None:
            return Findings(verdict=Verdict.NOT_ANALYSED, reason=unmet)
        with warnings.catch_warnings(action="ignore"):  # a bundle's own, of the year it was written
            if self.quick is not None and isinstance(image, Image):
                try:
                    return self.quick.findings(image)
                except (Oblique, UnevenScores):
                    pass  # MONAI's own way takes these too
            colours = self.description.options.get("colours")
            seen = grids.tensor(image, self.description.roles, colours=colours)
            sample = recipe.prepared(self.recipe, seen)
            try:
                logits = recipe.predicted(self.recipe, sample)
            except (RuntimeError, ValueError) as error:
                return _not_taken(error, sample[self.recipe.image_key])
            return self._answer(image, sample, logits)

    def _answer(self, image: Image | PlanarImage, sample: Sample, logits: torch.Tensor) -> Findings:
        if self.description.task is Task.SEGMENTATION:
            result = recipe.finished(self.recipe, sample, logits)
            seen = sample[self.recipe.image_key]
            values = grids.on_grid(result, grids.of_image(image), seen=seen)
            return answers.segmentation(values, image, self.description)
        numbers = _activated(logits, self.description.options.get("activation", "none"))
        if self.description.task is Task.CLASSIFICATION:
            return answers.classification(numbers, self.description)
        return answers.regression(numbers, self.description)


def _not_taken(error: Exception, seen: torch.Tensor) -> Findings:
    """The refusal of a network that takes images of some sizes only; any other error goes on."""
    if not any(words in str(error) for words in WRONG_SIZE):
        raise error
    size = " x ".join(str(length) for length in seen.shape[1:])
    reason = f"the network takes no image of {size} voxels"
    return Findings(verdict=Verdict.NOT_ANALYSED, reason=reason)


def _activated(logits: torch.Tensor, activation: str) -> Values:
    """Probabilities, or the numbers as they are: (output,)."""
    flat = logits.reshape(-1)
    if activation == "softmax":
        flat = torch.softmax(flat, dim=0)
    elif activation == "sigmoid":
        flat = torch.sigmoid(flat)
    return np.asarray(flat.numpy(), np.float32)
