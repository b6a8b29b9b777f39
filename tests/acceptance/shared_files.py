"""Every DICOM file of the folder of real studies as a sender would name it; bytes unchanged."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.part10_files import take_apart

OTHER = {".csv", ".gz", ".jpg", ".json", ".md", ".nrrd", ".png", ".txt", ".xz", ".yaml", ""}
"""Suffixes of what is no DICOM file in that folder."""
NAMES = ("PatientName", "PatientBirthName", "OtherPatientNames", "PatientID", "OtherPatientIDs")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """A file as it is sent. `identifiers`: the patient's names and IDs in it."""

    name: str
    sop_class: str
    sop_instance: str
    series: tuple[str, str]
    transfer_syntax: str
    data_set: bytes
    identifiers: frozenset[str]

    @property
    def folder(self) -> str:
        """Where it lies; the archive for a packed one."""
        return self.name.rpartition("/")[0]


def every_file(data: Path) -> list[SharedFile]:
    """All of them, sorted by name."""
    return sorted((_file(name, raw) for name, raw in _raw(data)), key=lambda file: file.name)


def _raw(data: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        name = str(path.relative_to(data))
        if path.suffix not in OTHER:
            yield name, path.read_bytes()
        elif path.name.endswith(".tar.xz"):
            yield from _packed(path, name)


def _packed(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:xz") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None:
                yield f"{name}/{Path(member.name).name}", stream.read()


def _file(name: str, raw: bytes) -> SharedFile:
    read = pydicom.dcmread(io.BytesIO(raw), force=True, stop_before_pixels=True)
    part = take_apart(raw, name)
    guessed = ImplicitVRLittleEndian if read.original_encoding[0] else ExplicitVRLittleEndian
    return SharedFile(
        name=name,
        sop_class=(part.sop_class if part else "") or read.get("SOPClassUID") or CTImageStorage,
        sop_instance=(part.sop_instance if part else "") or read.get("SOPInstanceUID", ""),
        series=(read.get("StudyInstanceUID", ""), read.get("SeriesInstanceUID", "")),
        transfer_syntax=(part.transfer_syntax if part else "") or str(guessed),
        data_set=part.data_set if part else raw,
        identifiers=frozenset(_identifiers(read)),
    )


def _identifiers(read: Dataset) -> Iterator[str]:
    for keyword in NAMES:
        value = read.get(keyword)
        values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        for group in (str(each) for each in values if each):
            yield from (part.strip() for part in group.replace("=", "^").split("^") if part.strip())
