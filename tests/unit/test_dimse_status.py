"""Every failure has a status that is a failure of Storage, and a comment that fits.

Not covered: that a peer sees it (tests/integration/test_receive_refusals.py).
"""

import pytest
from pynetdicom.status import STATUS_FAILURE, STORAGE_SERVICE_CLASS_STATUS

from service.dimse_status import (
    SUCCESS,
    CannotUnderstand,
    ClassNotSupported,
    DoesNotMatch,
    InvalidInstance,
    Refusal,
    answer,
)
from storage.errors import CatalogueUnavailable, MissingBytes, OutOfSpace, StorageError

TABLE = {
    OutOfSpace: 0xA700,
    DoesNotMatch: 0xA900,
    CannotUnderstand: 0xC000,
    InvalidInstance: 0x0117,
    ClassNotSupported: 0x0122,
    CatalogueUnavailable: 0x0110,
    StorageError: 0x0110,
    MissingBytes: 0x0110,
    ValueError: 0x0110,
    OSError: 0x0110,
}


def test_success_is_for_no_problem_only() -> None:
    assert answer(None).status == SUCCESS
    assert answer(None).success


@pytest.mark.parametrize("kind", TABLE)
def test_status_of(kind: type[Exception]) -> None:
    given = answer(kind("why"))
    assert given.status == TABLE[kind]
    assert not given.success
    assert STORAGE_SERVICE_CLASS_STATUS[given.status][0] == STATUS_FAILURE


def all_refusals() -> list[type[Refusal]]:
    return Refusal.__subclasses__()


@pytest.mark.parametrize("kind", all_refusals())
def test_a_refusal_tells_its_reason_in_64_characters(kind: type[Refusal]) -> None:
    assert answer(kind("x" * 100)).comment == "x" * 64


def test_the_text_of_a_foreign_exception_does_not_leave() -> None:
    assert "DOE" not in answer(ValueError("DOE^JOHN")).comment
    assert "/srv" not in answer(StorageError("/srv/node")).comment
