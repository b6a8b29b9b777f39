"""Small CT objects as bytes and files, each with its own UIDs."""

import hashlib
import io
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = str(ExplicitVRLittleEndian)


def uid(name: str) -> str:
    """A UID for a name."""
    return f"1.2.3.{int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)}"


def ct(name: str, **elements: object) -> Dataset:
    """A CT-like object; `elements` override, None leaves one out."""
    values: dict[str, object] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": uid(name),
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.2",
        "Modality": "CT",
        "PatientID": "P1",
        "Rows": 16,
        "Columns": 16,
        "PixelData": bytes(512),
    }
    made = Dataset()
    for keyword, value in (values | elements).items():
        if value is not None:
            setattr(made, keyword, value)
    made["PixelData"].VR = "OW"
    return made


def data_set_bytes(made: Dataset) -> bytes:
    """Explicit VR little endian, without file meta."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def ct_file(folder: Path, name: str, **elements: object) -> Path:
    """A CT-like object as a file."""
    made = ct(name, **elements)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.dcm"
    made.save_as(path, enforce_file_format=True)
    return path
