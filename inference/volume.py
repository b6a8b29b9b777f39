"""Instances to an image with its affine: every voxel within a tenth of a voxel of its true place.

What cannot be placed so is refused with the reason: which slices, how far apart. The rules are in
`series` (which images), `geometry` (where they are) and `pixels` (what their values mean); here:

- copies (same place, same pixels) are dropped; different images at one place, gaps, uneven steps
  and tilt are refused, unless one acquisition among several clearly is the stack;
- slices run along +(right x down) of Image Orientation (Patient), from feet to head when axial;
- values are int16 when every one of them is a whole number that fits, else float32.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from inference import attributes, geometry, pixels, series
from inference.findings import SEVERAL, Acquisition, Image
from inference.frames import Frame, Source
from inference.geometry import Irregular, Planes
from inference.series import Chosen, SetAside

Array = NDArray[np.int16] | NDArray[np.float32]
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """An image and where each of its slices comes from."""

    image: Image
    sources: tuple[Source, ...]  # in slice order; headers without pixel data
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def headers(self) -> tuple[Dataset, ...]:
        """The headers of the instances in slice order, each once."""
        return tuple({id(source.dataset): source.dataset for source in self.sources}.values())


def read(datasets: Sequence[Dataset]) -> Stack:
    """A series as a regular stack, axes (slice, row, column), LPS mm; the input stays as it was.

    Raises InputRefused with the reason, DecodeError for pixel data that nothing here decodes.
    Reading the files with `defer_size` keeps only one slice's pixel data in memory.
    """
    with warnings.catch_warnings(action="ignore"):  # their texts may quote the patient
        return _read(datasets)


def _read(datasets: Sequence[Dataset]) -> Stack:
    chosen = series.choose(datasets)
    try:
        planes, copies, affine = _arrange(chosen)
    except Irregular as problem:
        chosen = series.one_acquisition(chosen, str(problem))
        planes, copies, affine = _arrange(chosen)
    frames = planes.frames
    pixels.check_size(frames)
    array, padding = _voxels(frames)
    frame_of_reference_uid = frames[0].frame_of_reference_uid
    geometry_of_volume = hd.VolumeGeometry(
        affine=affine,
        spatial_shape=array.shape,
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference_uid,
    )
    image = Image(
        volume=geometry_of_volume.with_array(array),
        acquisition=acquisition(frames),
        padding=None if padding is None else geometry_of_volume.with_array(padding),
    )
    return Stack(
        image=image,
        sources=_sources(frames),
        set_aside=(*chosen.set_aside, *copies),
        notes=(*chosen.notes, *_notes(frames)),
    )


def _arrange(chosen: Chosen) -> tuple[Planes, tuple[SetAside, ...], NDArray[np.float64]]:
    planes = Planes.sort(chosen.frames)
    groups = geometry.same_place(planes)
    copies = tuple(index for group in groups for index in _copies(planes, group))
    aside = tuple(
        SetAside(sop_instance_uid=planes.frames[index].sop_instance_uid, reason="a copy")
        for index in copies
    )
    kept = [frame for index, frame in enumerate(planes.frames) if index not in copies]
    planes = Planes.sort(kept) if copies else planes
    return planes, aside, geometry.affine(planes)


def _copies(planes: Planes, group: Sequence[int]) -> tuple[int, ...]:
    """All but the first of images at one place; raises Irregular when they are not the same."""
    first, *others = (planes.frames[index] for index in group)
    pixels.check_size([first, *others])
    for other in others:
        if not _same_image(first, other):
            raise Irregular(geometry.several_at_one_place(planes))
    return tuple(group[1:])


def _same_image(first: Frame, other: Frame) -> bool:
    if not np.allclose(first.position, other.position, atol=geometry.SAME_PLACE_MM):
        return False
    if (first.slope, first.intercept) != (other.slope, other.intercept):
        return False
    one = next(pixels.stored(first.dataset, [first.index]))
    return np.array_equal(one, next(pixels.stored(other.dataset, [other.index])))


def _voxels(frames: Sequence[Frame]) -> tuple[Array, NDArray[np.bool_] | None]:
    shape = (len(frames), frames[0].rows, frames[0].columns)
    array: Array = np.empty(shape, np.int16)
    padding: NDArray[np.bool_] | None = None
    for place, found in pixels.slices(frames):
        if array.dtype == np.int16 and not _fits(found.values):
            array = array.astype(np.float32)
        array[place] = found.values
        if found.padding is not None:
            padding = np.zeros(shape, np.bool_) if padding is None else padding
            padding[place] = found.padding
    return array, padding


def _fits(values: pixels.Values) -> bool:
    whole = np.issubdtype(values.dtype, np.integer)
    return bool(whole and values.min() >= INT16.min and values.max() <= INT16.max)


def _sources(frames: Iterable[Frame]) -> tuple[Source, ...]:
    headers: dict[int, Dataset] = {}
    found = []
    for frame in frames:
        key = id(frame.dataset)
        if key not in headers:
            headers[key] = attributes.header(frame.dataset)
        found.append(frame.source(headers[key]))
    return tuple(found)


def _notes(frames: Sequence[Frame]) -> tuple[str, ...]:
    notes = []
    if any(pixels.padding_is_tissue(frame) for frame in frames):
        notes.append("Pixel Padding Value would be tissue and was not believed")
    return tuple(notes)


CONTRAST = ("ContrastBolusAgent", "ContrastBolusAgentSequence")
NO_CONTRAST = ("", "NONE", "NO", "N")


def acquisition(frames: Sequence[Frame]) -> Acquisition:
    """How the stack was made, from its first slice; never an identifier.

    Where slices differ: the thickest of them, and all their kernels.
    """
    first = frames[0]
    dataset = first.dataset
    agent = next((found for key in CONTRAST if (found := attributes.text(dataset, key))), "")
    kernels = {dict(frame.acquisition).get("ConvolutionKernel") for frame in frames}
    thicknesses = [frame.thickness_mm for frame in frames if frame.thickness_mm is not None]
    return Acquisition(
        modality=attributes.text(dataset, "Modality") or "",
        slice_thickness_mm=max(thicknesses, default=None),
        convolution_kernel=SEVERAL.join(sorted(filter(None, kernels))) or None,
        manufacturer=attributes.text(dataset, "Manufacturer"),
        contrast_agent=agent.upper() not in NO_CONTRAST,
    )
