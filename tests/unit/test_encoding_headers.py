"""Sources with missing, odd and foreign headers: results are whole, and of the same patient.

Not covered: sources that cannot be read as a volume (tests of volume and series).
"""

import io
import logging
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from pydicom import Dataset, config, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage

from inference import volume
from inference.encoding import source_headers
from inference.encoding.common import to_bytes
from inference.encoding.source_headers import IDENTITY, TYPE_2
from inference.errors import EncodingError
from tests import encoded

NEEDED = {  # without these there is no stack
    "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "PixelData", "SOPClassUID", "SOPInstanceUID",
    "StudyInstanceUID", "SeriesInstanceUID", "Modality", "RescaleSlope", "RescaleIntercept",
}  # fmt: skip
RICH = {
    "SpecificCharacterSet": "ISO_IR 100",
    "AccessionNumber": "A1",
    "StudyID": "S1",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "PatientAge": "050Y",
    "PatientWeight": "70.5",
    "ReferringPhysicianName": "Referrer^One",
    "StudyDescription": "Thorax",
    "InstitutionName": "Hospital",
    "StationName": "CT1",
    "ManufacturerModelName": "Scanner",
    "SoftwareVersions": ["a", "b"],
    "DeviceSerialNumber": "77",
    "BodyPartExamined": "CHEST",
    "PositionReferenceIndicator": "XY",
    "SliceThickness": "3",
    "SpacingBetweenSlices": "9",
    "ProtocolName": "Chest",
    "TimezoneOffsetFromUTC": "+0100",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "none really",
    "ContentDate": "20260102",
    "ContentTime": "030405",
}


def rich() -> list[Dataset]:
    """A series whose headers lack nothing."""
    return deepcopy(_rich())


@cache
def _rich() -> list[Dataset]:
    datasets = encoded.series((4, 12, 10))
    for dataset in datasets:
        for keyword, value in RICH.items():
            setattr(dataset, keyword, value)
    return datasets


def received(datasets: list[Dataset]) -> list[Dataset]:
    """The data sets as read from files."""
    buffers = []
    for dataset in datasets:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        buffers.append(io.BytesIO(buffer.getvalue()))
    return [dcmread(buffer) for buffer in buffers]


def optional() -> Iterator[str]:
    yield from (e.keyword for e in rich()[0] if e.keyword and e.keyword not in NEEDED)


EVERY_WAY = [(keyword, "absent") for keyword in optional()] + [
    (keyword, "empty") for keyword in (*TYPE_2, "FrameOfReferenceUID", "SliceThickness")
]


@pytest.mark.parametrize(("keyword", "how"), EVERY_WAY)
def test_no_other_attribute_is_needed(keyword: str, how: str) -> None:
    datasets = rich()
    for dataset in datasets:
        if how == "absent":
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, None)
    _, seg, report = encoded.results(received(datasets))
    for result in (seg, report):
        assert all(one in result for one in TYPE_2)


def test_nothing_else_is_needed_either() -> None:
    datasets = rich()
    for dataset in datasets:
        for element in list(dataset):
            if element.keyword not in NEEDED:
                del dataset[element.tag]
    _, seg, report = encoded.results(received(datasets))
    assert report.ContentDate == seg.ContentDate == "19000101"
    assert any("no Frame of Reference" in line for line in encoded.texts(report))
    assert seg.FrameOfReferenceUID.startswith("2.25.")


def test_identity_is_taken_over_and_nothing_else_of_the_patient() -> None:
    datasets = rich()
    _, seg, report = encoded.results(received(datasets))
    for result in (seg, report):
        for keyword in IDENTITY:
            if keyword in datasets[0]:
                assert result[keyword].value == datasets[0][keyword].value, keyword
        assert result.SpecificCharacterSet == "ISO_IR 192"
        assert "ProtocolName" not in result


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "19701340"),
        ("PatientBirthDate", "1970"),
        ("PatientSex", "X"),
        ("PatientSex", "female"),
        ("PatientAge", "50"),
        ("StudyDate", "today"),
        ("StudyTime", "25:00"),
        ("TimezoneOffsetFromUTC", "UTC"),
        ("PatientID", "P" * 80),
        ("PatientName", "N" * 90 + "^" + "M" * 90),
        ("AccessionNumber", "A" * 40),
        ("StudyDescription", "S" * 90),
        ("SeriesNumber", "99999999999"),
        ("InstitutionName", "I" * 90),
        ("BodyPartExamined", "the whole of the chest"),
        ("PatientName", "A^B^C^D^E^F^G"),
        ("ContentDate", "2026.01.02"),
        ("ContentTime", "03:04"),
    ],
)
def test_a_value_that_no_library_accepts_does_not_stop_a_result(keyword: str, value: str) -> None:
    datasets = rich()
    for dataset in datasets:
        source_headers.put(dataset, keyword, value)
    with config.disable_value_validation():
        files = received(datasets)
        _, seg, report = encoded.results(files)
    for result in (seg, report):
        again = dcmread(io.BytesIO(to_bytes(result)))
        if keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyDescription"):
            with config.disable_value_validation():
                assert str(again[keyword].value) == value
        elif keyword in TYPE_2:
            assert again[keyword].value == ""


def test_a_number_that_is_none_is_left_out() -> None:
    buffer = io.BytesIO()
    rich()[0].save_as(buffer, enforce_file_format=True)
    damaged = dcmread(io.BytesIO(buffer.getvalue().replace(b"70.5", b"fat ")))
    report = encoded.not_analysed([damaged])
    assert "PatientWeight" not in report
    assert report.PatientAge == "050Y"


CHARACTER_SETS = [
    ("ISO_IR 100", "Müller^Jörg"),
    ("ISO_IR 101", "Wałęsa^Łucja"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("ISO_IR 126", "Διονυσιος"),
    ("ISO_IR 138", "שרון^דבורה"),
    ("ISO_IR 192", "王^小東"),
    ("GB18030", "王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
]


@pytest.mark.parametrize(("declared", "name"), CHARACTER_SETS)
def test_names_arrive_in_unicode(declared: str | list[str], name: str) -> None:
    datasets = encoded.series((4, 12, 10))
    for dataset in datasets:
        dataset.SpecificCharacterSet = declared
        dataset.PatientName = name
        dataset.StudyDescription = name.partition("=")[2] or name
        dataset.OtherPatientIDsSequence = [Dataset()]
        dataset.OtherPatientIDsSequence[0].PatientID = "17"
    _, seg, report = encoded.results(received(datasets))
    for result in (seg, report, encoded.not_analysed(received(datasets))):
        again = dcmread(io.BytesIO(to_bytes(result)))
        assert again.SpecificCharacterSet == "ISO_IR 192"
        assert str(again.PatientName) == name
        assert again.StudyDescription == (name.partition("=")[2] or name)
        assert again.OtherPatientIDsSequence[0].PatientID == "17"


def test_real_names_of_many_character_sets_arrive(data: Path) -> None:
    files = sorted((data / "charsets").glob("*.dcm"))
    assert files
    for file in files:
        with source_headers.quiet():
            original = dcmread(file)
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                source_headers.put(
                    original, keyword, "1.2.3"
                )  # some of these files hold names only
            source_headers.put(original, "SOPClassUID", CTImageStorage)
            report = encoded.not_analysed([original])
            again = dcmread(io.BytesIO(to_bytes(report)))
            assert str(again.PatientName) == str(original.get("PatientName", "")), file.name


def test_two_runs_in_different_seconds_give_the_same_bytes() -> None:
    datasets = received(rich())
    _, seg, report = encoded.results(datasets)
    first = [to_bytes(one) for one in (seg, report, encoded.not_analysed(datasets))]
    time.sleep(1.1)
    again = received(rich())
    _, seg, report = encoded.results(again)
    assert first == [to_bytes(one) for one in (seg, report, encoded.not_analysed(again))]


def test_no_element_holds_the_date_of_today() -> None:
    _, seg, report = encoded.results(received(rich()))
    today = time.strftime("%Y%m%d")
    assert today.encode() not in to_bytes(seg) + to_bytes(report)
    assert (seg.ContentDate, seg.ContentTime) == ("20260102", "030405")


def test_the_latest_moment_of_the_source_is_the_result_s() -> None:
    datasets = rich()
    datasets[2].AcquisitionDate, datasets[2].AcquisitionTime = "20260103", "010203.5"
    _, seg, report = encoded.results(received(datasets))
    for result in (seg, report):
        assert (result.ContentDate, result.ContentTime) == ("20260103", "010203")


def test_no_name_reaches_log_or_terminal(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    datasets = rich()
    for dataset in datasets:
        source_headers.put(dataset, "PatientName", "Secretname")  # one component: highdicom warns
        source_headers.put(dataset, "PatientID", "Secretid" + "9" * 70)
    with caplog.at_level(logging.DEBUG):
        _, seg, report = encoded.results(received(datasets))
        to_bytes(seg)
        to_bytes(report)
    out, err = capfd.readouterr()
    assert "Secret" not in caplog.text + out + err


def test_the_source_stays_as_it_was() -> None:
    datasets = received(rich())
    before = deepcopy(datasets)
    encoded.results(datasets)
    assert datasets == before


def test_several_studies_are_no_source() -> None:
    datasets = rich()
    datasets[1].StudyInstanceUID = "1.2.3"
    with pytest.raises(EncodingError, match="several studies"):
        encoded.not_analysed(datasets)
    with pytest.raises(EncodingError, match="at least one"):
        encoded.not_analysed([])


def test_generations_share_a_series_and_number_their_instances() -> None:
    stack, seg, _ = encoded.results(received(rich()))
    del stack
    later = replace(encoded.PROVENANCE, generation=2, fingerprint="e" * 64)
    _, newer, report = encoded.results(received(rich()), later)
    assert newer.SeriesInstanceUID == seg.SeriesInstanceUID
    assert newer.SOPInstanceUID != seg.SOPInstanceUID
    assert newer.InstanceNumber == report.InstanceNumber == 2
    tracked = [[s.TrackingUID for s in one.SegmentSequence] for one in (seg, newer)]
    assert tracked[0] == tracked[1]


def test_a_source_without_meta_information_is_enough() -> None:
    datasets = rich()
    for dataset in datasets:
        dataset.file_meta = FileMetaDataset()
    assert encoded.not_analysed(datasets).PatientName == datasets[0].PatientName
    assert volume.read(rich()).headers[0].PatientName == datasets[0].PatientName
