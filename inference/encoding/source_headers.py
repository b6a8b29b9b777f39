"""Whatever the source's headers hold, results get one patient and one study, in Unicode.

Real headers lack Type 2 attributes, declare the wrong character set and hold values that no
library accepts. Results take the identity of the first source, decoded and otherwise unchanged
(a date, time, age or sex that is none is left out). Nothing here touches pixel data or its input.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue

from inference import uids
from inference.encoding import Reference
from inference.errors import EncodingError

UNICODE = "ISO_IR 192"

TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
"""Of the Patient and General Study modules: never absent, maybe empty (PS3.3 C.7.1.1, C.7.2.1)."""

IDENTITY = (
    *TYPE_2,
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
    "PatientBirthTime", "OtherPatientIDsSequence", "OtherPatientNames", "EthnicGroup",
    "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription",
    "PatientBreedCodeSequence", "BreedRegistrationSequence", "ResponsiblePerson",
    "ResponsiblePersonRole", "ResponsibleOrganization", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "StudyInstanceUID",
    "StudyDescription", "IssuerOfAccessionNumberSequence", "ProcedureCodeSequence",
    "PhysiciansOfRecord", "PatientAge", "PatientSize", "PatientWeight", "AdmissionID",
    "IssuerOfAdmissionIDSequence", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription", "TimezoneOffsetFromUTC",
)  # fmt: skip
"""What makes a result belong to the same patient and study: copied, decoded, never edited."""

EQUIPMENT = (
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber",
    "StationName", "InstitutionName", "InstitutionalDepartmentName",
)  # fmt: skip

_WELL_FORMED = {
    "PatientSex": re.compile(r"[MFO]"),
    "PatientAge": re.compile(r"\d{3}[DWMY]"),
    "TimezoneOffsetFromUTC": re.compile(r"[+-]\d{4}"),
    "PatientIdentityRemoved": re.compile(r"YES|NO"),
}
_DATES = ("PatientBirthDate", "StudyDate")
_TIMES = ("PatientBirthTime", "StudyTime")
_UNKNOWN_MOMENT = ("19000101", "000000")
_MOMENTS = (
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What every result takes over from the instances it was derived from.

    `identity`: Patient and Study modules; `equipment`: the scanner; `references`: each instance
    once, in order; `moment`: DICOM date and time of the latest, the "now" of every result.
    """

    identity: Dataset
    equipment: Dataset
    references: tuple[Reference, ...]
    study_uid: str
    series_uid: str
    series_number: int
    modality: str
    body_part: str
    frame_of_reference_uid: str
    frame_of_reference_is_ours: bool  # the source has none: derived from its series
    position_reference: str
    moment: tuple[str, str]
    series_moment: tuple[str, str] | None


def read(datasets: Sequence[Dataset]) -> Source:
    """What results take over from these headers (pixel data not needed), all of one series.

    Raises EncodingError when there is none, or they are of several studies or series.
    """
    if not datasets:
        raise EncodingError("a result needs at least one source instance")
    with quiet():
        return _read(datasets)


@contextmanager
def quiet() -> Iterator[None]:
    """Headers are taken as they are: no check of single values, whose remarks would quote them.

    Names must reach neither log nor terminal, so pydicom's and highdicom's warnings are off inside.
    """
    settings = config.settings
    reading, writing = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")
            yield
    finally:
        settings.reading_validation_mode = reading
        settings.writing_validation_mode = writing


def _read(datasets: Sequence[Dataset]) -> Source:
    first = datasets[0]
    study, series = text(first, "StudyInstanceUID"), text(first, "SeriesInstanceUID")
    own_frame = text(first, "FrameOfReferenceUID")
    for dataset in datasets:
        if (text(dataset, "StudyInstanceUID"), text(dataset, "SeriesInstanceUID")) != (
            study,
            series,
        ):
            raise EncodingError("the source instances are of several studies or series")
    return Source(
        identity=_identity(first),
        equipment=_selected(first, EQUIPMENT),
        references=_references(datasets),
        study_uid=study,
        series_uid=series,
        series_number=int(number(first, "SeriesNumber") or 0),
        modality=text(first, "Modality"),
        body_part=text(first, "BodyPartExamined"),
        frame_of_reference_uid=own_frame or uids.derived("frame of reference", series),
        frame_of_reference_is_ours=not own_frame,
        position_reference=text(first, "PositionReferenceIndicator"),
        moment=_latest(datasets),
        series_moment=_moment(first, "SeriesDate", "SeriesTime"),
    )


def _references(datasets: Sequence[Dataset]) -> tuple[Reference, ...]:
    found = dict.fromkeys(reference(dataset) for dataset in datasets)
    named = tuple(one for one in found if one.sop_class_uid and one.sop_instance_uid)
    if not named:
        raise EncodingError("no source instance has a SOP Class and Instance UID")
    return named


def reference(dataset: Dataset) -> Reference:
    """How other objects name this instance."""
    return Reference(
        sop_class_uid=text(dataset, "SOPClassUID"),
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        series_instance_uid=text(dataset, "SeriesInstanceUID"),
    )


def text(dataset: Dataset, keyword: str) -> str:
    """The value as text without padding, "" when absent; several values joined as in the file."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    parts = value if isinstance(value, (MultiValue, list)) else (value,)
    return "\\".join(str(part) for part in parts).strip(" \0")


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The values as numbers, () when absent or not numeric."""
    with suppress(ValueError, TypeError, OverflowError):
        value = dataset.get(keyword)
        if value is None or value == "":
            return ()
        parts = value if isinstance(value, (MultiValue, list)) else (value,)
        return tuple(float(part) for part in parts)
    return ()


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value as a number, None when absent or not numeric."""
    return next(iter(numbers(dataset, keyword)), None)


def put(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set an element exactly so, without the checks that would refuse, and quote, the value."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no such attribute: {keyword}")
    dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE))


def without_identity(source: Source, *, rows: int, columns: int) -> Dataset:
    """What highdicom insists on of an image of the study, with no patient in it to be logged."""
    header = Dataset()
    for keyword in TYPE_2:
        put(header, keyword, "")
    put(header, "StudyInstanceUID", source.study_uid)
    put(header, "Modality", source.modality)
    put(header, "Rows", rows)
    put(header, "Columns", columns)
    return header


def another(header: Dataset) -> Dataset:
    """A data set of its own with the elements of `header`, which they share."""
    return Dataset(dict(header.items()))


def _identity(dataset: Dataset) -> Dataset:
    identity = _selected(dataset, IDENTITY)
    for keyword in TYPE_2:
        if keyword not in identity:
            put(identity, keyword, "")
    return identity


def _selected(dataset: Dataset, keywords: Sequence[str]) -> Dataset:
    chosen = Dataset()
    for keyword in keywords:
        with suppress(ValueError, TypeError, OverflowError):  # a number that is none
            if keyword in dataset and _acceptable(keyword, text(dataset, keyword)):
                chosen.add(_copied(dataset[keyword]))
    return chosen


def _acceptable(keyword: str, value: str) -> bool:
    if keyword in _DATES:
        return not value or _is_moment(value, "%Y%m%d")
    if keyword in _TIMES:
        return not value or _TIME.fullmatch(value) is not None
    pattern = _WELL_FORMED.get(keyword)
    return pattern is None or not value or pattern.fullmatch(value) is not None


def _copied(element: DataElement) -> DataElement:
    if element.VR == "SQ":
        value: Any = [_copied_item(item) for item in element.value]
    elif element.VR == "PN":
        value = text_of_names(element.value)
    else:
        value = element.value
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _copied_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for element in item:
        if not element.tag.is_private and element.keyword != "SpecificCharacterSet":
            copy.add(_copied(element))
    return copy


def text_of_names(value: Any) -> str | list[str]:
    """Person names as decoded text: pydicom's own type would write the source's bytes again."""
    if isinstance(value, (MultiValue, list)):
        return [str(name) for name in value]
    return "" if value is None else str(value)


_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")


def _latest(datasets: Sequence[Dataset]) -> tuple[str, str]:
    moments = {
        moment
        for dataset in datasets
        for date, time in _MOMENTS
        if (moment := _moment(dataset, date, time)) is not None
    }
    study = _moment(datasets[0], "StudyDate", "StudyTime")
    return max(moments) if moments else study or _UNKNOWN_MOMENT


def _moment(dataset: Dataset, date: str, time: str) -> tuple[str, str] | None:
    day, hour = text(dataset, date).replace(".", ""), text(dataset, time).replace(":", "")
    if not _is_moment(day, "%Y%m%d"):
        return None
    whole = hour.partition(".")[0].ljust(6, "0")
    return (day, whole if _TIME.fullmatch(hour) else "000000")


def _is_moment(value: str, layout: str) -> bool:
    try:
        datetime.strptime(value, layout)  # noqa: DTZ007  (a DICOM date, no instant)
    except ValueError:
        return False
    return len(value) == len("19700101")
