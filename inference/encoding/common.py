"""Every result is completed alike: the source's identity and dates, our equipment and UIDs."""

import io
from collections.abc import Iterator

import highdicom as hd
from pydicom import Dataset, dcmwrite
from pydicom.charset import convert_encodings
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from inference import coding, uids
from inference.encoding import LONG_STRING, Provenance, frame_items
from inference.encoding.source_headers import UNICODE, Source, another, put, quiet, text

MANUFACTURER = "Hounsfield"
SHORT_STRING = 16  # characters of SH and CS
_NO_SERIES_NUMBER = 9000
_LARGEST_SOURCE_SERIES = 10**7
FRAMES = "PerFrameFunctionalGroupsSequence"


def series_number(source: Source, order: int) -> int:
    """The series is numbered after its source, as scanners number reformats: 3 gives 391, 392."""
    if 0 < source.series_number < _LARGEST_SOURCE_SERIES:
        return source.series_number * 100 + 91 + order
    return _NO_SERIES_NUMBER + 1 + order


def series_uid(source: Source, provenance: Provenance, kind: str) -> str:
    """Series Instance UID of this kind of result; generations share it."""
    return uids.series_uid(
        source_series_uid=source.series_uid,
        model=provenance.model_name,
        version=provenance.model_version,
        configuration=provenance.configuration,
        kind=kind,
    )


def instance_uid(source: Source, provenance: Provenance, kind: str) -> str:
    """SOP Instance UID of this result."""
    replaced = provenance.predecessor
    return uids.instance_uid(
        series_uid=series_uid(source, provenance, kind),
        fingerprint=provenance.fingerprint,
        described=provenance.described,
        generation=provenance.generation,
        predecessor="" if replaced is None else replaced.sop_instance_uid,
        computed=provenance.computed or "",
    )


def tracking_uid(source: Source, provenance: Provenance, label: str) -> str:
    """Tracking UID of a finding; of a segment it is equal in segmentation and report."""
    return uids.tracking_uid(series_uid=series_uid(source, provenance, "segmentation"), label=label)


def concept(code: Code) -> hd.sr.CodedConcept:
    """A code as highdicom's data set."""
    return hd.sr.CodedConcept.from_code(code)


def bounded(value: str, length: int = LONG_STRING) -> str:
    """Text that fits a value of `length` bytes of UTF-8 (some readers count so), no backslash."""
    clean = "".join(c if c.isprintable() and c != "\\" else " " for c in value)
    if len(clean.encode()) <= length:
        return clean
    return clean.encode()[: length - 3].decode(errors="ignore").rstrip() + "..."


def finish(
    result: Dataset,
    *,
    source: Source,
    provenance: Provenance,
    order: int,
    kind: str,
    part: str = "",
) -> None:
    """Give a result of highdicom identity, equipment, dates and file meta information, in place."""
    result.update(source.identity)
    put(result, "StudyInstanceUID", source.study_uid)
    put(result, "SpecificCharacterSet", UNICODE)
    _date(result, source)
    _equip(result, source, provenance)
    put(result, "SeriesInstanceUID", series_uid(source, provenance, kind))
    put(result, "SeriesNumber", series_number(source, order))
    put(result, "SeriesDescription", bounded(provenance.described_as(part)))
    result.file_meta = _file_meta(result)


def _date(result: Dataset, source: Source) -> None:
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):  # Type 3, and the clock's
        if keyword in result:
            del result[keyword]
    day, hour = source.moment
    put(result, "ContentDate", day)
    put(result, "ContentTime", hour)
    if source.series_moment is not None:
        put(result, "SeriesDate", source.series_moment[0])
        put(result, "SeriesTime", source.series_moment[1])


def _equip(result: Dataset, source: Source, provenance: Provenance) -> None:
    put(result, "Manufacturer", MANUFACTURER)
    put(result, "ManufacturerModelName", bounded(provenance.model_name))
    put(result, "SoftwareVersions", list(_versions(provenance)))
    put(result, "DeviceSerialNumber", bounded(provenance.device_serial))
    put(result, "StationName", bounded(provenance.node_name, SHORT_STRING))
    if institution := text(source.equipment, "InstitutionName"):
        put(result, "InstitutionName", institution)
    result.ContributingEquipmentSequence = [*_scanner(source), _model(source, provenance)]


def _versions(provenance: Provenance) -> tuple[str, str]:
    return (
        bounded(f"{provenance.model_name} {provenance.model_version}"),
        bounded(f"hounsfield {provenance.software_version}"),
    )


def _scanner(source: Source) -> Iterator[Dataset]:
    if text(source.equipment, "Manufacturer"):  # type 1 in the item
        item = Dataset()
        item.update(source.equipment)
        item.PurposeOfReferenceCodeSequence = [concept(coding.ACQUISITION_EQUIPMENT)]
        put(item, "ContributionDescription", "Acquisition of the source images")
        yield item


def _model(source: Source, provenance: Provenance) -> Dataset:
    """The model as processing equipment, its device UID naming version and settings (IHE AIR)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [concept(coding.PROCESSING_EQUIPMENT)]
    put(item, "Manufacturer", MANUFACTURER)
    put(item, "ManufacturerModelName", bounded(provenance.model_name))
    put(item, "SoftwareVersions", list(_versions(provenance)))
    put(item, "DeviceSerialNumber", bounded(provenance.device_serial))
    put(item, "StationName", bounded(provenance.node_name, SHORT_STRING))
    put(item, "ContributionDateTime", "".join(source.moment))
    put(
        item,
        "ContributionDescription",
        f"Analysis; objects written with highdicom {hd.__version__}",
    )
    put(
        item,
        "DeviceUID",
        uids.model_uid(
            model=provenance.model_name,
            version=provenance.model_version,
            configuration=provenance.configuration,
        ),
    )
    return item


def _file_meta(result: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = result.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(uids.IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = uids.IMPLEMENTATION_VERSION_NAME
    return meta


def to_bytes(result: Dataset) -> bytes:
    """The object as a PS3.10 file, Explicit VR Little Endian: equal objects give equal bytes."""
    buffer = io.BytesIO()
    with quiet():
        dcmwrite(buffer, _prepared(result), enforce_file_format=True)
    return buffer.getvalue()


def _prepared(result: Dataset) -> Dataset:
    """The same object with its frames' items as bytes, so that pydicom copies them."""
    if FRAMES not in result:
        return result
    prepared = another(result)
    prepared.file_meta = result.file_meta
    delattr(prepared, FRAMES)
    correct_ambiguous_vr(prepared, is_little_endian=True)
    frames = frame_items.encoded(result[FRAMES], UNICODE)
    prepared[frames.tag] = frames
    prepared.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=convert_encodings(UNICODE)
    )
    return prepared
