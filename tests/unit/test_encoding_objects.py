"""Objects of planar images: each one's box and mask are one thing, in SEG and SR, in every frame.

Not covered: networks that find them (tests/integration/test_mask_rcnn.py), validators
(tests/acceptance/test_mask_rcnn.py).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from inference import planar, regions
from inference.encoding import measurement_report, segmentation, segments
from inference.errors import EncodingError
from inference.findings import Box, Detection, Findings, Segment, Verdict
from inference.planar import Views
from tests import encoded, reports
from tests.pictures import CINE, DX, picture

SHAPE = (24, 32)
Mask = NDArray[np.bool_]


def series(frames: int | None = None) -> Views:
    size = SHAPE if frames is None else (frames, *SHAPE)
    kind = DX if frames is None else CINE
    return planar.read([picture(np.zeros(size, np.uint8), kind, frames=frames)])


def squares(*places: tuple[int, int], size: int = 6) -> Findings:
    """An object of `size` pixels a side at each (row, column), its name a number."""
    masks = []
    for row, column in places:
        mask = np.zeros(SHAPE, np.bool_)
        mask[row : row + size, column : column + size] = True
        masks.append(mask)
    names = [f"Cell {number}" for number in range(1, len(places) + 1)]
    half = (size - 1) / 2
    return Findings(
        verdict=Verdict.MEASURED,
        segments=tuple(
            Segment(
                definition=replace(encoded.NODULE, label=name),
                mask=regions.of_mask(mask),  # type: ignore[arg-type]
                probability=0.75,
            )
            for name, mask in zip(names, masks, strict=True)
        ),
        detections=tuple(
            Detection(
                definition=replace(encoded.NODULE, label="Cell"),
                box=Box(
                    centre=(column + half, row + half),
                    edges=((float(size), 0.0), (0.0, float(size))),
                ),
                probability=0.75,
                segment=name,
            )
            for name, (row, column) in zip(names, places, strict=True)
        ),
    )


def results(views: Views, found: Sequence[Findings]) -> tuple[tuple[Dataset, ...], Dataset]:
    objects = segmentation.encode_views(views, found, provenance=encoded.PROVENANCE)
    report = measurement_report.encode_views(
        views, found, provenance=encoded.PROVENANCE, segmentations=objects
    )
    return objects, report


def tracked(objects: Sequence[Dataset]) -> dict[str, str]:
    """Tracking UID of each segment -> its label."""
    return {
        str(one.TrackingUID): str(one.SegmentLabel)
        for seg in objects
        for one in seg.SegmentSequence
    }


def test_box_and_mask_of_an_object_have_one_identity() -> None:
    objects, report = results(series(), [squares((2, 3), (14, 20))])
    uids = tracked(objects)
    assert sorted(uids.values()) == ["Cell 1", "Cell 2"]
    by_uid: dict[str, list[Dataset]] = {}
    for group in reports.groups(report):
        name, uid = reports.tracking(group)
        assert uids[uid] == name
        by_uid.setdefault(uid, []).append(group)
    for of_mask, of_box in by_uid.values():
        assert reports.of_type(of_mask, "IMAGE")
        (outline,) = reports.of_type(of_box, "SCOORD")
        assert outline.GraphicType == "POLYLINE"
        assert reports.certainty(of_mask) == reports.certainty(of_box) == 75
    corners = {
        tuple(np.reshape(outline.GraphicData, (-1, 2)).min(axis=0))
        for _, of_box in by_uid.values()
        for outline in reports.of_type(of_box, "SCOORD")
    }
    assert corners == {(3.0, 2.0), (20.0, 14.0)}  # (column, row) of outer corners


def test_objects_that_overlap_are_whole_in_objects_of_their_own() -> None:
    found = squares((2, 3), (5, 5), (15, 20))
    objects, report = results(series(), [found])
    assert [len(one.SegmentSequence) for one in objects] == [2, 1]
    assert len({one.SeriesInstanceUID for one in objects}) == 2
    counts = {
        str(seg.SegmentSequence[0].SegmentLabel): int(np.atleast_3d(seg.pixel_array).sum())
        for seg in objects
    }
    assert counts == {"Cell 1": 72, "Cell 2": 36}
    assert {reports.tracking(one)[1] for one in reports.groups(report)} == set(tracked(objects))


def test_objects_of_two_frames_are_not_one_because_their_names_are() -> None:
    views = series(2)
    objects, report = results(views, [squares((2, 3)), squares((15, 20))])
    (seg,) = objects
    assert [str(one.SegmentLabel) for one in seg.SegmentSequence] == ["Cell 1", "Cell 1"]
    assert len(tracked(objects)) == 2
    frames = {
        int(one.SegmentIdentificationSequence[0].ReferencedSegmentNumber): int(
            one.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        )
        for one in seg.PerFrameFunctionalGroupsSequence
    }
    assert frames == {1: 1, 2: 2}
    assert {reports.tracking(one)[1] for one in reports.groups(report)} == set(tracked(objects))


def test_a_structure_is_the_same_in_all_frames() -> None:
    both = [replace(one, detections=()) for one in (squares((2, 3)), squares((15, 20)))]
    (seg,), _ = results(series(2), both)
    assert len(seg.SegmentSequence) == 1


def test_more_objects_than_an_object_has_segments_go_into_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 3)
    places = [(row, column) for row in (1, 12) for column in (1, 11, 21)]
    objects, _ = results(series(), [squares(*places)])
    assert [len(one.SegmentSequence) for one in objects] == [3, 3]


@pytest.mark.parametrize("named", ["Cell 9", "Cell 2"])
def test_a_detection_whose_mask_is_none_or_another_s_is_refused(named: str) -> None:
    found = squares((2, 3), (14, 20))
    first, second = found.detections
    wrong = replace(found, detections=(replace(first, segment=named), second))
    with pytest.raises(EncodingError, match="mask is no segment"):
        results(series(), [wrong])


def test_the_same_objects_give_the_same_bytes() -> None:
    first, second = (results(series(), [squares((2, 3), (5, 5))]) for _ in range(2))
    assert [one.to_json() for one in (*first[0], first[1])] == [
        one.to_json() for one in (*second[0], second[1])
    ]
