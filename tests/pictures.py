"""Planar images as files would have them: radiographs, ultrasound, photographs from arrays."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLPhotographicImageStorage,
)

from inference import planar
from inference.findings import PlanarImage
from inference.frames import Source
from inference.series import SetAside
from tests.objects import uid

CR, DX = ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation
SC, PHOTO = SecondaryCaptureImageStorage, VLPhotographicImageStorage
CINE, US = UltrasoundMultiFrameImageStorage, UltrasoundImageStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A planar image with its pixels, and where it is from."""

    image: PlanarImage
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The planar images of a series, all decoded, as a model is given them."""

    views: tuple[Decoded, ...]
    set_aside: tuple[SetAside, ...]
    notes: tuple[str, ...]


def read(datasets: Sequence[Dataset]) -> Series:
    """What a model is given of these instances; raises InputRefused."""
    found, images = planar.each(planar.read(datasets), lambda image: image)
    views = tuple(
        Decoded(image=image, source=view.source)
        for image, view in zip(images, found.views, strict=True)
    )
    return Series(views=views, set_aside=found.set_aside, notes=found.notes)


def filed(dataset: Dataset) -> Dataset:
    """The data set as it comes from a file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    file.seek(0)
    return pydicom.dcmread(file)


def colours(rows: int = 6, columns: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def picture(
    pixels: NDArray[Any],
    sop_class: str = CR,
    *,
    name: str = "1",
    study: str = "study",
    colour: bool = False,
    frames: int | None = None,
    **elements: object,
) -> Dataset:
    """One instance; `pixels`: (row, column), with colours last and frames first where there are."""
    rows, columns = pixels.shape[1 if frames else 0 : 3 if frames else 2]
    signed = np.issubdtype(pixels.dtype, np.signedinteger)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = sop_class
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uid(f"{study} {name}")
    made.PatientName, made.PatientID = "Test^Planar", f"patient of {study}"
    made.PatientBirthDate, made.PatientSex = "19700101", "O"
    made.StudyInstanceUID = uid(study)
    made.SeriesInstanceUID = uid(f"{study} series")
    made.StudyDate = made.SeriesDate = made.ContentDate = "20260301"
    made.StudyTime = made.SeriesTime = made.ContentTime = "120000"
    made.AccessionNumber = made.StudyID = "1"
    made.ReferringPhysicianName = ""
    made.Modality = "CR"
    made.SeriesNumber = 1
    made.InstanceNumber = int(name) if name.isdecimal() else None
    made.Rows, made.Columns = rows, columns
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    if frames:
        made.NumberOfFrames = frames
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(signed)
    content = np.ascontiguousarray(pixels).tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def labelled(path: Path, *, name: str = "1", study: str | None = None) -> Dataset:
    """A radiograph of the NIH's chest collection (PNG) as a DX image with a plausible header."""
    pixels = np.asarray(Image.open(path).convert("L"))
    return picture(
        pixels,
        DX,
        name=name,
        study=study or path.stem,
        Modality="DX",
        ViewPosition="PA",
        BodyPartExamined="CHEST",
        StudyDescription="Chest PA",
        ImageType=["DERIVED", "PRIMARY"],
        ImagerPixelSpacing=["0.143", "0.143"],
        PresentationLUTShape="IDENTITY",
        BurnedInAnnotation="NO",
    )


def gradient(rows: int = 12, columns: int = 16, *, most: int = 4000) -> NDArray[np.uint16]:
    """Every value another, dark above and bright below."""
    return np.linspace(0, most, rows * columns).reshape(rows, columns).astype(np.uint16)


def item(**elements: object) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def region(down: float, across: float, *, kind: int = 1, units: int = 3) -> Dataset:
    """An ultrasound region: centimetres a pixel, two-dimensional unless told otherwise."""
    return item(
        RegionSpatialFormat=kind,
        PhysicalUnitsXDirection=units,
        PhysicalUnitsYDirection=units,
        PhysicalDeltaX=across,
        PhysicalDeltaY=down,
    )
