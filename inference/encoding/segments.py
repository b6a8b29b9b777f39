"""Segments as segmentations describe them, in groups without overlap, each as small as can be.

OHIF silently drops slices of overlapping segments, so a segment that overlaps an earlier one goes
into the next object that has room for it. The same segments give the same groups.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code

from inference import uids
from inference.encoding import Provenance, common
from inference.encoding.source_headers import Source, put
from inference.errors import EncodingError
from inference.findings import SegmentDefinition
from inference.regions import Region

Labels = NDArray[np.uint8]
MOST_SEGMENTS = 255
CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # a value of VR CS (PS3.5 Table 6.2-1)
KIND = "segmentation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Segments of one object: their places among all, and their numbers (from 1) on the grid."""

    members: tuple[int, ...]
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of several segmentations of a result, from 0; each is a series of its own.

    OHIF loads the last instance of a segmentation series and no other.
    """

    index: int = 0
    count: int = 1
    of: str = ""  # the instance that it is of, when every instance has its own

    @property
    def kind(self) -> str:
        """What its UIDs derive from; the first of a stack's is named as when it is alone."""
        number = f" {self.index + 1}" if self.index and not self.of else ""
        return f"{KIND}{number} {self.of}".rstrip()

    @property
    def order(self) -> int:
        """Of its series number: 0, then those after the report's."""
        return self.index + 1 if self.index else 0

    @property
    def words(self) -> str:
        """What tells it from the others: "(1 of 2)", "" when it is alone."""
        return f"({self.index + 1} of {self.count})" if self.count > 1 else ""


def groups(found: Sequence[Region], names: Sequence[str]) -> tuple[Group, ...]:
    """The regions (of one grid) in as few groups without overlap as a greedy choice needs.

    Raises EncodingError when one is empty or two have the same name.
    """
    if len(set(names)) != len(names):
        raise EncodingError("two segments have the same label")
    labels: list[Labels] = []
    members: list[list[int]] = []
    for index, (region, name) in enumerate(zip(found, names, strict=True)):
        if not region.mask.any():
            raise EncodingError(f"segment {name!r} is empty")
        place = _free(labels, members, region)
        members[place].append(index)
        np.copyto(labels[place][region.box], np.uint8(len(members[place])), where=region.mask)
    return tuple(
        Group(members=tuple(chosen), labels=one)
        for chosen, one in zip(members, labels, strict=True)
    )


def _free(labels: list[Labels], members: list[list[int]], region: Region) -> int:
    """The first group with room for the region; a new one when none has."""
    for place, taken in enumerate(labels):
        if len(members[place]) < MOST_SEGMENTS and not taken[region.box][region.mask].any():
            return place
    labels.append(np.zeros(region.shape, dtype=np.uint8))
    members.append([])
    return len(labels) - 1


def description(
    definition: SegmentDefinition, number: int, *, tracking_uid: str, provenance: Provenance
) -> hd.seg.SegmentDescription:
    """An item of Segment Sequence (PS3.3 C.8.20.4) with its side and the model that found it."""
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=common.bounded(definition.label),
        segmented_property_category=definition.category,
        segmented_property_type=definition.type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=_algorithm(provenance),
        tracking_uid=tracking_uid,
        tracking_id=definition.label,
        display_color=hd.color.CIELabColor.from_rgb(*definition.colour),
    )
    if definition.modifier is not None:
        _modify(described, definition.modifier)
    return described


def _modify(described: hd.seg.SegmentDescription, modifier: Code) -> None:
    kind = described.SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [common.concept(modifier)]


def _algorithm(provenance: Provenance) -> hd.AlgorithmIdentificationSequence:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=common.bounded(provenance.model_name),
        family=provenance.algorithm_family,
        version=common.bounded(provenance.model_version),
        source=common.MANUFACTURER,
    )
    if provenance.parameters:
        put(algorithm[0], "AlgorithmParameters", "; ".join(provenance.parameters))
    return algorithm


def content_label(model_name: str) -> str:
    """Of VR CS: at most 16 upper-case letters, digits, spaces, underscores."""
    return re.sub(r"[^A-Z0-9_ ]", "_", model_name.upper())[: common.SHORT_STRING].strip() or "AI"


def content_description(
    reason: str | None, limitations: Sequence[str], provenance: Provenance
) -> str:
    """One line: what is withheld comes before what made it."""
    parts = [reason, provenance.described, *limitations]
    return common.bounded("; ".join(part for part in parts if part))


def complete(result: Dataset, part: Part, *, source: Source, provenance: Provenance) -> None:
    """Give a segmentation of highdicom what every result has, in place."""
    common.finish(
        result,
        source=source,
        provenance=provenance,
        order=part.order,
        kind=part.kind,
        part=part.words,
    )
    body_part = source.body_part.upper()
    if CODE_STRING.fullmatch(body_part):
        put(result, "BodyPartExamined", body_part)
    organization = uids.derived("dimension organization", result.SOPInstanceUID)
    put(result.DimensionOrganizationSequence[0], "DimensionOrganizationUID", organization)
    for index in result.DimensionIndexSequence:
        put(index, "DimensionOrganizationUID", organization)
