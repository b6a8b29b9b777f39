"""MONAI bundles: a folder with configs/inference.json or .yaml and weights, run as it is."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference import calibration
from inference.bundles import (
    answers,
    averages,
    classes,
    coverage,
    detection,
    fast,
    grids,
    needs,
    points,
    prompted,
    proposal,
    recipe,
)
from inference.bundles import options as bundle_options
from inference.bundles.detection import Detector
from inference.bundles.fast import FastBundle
from inference.bundles.grids import Values
from inference.bundles.recipe import Recipe, Sample
from inference.calibration import Calibration, Interval
from inference.description import Description, Task
from inference.engine import device
from inference.engine.precision import Precision
from inference.engine.resampling import Oblique
from inference.engine.sliding_window import UnevenScores
from inference.errors import ModelError, ModelRefused
from inference.findings import Computation, Findings, Image, PlanarImage, Verdict
from inference.models import Artifact, Model
from inference.requirements import Requirements

VERSION = "1.0.0"

ACTIVATIONS = ("softmax", "sigmoid", "none")
WRONG_SIZE = ("must match", "size mismatch", "smaller than kernel", "Expected more than 1 value")


def propose(path: Path) -> Mapping[str, Any] | None:
    """See `proposal.propose`."""
    return proposal.propose(path)


def check(artifact: Artifact) -> None:
    """Raise ModelRefused for options that are not allowed, or do not fit each other."""
    bundle_options.check(artifact.description)
    if artifact.description.task is not Task.DETECTION:
        settled(artifact.description)


def lacking(artifact: Artifact) -> tuple[str, ...]:
    """See `needs.lacking`."""
    description = artifact.description
    return needs.lacking(
        artifact.files,
        description.options,
        detects=description.task is Task.DETECTION,
        trusted=artifact.trusted,
    )


def load(settings: Mapping[str, object], artifact: Artifact) -> Model:  # noqa: ARG001
    """The bundle with its weights, on the GPU where there is one; raises ModelRefused."""
    check(artifact)
    description = artifact.description
    if description.task is Task.DETECTION:
        return _detector(artifact)
    settled(description)
    chosen, options = device.choose(artifact.device), description.options
    built = recipe.build(
        artifact.files, options, trusted=artifact.trusted, device=str(chosen.torch)
    )
    _refuse_roles(built, description)
    asked = prompted.prompts(built.network, [label.value for label in description.labels])
    if asked and any(options.get(name) for name in ("ensemble", "mirror")):
        raise ModelRefused("options.mirror, ensemble: what a network is asked for is not averaged")
    built = classes.decided_by_slabs(replace(built, prompts=asked), options)
    built = averages.averaged(built, artifact.files, options)
    segments = description.task is Task.SEGMENTATION
    return BundleModel(
        recipe=built,
        description=description,
        requirements=artifact.requirements,
        quick=fast.load(built, description, chosen) if segments else None,
    )


def _refuse_roles(built: Recipe, description: Description) -> None:
    keys, roles = built.series_keys, description.roles
    if keys and len(keys) != len(roles):
        raise ModelRefused(
            f"it reads {len(keys)} series ({', '.join(keys)}); [[input.series]] names {len(roles)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How the network's numbers become answers, by the sidecar."""

    activation: str
    calibration: Calibration
    intervals: Mapping[str, Interval]
    points: points.Form


def settled(description: Description) -> Settled:
    """What the options say of the answer; raises ModelRefused for what does not fit together."""
    activation = description.options.get("activation", "none")
    if activation not in ACTIVATIONS:
        raise ModelRefused(f"options.activation is none of {', '.join(ACTIVATIONS)}")
    calibrated, intervals = calibration.of_options(description.options)
    wrong = calibration.refused(calibrated, intervals, activation, description.labels)
    if wrong is not None:
        raise ModelRefused(f"options: {wrong}")
    form = points.form(description.options)
    if form.form == "coordinates" and description.options.get("mirror"):
        raise ModelRefused("options.mirror: coordinates cannot be mirrored back; allowed: []")
    return Settled(activation=activation, calibration=calibrated, intervals=intervals, points=form)


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
        with warnings.catch_warnings(action="ignore"):  # a bundle's own, of the year it was written
            boxes = detection.found(self.detector, image, self.description)
        found = detection.findings(boxes, image, self.description)
        return replace(found, computed=_exactly(self.detector.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleModel:
    """A bundle that was built. `quick`: the engine's way through it, if it has one."""

    recipe: Recipe
    description: Description
    requirements: Requirements
    quick: FastBundle | None = None

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the bundle says of one image."""
        with warnings.catch_warnings(action="ignore"):  # a bundle's own, of the year it was written
            if self.quick is not None and isinstance(image, Image):
                try:
                    return self.quick.findings(image)
                except (Oblique, UnevenScores):
                    pass  # MONAI's own way takes these too
            sample = recipe.prepared(self.recipe, self._given(image))
            try:
                logits = recipe.predicted(self.recipe, sample)
            except (RuntimeError, ValueError) as error:
                return _not_taken(error, sample[self.recipe.image_key])
            said = self._answer(image, sample, logits)
            left_out = coverage.limits(sample[self.recipe.image_key])
            limitations = (*said.limitations, *left_out)
            return replace(said, limitations=limitations, computed=_exactly(self.recipe.device))

    def _given(self, image: Image | PlanarImage) -> Any:
        """What the bundle reads instead of files: an image, or one by each of its keys."""
        keys, roles = self.recipe.series_keys, self.description.roles
        if keys and isinstance(image, Image):
            series = [replace(image, volume=image.roles[role]) for role in roles]
            return {key: grids.tensor(one) for key, one in zip(keys, series, strict=True)}
        return grids.tensor(image, roles, colours=self.description.options.get("colours"))

    def _answer(self, image: Image | PlanarImage, sample: Sample, logits: torch.Tensor) -> Findings:
        seen, given = sample[self.recipe.image_key], settled(self.description)
        if self.description.task is not Task.REGRESSION and not torch.isfinite(logits).all():
            raise ModelError("the network's answer is not finite")  # (it would pass for background)
        if self.description.task is Task.SEGMENTATION:
            result = recipe.finished(self.recipe, sample, logits)
            values = grids.on_grid(result, grids.of_image(image), seen=seen)
            answers.refuse_image(values, max(len(logits), len(self.recipe.prompts)))
            return answers.segmentation(values, image, self.description)
        if self.description.task is Task.KEYPOINTS:
            if given.points.form == "coordinates":
                form = given.points
                return points.of_coordinates(logits, seen, image, self.description, form)
            maps = recipe.finished(self.recipe, sample, logits)
            return points.of_heat_maps(maps, seen, image, self.description)
        flat = logits.reshape(-1)
        if self.description.task is Task.REGRESSION:
            return answers.regression(_array(flat), self.description, given.intervals)
        likely = calibration.probabilities(
            flat, given.activation, given.calibration, self.description.labels
        )
        stated = given.activation != "none"
        return answers.classification(_array(likely), self.description, stated=stated)


def _exactly(place: str | torch.device) -> Computation:
    """As a bundle's own parts compute."""
    return Computation(arithmetic=Precision.FLOAT32.value, device=torch.device(place).type)


def _not_taken(error: Exception, seen: torch.Tensor) -> Findings:
    """The refusal of a network that takes images of some sizes only; any other error goes on."""
    if not any(words in str(error) for words in WRONG_SIZE):
        raise error
    size = " x ".join(str(length) for length in seen.shape[1:])
    reason = f"the network takes no image of {size} voxels"
    return Findings(verdict=Verdict.NOT_ANALYSED, reason=reason)


def _array(numbers: torch.Tensor) -> Values:
    return np.asarray(numbers.numpy(), np.float32)
