"""What a model's process gives is a result of its own study, or refused with the reason.

Not covered: what is in the object besides (inference/encoding/checks.py looks at that, in the
process that is not trusted).
"""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydicom import Dataset, dcmread

from inference.encoding.common import to_bytes
from service.result_check import wrong
from service.tasks import ResultObject
from storage.records import Instance
from tests import encoded


@pytest.fixture(scope="module")
def made() -> tuple[Instance, ResultObject]:
    datasets = encoded.series()
    _, seg, _ = encoded.results(datasets)
    return source(datasets[0]), produced(seg)


def produced(dataset: Dataset) -> ResultObject:
    return ResultObject(
        kind="segmentation",
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        data=to_bytes(dataset),
    )


def source(dataset: Dataset, **header: tuple[str, ...]) -> Instance:
    return Instance(
        study_instance_uid=str(dataset.StudyInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest="",
        key="",
        size=0,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        calling_ae_title="",
        header=header or {"PatientID": (str(dataset.PatientID),)},
    )


def edited(result: ResultObject, **values: str) -> ResultObject:
    """The object with other values inside, claimed to be the same."""
    dataset = dcmread(io.BytesIO(result.data))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return replace(result, data=buffer.getvalue())


def test_a_result_of_its_study_is_taken(made: tuple[Instance, ResultObject]) -> None:
    instance, result = made
    assert wrong(result, source=instance) is None


@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        ("StudyInstanceUID", "the segmentation has another StudyInstanceUID than it should"),
        ("SeriesInstanceUID", "the segmentation has another SeriesInstanceUID than it should"),
        ("SOPInstanceUID", "the segmentation has another SOPInstanceUID than it should"),
        ("SOPClassUID", "the segmentation has another SOPClassUID than it should"),
        ("PatientID", "the segmentation has another PatientID than its source"),
    ],
)
def test_another_identity_is_refused(
    made: tuple[Instance, ResultObject], keyword: str, words: str
) -> None:
    instance, result = made
    assert wrong(edited(result, **{keyword: "1.2.3"}), source=instance) == words


def test_the_series_of_the_source_is_not_added_to(made: tuple[Instance, ResultObject]) -> None:
    instance, result = made
    inside = replace(result, series_instance_uid=instance.series_instance_uid)
    forged = edited(inside, SeriesInstanceUID=instance.series_instance_uid)
    assert wrong(forged, source=instance) == (
        "the segmentation claims to be part of the series it was made of"
    )


@pytest.mark.parametrize(
    "data", [b"", b"no dicom", bytes(132), bytes(128) + b"DICM" + b"\xff" * 99]
)
def test_bytes_that_are_no_dicom_are_refused(
    made: tuple[Instance, ResultObject], data: bytes
) -> None:
    instance, result = made
    assert wrong(replace(result, data=data), source=instance) is not None


@pytest.mark.parametrize("stated", ["Ünïcode", "PHANTOM"])
def test_an_identifier_that_is_no_ascii_is_not_compared(
    made: tuple[Instance, ResultObject], stated: str
) -> None:
    instance, result = made
    assert wrong(result, source=replace(instance, header={"PatientID": (stated,)})) is None
