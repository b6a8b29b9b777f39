"""Key points are the tops of heat maps; a label whose map has no top is named, with the reason."""

from collections.abc import Callable, Iterable

from inference import peaks
from inference.description import Description, Label
from inference.findings import Findings, Keypoint, Point, Verdict, not_found
from inference.peaks import Index, Top


def findings(
    tops: Iterable[tuple[Label, Top]], located: Callable[[Index], Point], description: Description
) -> Findings:
    """`located`: an index into the maps' grid, to a part of a voxel, as a place of the image.

    A top below its label's threshold, or of a flat map, is no point.
    """
    keypoints, absent = [], []
    for label, top in tops:
        lacking = top.lacking(label.threshold)
        if lacking is not None:
            absent.append(f"{label.definition.label} ({lacking})")
            continue
        keypoints.append(
            Keypoint(
                definition=label.definition,
                position=located(top.place),
                probability=peaks.probability(top.height),
            )
        )
    return Findings(
        verdict=Verdict.MEASURED,
        keypoints=tuple(keypoints),
        limitations=(*description.limits, *not_found(absent)),
    )
