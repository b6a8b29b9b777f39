"""What came back, for people: a line an object, the measurements in words, and a picture.

Reads the result files as the PACS received them, never what the node knows of them.
"""

from collections.abc import Sequence
from pathlib import Path

import pydicom
from PIL import Image as Picture
from pydicom.errors import InvalidDicomError
from pydicom.uid import SegmentationStorage
from rich.console import Console

from inference import attributes, volume
from inference.encoding import readback, summary
from inference.errors import InputRefused
from inference.montage import montage


def show(console: Console, received: Path, *, images: Path, picture: Path) -> None:
    """Print the objects in `received`; draw the segments over their images into `picture`."""
    results = [(pydicom.dcmread(path), path) for path in received.iterdir()]
    results.sort(key=lambda result: result[0].SOPClassUID != SegmentationStorage)
    console.print("\nWhat came back")
    for result, path in results:
        console.print(f"  {line(result)}  {path}", markup=False)
    segmentations = [r for r, _ in results if r.SOPClassUID == SegmentationStorage]
    reports = [r for r, _ in results if r.SOPClassUID != SegmentationStorage]
    console.print("\nIn words")
    for sentence in (sentence for report in reports for sentence in summary.sentences(report)):
        console.print(f"  {sentence}", markup=False)
    for result in [one for one in segmentations if summary.in_patient(one)][:1]:
        console.print(f"\nThe images with their segments: {draw(result, images, picture)}")


def line(result: pydicom.Dataset) -> str:
    """One object: kind, SOP class, label and size of each segment."""
    if result.SOPClassUID != SegmentationStorage:
        kind, found = "measurement_report", str(result.SeriesDescription)
    else:
        kind = "segmentation"
        found = ", ".join(f"{s.label} {s.size}" for s in summary.segments(result))
    return f"{kind:18}  {result.SOPClassUID.name}  {found}"


def draw(result: pydicom.Dataset, images: Path, picture: Path) -> Path:
    """A montage of the series that a segmentation was made from, as PNG."""
    wanted = result.ReferencedSeriesSequence[0].SeriesInstanceUID
    image = volume.read(_series(images, wanted)).image.volume
    Picture.fromarray(montage(image, readback.segments(result, image.get_geometry()))).save(picture)
    return picture


def _series(folder: Path, uid: str) -> Sequence[pydicom.Dataset]:
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        try:
            dataset = attributes.parse(path)
        except (InvalidDicomError, InputRefused):
            continue
        if dataset.get("SeriesInstanceUID") == uid:
            found.append(dataset)
    return found
