"""Every planar image is named by its instance and frame, and its masks are of its own matrix."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from inference.encoding import Reference
from inference.encoding.source_headers import reference, text
from inference.errors import EncodingError
from inference.findings import Findings, Segment
from inference.pictures import Picture
from inference.planar import View, Views
from inference.regions import Region

ORIENTATION = re.compile(r"[APRLHF]{1,3}\\[APRLHF]{1,3}")  # PS3.3 C.7.6.1.1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One planar image: its instance and frame (from 1), `rows` and `columns`.

    `spacing`: between rows, between columns, mm, None when unknown; `at_detector`: measured there,
    not in the patient. `name`: what a reader calls it among the others, "" when it is alone.
    """

    reference: Reference
    frame: int | None
    rows: int
    columns: int
    spacing: tuple[float, float] | None = None
    at_detector: bool = False
    name: str = ""
    patient_orientation: tuple[str, ...] = ()  # of the rows and the columns, when stated

    @property
    def key(self) -> str:
        """What UIDs of findings in it derive from."""
        frame = "" if self.frame is None else f" frame {self.frame}"
        return f"{self.reference.sop_instance_uid}{frame}"

    @property
    def in_patient(self) -> tuple[float, float] | None:
        """The spacing when it holds in the patient."""
        return None if self.at_detector else self.spacing


def of_views(views: Views, findings: Sequence[Findings]) -> tuple[Sheet, ...]:
    """The views as sheets, in their order; raises EncodingError unless each has its findings."""
    if len(views.views) != len(findings):
        raise EncodingError(f"{len(views.views)} images, but {len(findings)} findings")
    instances = [header.get("SOPInstanceUID") for header in views.headers]
    return tuple(_sheet(view, instances, len(views.views)) for view in views.views)


def tracking_labels(sheet: Sheet, found: Findings) -> dict[str, str]:
    """What the Tracking UID of each segment derives from, by the segment's label.

    The same in all frames of an instance, but for the mask of a detection: nothing says that an
    object of one frame is that of another.
    """
    objects = {one.segment for one in found.detections}
    return {
        label: f"{label!r} in {sheet.key if label in objects else sheet.reference.sop_instance_uid}"
        for label in (one.definition.label for one in found.segments)
    }


def masks(sheet: Sheet, found: Findings) -> dict[str, Region]:
    """The masks of an image by label, axes (row, column).

    Raises EncodingError when one is empty, on another matrix, or two have the same label.
    """
    return dict(_masks(sheet, found.segments))


def _masks(sheet: Sheet, segments: Sequence[Segment]) -> Iterator[tuple[str, Region]]:
    seen = set()
    for segment in segments:
        name = segment.definition.label
        if name in seen:
            raise EncodingError("two segments have the same label")
        mask: object = segment.mask
        if not isinstance(mask, Region) or mask.shape != (sheet.rows, sheet.columns):
            raise EncodingError(f"segment {name!r} is not on the matrix of the image")
        if not mask.mask.any():
            raise EncodingError(f"segment {name!r} is empty")
        seen.add(name)
        yield name, mask


def _sheet(view: View, instances: Sequence[str], count: int) -> Sheet:
    picture = view.picture
    return Sheet(
        reference=reference(view.source.dataset),
        frame=view.source.frame_number,
        rows=picture.rows,
        columns=picture.columns,
        spacing=picture.spacing.millimetres,
        at_detector=picture.spacing.at_detector,
        name=_name(view, instances) if count > 1 else "",
        patient_orientation=_patient_orientation(view.source.dataset),
    )


def _patient_orientation(header: Dataset) -> tuple[str, ...]:
    stated = text(header, "PatientOrientation")
    return tuple(stated.split("\\")) if ORIENTATION.fullmatch(stated) else ()


def _name(view: View, instances: Sequence[str]) -> str:
    number = instances.index(view.source.dataset.get("SOPInstanceUID")) + 1
    frame = view.source.frame_number
    parts = [
        *((f"image {number}",) if len(instances) > 1 or frame is None else ()),
        *((f"frame {frame}",) if frame is not None else ()),
    ]
    seen = _seen_from(view.picture)
    return " ".join(parts) + (f" ({seen})" if seen else "")


def _seen_from(picture: Picture) -> str:
    return " ".join(word for word in (picture.laterality, picture.view) if word)
