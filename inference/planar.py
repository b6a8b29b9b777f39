"""Instances to planar images: radiographs, ultrasound frames, photographs, each with its source.

Rules, in this order:

1. A series that names several patients or studies is refused.
2. What is no planar image (`pictures`), or cannot be decoded, is set aside with the reason.
3. Images for processing are set aside when there are images for presentation.
4. Images come in the order of Instance Number, then of SOP Instance UID; frames in their own.

Values and colours are the business of `brightness`, spacing that of `pictures`. All images of a
series are in memory together: more than MOST_PIXELS pixels or MOST_VIEWS images are refused.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from inference import attributes, brightness
from inference.errors import DecodeError, InputRefused
from inference.findings import Acquisition, PlanarImage
from inference.frames import Source, Unsuitable
from inference.pictures import Picture, picture_of
from inference.series import SetAside, refuse_strangers

MOST_PIXELS = 2**28  # a gibibyte of float32
MOST_VIEWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One planar image and the instance (and frame) that it comes from."""

    image: PlanarImage
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The planar images of a series, in order of instance number and frame."""

    views: tuple[View, ...]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """The headers of the instances in order, each once."""
        return tuple({id(view.source.dataset): view.source.dataset for view in self.views}.values())


def read(datasets: Sequence[Dataset]) -> Views:
    """The planar images of a series; the input stays as it was.

    Raises InputRefused with the reason when there is none or when they are too many.
    """
    with warnings.catch_warnings(action="ignore"):  # their texts may quote the patient
        return _read(datasets)


def _read(datasets: Sequence[Dataset]) -> Views:
    refuse_strangers(datasets)
    pictures, aside = _pictures(datasets)
    _refuse_too_many(pictures)
    views: list[View] = []
    read_ones = []
    for picture in sorted(pictures, key=lambda one: one.order):
        try:
            views += _views(picture)
        except DecodeError as reason:
            aside.append(SetAside(sop_instance_uid=picture.sop_instance_uid, reason=str(reason)))
        else:
            read_ones.append(picture)
    if not views:
        raise InputRefused(_nothing(aside))
    return Views(views=tuple(views), set_aside=tuple(aside), notes=tuple(_notes(read_ones)))


def _pictures(datasets: Sequence[Dataset]) -> tuple[list[Picture], list[SetAside]]:
    pictures: list[Picture] = []
    aside: list[SetAside] = []
    for dataset in datasets:
        try:
            pictures.append(picture_of(dataset))
        except Unsuitable as reason:
            named = attributes.text(dataset, "SOPInstanceUID") or ""
            aside.append(SetAside(sop_instance_uid=named, reason=str(reason)))
    shown = [picture for picture in pictures if not picture.for_processing]
    if not shown or len(shown) == len(pictures):
        return pictures, aside
    beside = "for processing, beside images for presentation"
    return shown, aside + [
        SetAside(sop_instance_uid=picture.sop_instance_uid, reason=beside)
        for picture in pictures
        if picture.for_processing
    ]


def _refuse_too_many(pictures: Sequence[Picture]) -> None:
    count, size = sum(one.frames for one in pictures), sum(one.pixels for one in pictures)
    if count > MOST_VIEWS:
        raise InputRefused(f"{count} planar images; at most {MOST_VIEWS} are read at once")
    if size > MOST_PIXELS:
        raise InputRefused(
            f"{count} planar images of {size} pixels; at most {MOST_PIXELS} are read"
        )


def _nothing(aside: Sequence[SetAside]) -> str:
    if not aside:
        return "no instances"
    counts = Counter(item.reason for item in aside)
    return "no planar images: " + "; ".join(f"{n} x {reason}" for reason, n in counts.items())


def _views(picture: Picture) -> list[View]:
    header = attributes.header(picture.dataset)
    acquisition = _acquisition(picture.dataset)
    return [
        View(
            image=PlanarImage(
                pixels=pixels,
                acquisition=acquisition,
                spacing=picture.spacing.millimetres,
                at_detector=picture.spacing.at_detector,
                view=picture.view,
                laterality=picture.laterality,
            ),
            source=Source(dataset=header, frame_number=index + 1 if picture.frames > 1 else None),
        )
        for index, pixels in enumerate(brightness.frames(picture))
    ]


def _acquisition(dataset: Dataset) -> Acquisition:
    return Acquisition(
        modality=attributes.text(dataset, "Modality") or "",
        manufacturer=attributes.text(dataset, "Manufacturer"),
    )


def _notes(pictures: Sequence[Picture]) -> Iterator[str]:
    """What a reader must know of the images that were read, each remark once."""
    remarks = {
        "text may be burned into the pixels (Burned In Annotation is YES)": any(
            attributes.text(one.dataset, "BurnedInAnnotation") == "YES" for one in pictures
        ),
        "pixel spacing holds at the detector: in the patient lengths are smaller": any(
            one.spacing.at_detector for one in pictures
        ),
        "images for processing, not for presentation": any(one.for_processing for one in pictures),
        "lossy compression (0028,2110) was applied before the images came": any(
            attributes.text(one.dataset, "LossyImageCompression") == "01" for one in pictures
        ),
    }
    yield from (remark for remark, applies in remarks.items() if applies)
    yield from dict.fromkeys(one.spacing.note for one in pictures if one.spacing.note is not None)
