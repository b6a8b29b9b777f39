"""A segmentation object back to segments on the grid of an image, as a viewer would place them."""

from collections.abc import Iterator

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.coding import Code

from inference.findings import Segment, SegmentDefinition


def segments(result: Dataset, onto: hd.VolumeGeometry) -> tuple[Segment, ...]:
    """The segments of a BINARY segmentation on the grid `onto`, axes (slice, row, column).

    Raises RuntimeError when the object's grid is not `onto`'s but for flips and crops.
    """
    seg = hd.seg.Segmentation.from_dataset(result)
    return tuple(_segments(seg, onto))


def _segments(seg: hd.seg.Segmentation, onto: hd.VolumeGeometry) -> Iterator[Segment]:
    for number in seg.segment_numbers:
        found = seg.get_volume(segment_numbers=[number], combine_segments=True)
        mask = found.match_geometry(onto)
        yield Segment(
            definition=_definition(seg.get_segment_description(number)),
            mask=mask.with_array(mask.array.astype(bool)),
        )


def _definition(described: Dataset) -> SegmentDefinition:
    kind = described.SegmentedPropertyTypeCodeSequence[0]
    modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence")
    colour = described.get("RecommendedDisplayCIELabValue")
    return SegmentDefinition(
        label=str(described.SegmentLabel),
        category=_code(described.SegmentedPropertyCategoryCodeSequence[0]),
        type=_code(kind),
        modifier=_code(modifiers[0]) if modifiers else None,
        colour=_rgb(colour) if colour is not None else (255, 0, 0),
    )


def _code(item: Dataset) -> Code:
    return Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)


def _rgb(cielab: list[int]) -> tuple[int, int, int]:
    red, green, blue = np.asarray(
        hd.color.CIELabColor.from_dicom_value(tuple(cielab)).to_rgb(), int
    ).tolist()
    return red, green, blue
