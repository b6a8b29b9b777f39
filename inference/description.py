"""A model that comes as files is described by its sidecar: what it is, wants, finds and is called.

The sidecar's plain values (the service has checked their shape) become frozen ones here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydicom.sr.coding import Code

from inference.findings import SegmentDefinition


class Task(StrEnum):
    """What a model answers."""

    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    KEYPOINTS = "keypoints"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One output of a model and what it means.

    `value`: the value in a label map, or the index (from 0) of a channel, class or output.
    `question`: what a class is an answer to; `unit` (UCUM): of an output that is a number.
    `threshold`: probability from which it counts; None: the model's own rule (the largest).
    """

    value: int
    definition: SegmentDefinition
    question: Code | None = None
    unit: Code | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A sidecar's content. `options`: the kind's own, as the sidecar has them."""

    name: str
    version: str
    licence: str
    summary: str
    task: Task
    labels: tuple[Label, ...]
    overlapping: bool  # `value` of a label is a channel, and channels may overlap
    dimensions: int  # 3: volumes; 2: planar images
    modalities: tuple[str, ...]
    axial: bool
    min_slices: int
    max_spacing_mm: float | None
    roles: tuple[str, ...]  # of the series it wants, in the order of its channels; () for one
    limits: tuple[str, ...]
    files: Mapping[str, str]  # path inside the model -> SHA-256
    options: Mapping[str, Any]

    @property
    def definitions(self) -> tuple[SegmentDefinition, ...]:
        """What it can find."""
        return tuple(label.definition for label in self.labels)


def parse(plain: Mapping[str, Any]) -> Description:
    """The description in a sidecar's plain values; KeyError or ValueError: the service's fault."""
    wanted, output = plain["input"], plain["output"]
    return Description(
        name=plain["name"],
        version=plain["version"],
        licence=plain["licence"],
        summary=plain["summary"],
        task=Task(plain["task"]),
        labels=tuple(_label(label) for label in plain["labels"]),
        overlapping=output["overlapping"],
        dimensions=wanted["dimensions"],
        modalities=tuple(wanted["modalities"]),
        axial=wanted["axial"],
        min_slices=wanted["min_slices"],
        max_spacing_mm=wanted["max_spacing_mm"],
        roles=tuple(series["role"] for series in wanted["series"]),
        limits=tuple(plain["limits"]),
        files=dict(plain["files"]),
        options=dict(plain["options"]),
    )


def _label(plain: Mapping[str, Any]) -> Label:
    return Label(
        value=plain["value"],
        definition=SegmentDefinition(
            label=plain["name"],
            category=_code(plain["category"]),
            type=_code(plain["type"]),
            modifier=None if plain["modifier"] is None else _code(plain["modifier"]),
            colour=tuple(plain["colour"]),
        ),
        question=None if plain["question"] is None else _code(plain["question"]),
        unit=None if plain["unit"] is None else _code(plain["unit"]),
        threshold=plain["threshold"],
    )


def _code(parts: Sequence[str]) -> Code:
    value, scheme, meaning = parts
    return Code(value, scheme, meaning)
