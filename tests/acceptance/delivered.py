"""What a destination received, read without our own readers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset

from tests.part10_files import take_apart

VOLUME, GROUP, TRACKING_IDENTIFIER = "118565006", "125007", "112039"


def objects(files: Iterable[Path]) -> list[Dataset]:
    """The objects in the files, SEG before SR, by Instance Number."""
    found = [pydicom.dcmread(file) for file in files]
    return sorted(found, key=lambda one: (one.Modality, one.InstanceNumber))


def reports(files: Iterable[Path]) -> list[Path]:
    """Those of the files that are reports, of which there are some."""
    found = [file for file in files if objects([file])[0].Modality == "SR"]
    assert found
    return found


def data_sets(files: Iterable[Path]) -> dict[str, bytes]:
    """SOP Instance UID -> data set bytes, without what the receiver wrote before them."""
    return dict(data_set(file.read_bytes()) for file in files)


def data_set(raw: bytes) -> tuple[str, bytes]:
    """SOP Instance UID and data set of one file."""
    part = take_apart(raw, "a delivered object")
    assert part is not None
    return part.sop_instance, part.data_set


def voxels(seg: Dataset) -> dict[str, int]:
    """Segment label -> its voxels, counted in the bits of Pixel Data (PS3.5 8.1.1)."""
    labels = {segment.SegmentNumber: segment.SegmentLabel for segment in seg.SegmentSequence}
    counts: Counter[str] = Counter(dict.fromkeys(labels.values(), 0))
    for groups, bits in zip(seg.PerFrameFunctionalGroupsSequence, _frames(seg), strict=True):
        counts[labels[_segment_number(seg, groups)]] += int(bits.sum())
    return dict(counts)


def _segment_number(seg: Dataset, groups: Dataset) -> int:
    """Of a frame; in the shared functional groups when there is one segment only."""
    place = groups if "SegmentIdentificationSequence" in groups else _shared(seg)
    return int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _shared(seg: Dataset) -> Dataset:
    found: Dataset = seg.SharedFunctionalGroupsSequence[0]
    return found


def _frames(seg: Dataset) -> NDArray[np.uint8]:
    assert (seg.SegmentationType, seg.BitsAllocated) == ("BINARY", 1)
    shape = int(seg.NumberOfFrames), int(seg.Rows) * int(seg.Columns)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    return bits[: shape[0] * shape[1]].reshape(shape)


def voxel_millilitres(seg: Dataset) -> float:
    """The volume of one voxel, by the shared Pixel Measures."""
    measures = _shared(seg).PixelMeasuresSequence[0]
    row, column = measures.PixelSpacing
    return float(row) * float(column) * float(measures.SpacingBetweenSlices) / 1000


def volumes(report: Dataset) -> dict[str, float]:
    """Tracking Identifier of each Measurement Group -> its Volume, as the report states it."""
    found = {}
    for group in (item for item in items(report) if concept(item) == GROUP):
        names = [i.TextValue for i in items(group) if concept(i) == TRACKING_IDENTIFIER]
        for number in (item for item in items(group) if concept(item) == VOLUME):
            found[names[0]] = float(number.MeasuredValueSequence[0].NumericValue)
    return found


def items(content: Dataset) -> Iterator[Dataset]:
    """Every content item below, in order."""
    for item in content.get("ContentSequence", ()):
        yield item
        yield from items(item)


def concept(item: Dataset) -> str:
    """The code value of a content item's name."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def words(report: Dataset) -> str:
    """Every text of a report."""
    return "\n".join(str(item.TextValue) for item in items(report) if "TextValue" in item)
