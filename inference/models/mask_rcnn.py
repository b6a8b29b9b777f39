"""Mask R-CNN of torchvision: every object of a planar image with its box, its mask and its score.

A file of weights (a state dict), or a folder with one; no code comes with it. It needs torchvision,
an optional part of the node. What goes in and out: `[options]` of the sidecar
(inference/mask_rcnn/options.py, deploy/docs/MODELS.md).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inference import torchvision_operators
from inference.arrays import intensity, proposals
from inference.arrays.options import refuse_unpinned
from inference.bundles.recipe import state_dict
from inference.description import Description, Label
from inference.engine import device
from inference.engine.precision import Precision
from inference.errors import ModelRefused
from inference.findings import (
    Box,
    Computation,
    Detection,
    Findings,
    PlanarImage,
    Segment,
    Verdict,
    not_found,
)
from inference.mask_rcnn import network, proposal
from inference.mask_rcnn.network import Instance
from inference.mask_rcnn.options import COLOURS, Options, parse
from inference.models import Artifact, Model
from inference.requirements import Requirements

VERSION = "1.0.0"
BRIGHTEST = 255.0  # of a colour, of 8 bits


def propose(path: Path) -> Mapping[str, Any] | None:
    """See `proposal.propose`."""
    return proposal.propose(path)


def check(artifact: Artifact) -> None:
    """Raise ModelRefused for options that are not allowed, and for a file that was not added."""
    options = parse(artifact.description)
    refuse_unpinned(artifact.description, [("file", options.file)])


def lacking(artifact: Artifact) -> tuple[str, ...]:
    """torchvision, where it is not installed or does not fit torch."""
    del artifact
    said = torchvision_operators.lacking(network.KIND)
    return () if said is None else (said,)


def load(settings: Mapping[str, object], artifact: Artifact) -> Model:
    """The network with its weights, on the device that the node chose; raises ModelRefused."""
    del settings
    description, files = artifact.description, artifact.files
    options = parse(description)
    name = proposals.named(files, options.file)
    try:
        weights = state_dict(files.weights(name))
        _refuse_labels(description, network.classes(weights))
        built = network.build(weights, options.network, device.choose(artifact.device).torch)
    except (ModelRefused, TypeError) as error:
        raise ModelRefused(f"{files.path.name}: {error}") from error
    return MaskRcnn(
        requirements=artifact.requirements,
        description=description,
        options=options,
        network=built,
    )


def _refuse_labels(description: Description, count: int) -> None:
    for label in description.labels:
        if not 1 <= label.value < count:
            wrong = f"labels: {label.definition.label}: value {label.value} is none of its classes"
            raise ModelRefused(f"{wrong}; allowed: 1 to {count - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRcnn:
    """See the module."""

    requirements: Requirements
    description: Description
    options: Options
    network: nn.Module

    def predict(self, image: PlanarImage) -> Findings:
        """Every object that the sidecar has a label for, from its threshold on."""
        by_class = {label.value: label for label in self.description.labels}

        def wanted(number: int, score: float) -> bool:
            label = by_class.get(number)
            return label is not None and score >= (label.threshold or 0.0)

        found = network.instances(
            self.network, given(image, self.options), wanted, self.options.mask_threshold
        )
        place = next(self.network.parameters()).device
        return replace(
            findings(tuple(found), self.description),
            computed=Computation(arithmetic=Precision.FLOAT32.value, device=place.type),
        )


def given(image: PlanarImage, options: Options) -> Tensor:
    """(red green blue, row, column), float32: colours from 0 to 1; grey as `options.input` says."""
    if image.pixels.ndim == COLOURS:
        values = torch.from_numpy(np.array(image.pixels, np.float32))
        return values.permute(2, 0, 1).contiguous() / BRIGHTEST
    values = torch.from_numpy(np.array(image.pixels, np.float32))
    clip = intensity.limits(image.pixels, options.input)
    return intensity.coloured([intensity.scaled(values, clip, options.input)], COLOURS)


def findings(found: Sequence[Instance], description: Description) -> Findings:
    """A detection for each object and, where its mask is not empty, a segment for that."""
    by_class = {label.value: label for label in description.labels}
    names = _names(found, by_class)
    detections, segments = [], []
    for one, name in zip(found, names, strict=True):
        definition = by_class[one.number].definition
        masked = bool(one.mask.mask.size)
        if masked:
            segments.append(
                Segment(
                    definition=replace(definition, label=name),
                    mask=one.mask,  # type: ignore[arg-type]  # (a region, as `Segment` says)
                    probability=one.score,
                )
            )
        detections.append(
            Detection(
                definition=definition,
                box=_box(one),
                probability=one.score,
                segment=name if masked else None,
            )
        )
    absent = [one for value, one in by_class.items() if all(value != i.number for i in found)]
    return Findings(
        verdict=Verdict.MEASURED,
        segments=tuple(segments),
        detections=tuple(detections),
        limitations=(
            *description.limits,
            *not_found([label.definition.label for label in absent]),
            *_without_mask(len(detections) - len(segments)),
        ),
    )


def _names(found: Sequence[Instance], by_class: Mapping[int, Label]) -> Iterator[str]:
    """What tells the objects of an image apart: "Cell 1", "Cell 2"; one alone has no number."""
    total, seen = Counter(one.number for one in found), Counter[int]()
    labels = {label.definition.label for label in by_class.values()}
    for one in found:
        name = label = by_class[one.number].definition.label
        while total[one.number] > 1 and name in labels:  # (a class may be called "Cell 1", too)
            seen[one.number] += 1
            name = f"{label} {seen[one.number]}"
        yield name


def _box(one: Instance) -> Box:
    """In (column, row) of pixels whose middles are whole numbers."""
    left, top, right, bottom = one.box
    return Box(
        centre=((left + right - 1) / 2, (top + bottom - 1) / 2),
        edges=((right - left, 0.0), (0.0, bottom - top)),
    )


def _without_mask(count: int) -> tuple[str, ...]:
    return (f"{count} objects have a box and no pixel above the mask threshold.",) if count else ()
