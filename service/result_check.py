"""A result leaves the model's process only as an object of the study it was made of; pure.

That process runs code that is not ours: it could name any patient. Every object is read once more,
here, by the same scanner as what is received.
"""

from service import header
from service.tasks import ResultObject
from storage.records import Header, Instance

PREFIX = b"DICM"
PREFIX_AT, GROUP_LENGTH_AT, DATA_AFTER = 128, 140, 144  # PS3.10 7.1, with 8 bytes of element head
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
LOOKED_AT = 1 << 20  # bytes from the front; what names patient and study comes first


def wrong(result: ResultObject, *, source: Instance) -> str | None:
    """Why an object is no result of the study of `source`; None when it is."""
    found = _header(result.data)
    if found is None:
        return f"the {result.kind} is no DICOM object"
    for keyword, named in (
        ("SOPClassUID", result.sop_class_uid),
        ("SOPInstanceUID", result.sop_instance_uid),
        ("SeriesInstanceUID", result.series_instance_uid),
        ("StudyInstanceUID", source.study_instance_uid),
    ):
        if found.get(keyword, ("",)) != (named,):
            return f"the {result.kind} has another {keyword} than it should"
    if result.series_instance_uid == source.series_instance_uid:
        return f"the {result.kind} claims to be part of the series it was made of"
    if _other_patient(found, source.header):
        return f"the {result.kind} has another PatientID than its source"
    return None


def _header(data: bytes) -> Header | None:
    if data[PREFIX_AT : PREFIX_AT + len(PREFIX)] != PREFIX:
        return None
    start = DATA_AFTER + int.from_bytes(data[GROUP_LENGTH_AT:DATA_AFTER], "little")
    try:
        return header.read_header(data[start : start + LOOKED_AT], EXPLICIT_LITTLE_ENDIAN)
    except header.HeaderError:
        return None


def _other_patient(found: Header, source: Header) -> bool:
    """Only where both are plain ASCII: the source's other bytes are decoded in several ways."""
    mine, theirs = ("\\".join(one.get("PatientID", ())) for one in (found, source))
    return mine.isascii() and theirs.isascii() and mine != theirs
