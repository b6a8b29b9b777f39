"""Instances to planar images: radiographs, ultrasound frames, photographs, each with its source.

Rules, in this order:

1. A series that names several patients or studies is refused.
2. What is no planar image (`pictures`), or cannot be decoded, is set aside with the reason.
3. Images for processing are set aside when there are images for presentation.
4. Images come in the order of Instance Number, then of SOP Instance UID; frames in their own.

Values and colours are the business of `brightness`, spacing that of `pictures`. One image is in
memory at a time, however many a series has; one of more than MOST_PIXELS pixels is set aside, and a
series of more than MOST_VIEWS images is refused.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from pydicom.dataset import Dataset

from inference import attributes, brightness
from inference.brightness import Pixels
from inference.errors import DecodeError, InputRefused
from inference.findings import Acquisition, PlanarImage
from inference.frames import Source, Unsuitable
from inference.pictures import Picture, picture_of
from inference.series import SetAside, refuse_strangers

MOST_PIXELS = 2**28  # of one image: a gibibyte of float32
MOST_VIEWS = 2000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One planar image, not decoded, and the instance (and frame) that it comes from."""

    picture: Picture
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
    """The planar images of a series by what their headers state; the input stays as it was.

    Raises InputRefused with the reason when there is none or when they are too many.
    """
    with warnings.catch_warnings(action="ignore"):  # their texts may quote the patient
        refuse_strangers(datasets)
        pictures, aside = _pictures(datasets)
        count = sum(one.frames for one in pictures)
        if count > MOST_VIEWS:
            raise InputRefused(f"{count} planar images; at most {MOST_VIEWS} are read")
        pictures.sort(key=lambda one: one.order)
        return _views([view for one in pictures for view in _of_picture(one)], aside)


def each(views: Views, see: Callable[[PlanarImage], T]) -> tuple[Views, tuple[T, ...]]:
    """Those that can be decoded, and what `see` gave of each, which has it alone in memory.

    What cannot be decoded is set aside, an instance with all its frames. Raises InputRefused when
    none is left, and what `see` raises.
    """
    kept: list[View] = []
    seen: list[T] = []
    aside = list(views.set_aside)
    for _, group in groupby(views.views, key=lambda view: id(view.picture)):
        frames = list(group)
        try:
            found = _seen(frames[0].picture, see)
        except DecodeError as reason:
            named = frames[0].picture.sop_instance_uid
            aside.append(SetAside(sop_instance_uid=named, reason=str(reason)))
        else:
            seen += found
            kept += frames
    return _views(kept, aside), tuple(seen)


def _seen(picture: Picture, see: Callable[[PlanarImage], T]) -> list[T]:
    found = []
    for image in _images(picture, range(picture.frames)):
        found.append(see(image))
        del image  # before the next is decoded
    return found


def images(views: Views, places: Sequence[int]) -> Iterator[PlanarImage]:
    """The images at these places, ascending, one after the other; raises DecodeError."""
    chosen = [views.views[place] for place in places]
    for _, group in groupby(chosen, key=lambda view: id(view.picture)):
        frames = list(group)
        indices = [(view.source.frame_number or 1) - 1 for view in frames]
        yield from _images(frames[0].picture, indices)


def _views(found: Sequence[View], aside: Sequence[SetAside]) -> Views:
    if not found:
        raise InputRefused(_nothing(aside))
    pictures = list({id(view.picture): view.picture for view in found}.values())
    return Views(views=tuple(found), set_aside=tuple(aside), notes=tuple(_notes(pictures)))


def _pictures(datasets: Sequence[Dataset]) -> tuple[list[Picture], list[SetAside]]:
    pictures: list[Picture] = []
    aside: list[SetAside] = []
    for dataset in datasets:
        try:
            pictures.append(_bounded(picture_of(dataset)))
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


def _bounded(picture: Picture) -> Picture:
    size = picture.rows * picture.columns
    if size > MOST_PIXELS:
        raise Unsuitable(f"{size} pixels; at most {MOST_PIXELS} are read")
    return picture


def _nothing(aside: Sequence[SetAside]) -> str:
    if not aside:
        return "no instances"
    counts = Counter(item.reason for item in aside)
    return "no planar images: " + "; ".join(f"{n} x {reason}" for reason, n in counts.items())


def _of_picture(picture: Picture) -> Iterator[View]:
    header = attributes.header(picture.dataset)
    for index in range(picture.frames):
        number = index + 1 if picture.frames > 1 else None
        yield View(picture=picture, source=Source(dataset=header, frame_number=number))


def _images(picture: Picture, indices: Sequence[int]) -> Iterator[PlanarImage]:
    """These frames (from 0) of an instance, decoded one after the other."""
    acquisition = _acquisition(picture.dataset)
    frames = brightness.frames(picture, indices)
    while (pixels := _next(frames)) is not None:
        yield PlanarImage(
            pixels=pixels,
            acquisition=acquisition,
            spacing=picture.spacing.millimetres,
            at_detector=picture.spacing.at_detector,
            view=picture.view,
            laterality=picture.laterality,
        )
        del pixels


def _next(frames: Iterator[Pixels]) -> Pixels | None:
    with warnings.catch_warnings(action="ignore"):  # their texts may quote the patient
        return next(frames, None)


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
