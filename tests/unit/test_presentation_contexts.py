"""Contexts that are taken: every storage SOP class, every transfer syntax, nothing else.

Not covered: the negotiation itself (tests/integration/test_receive_associations.py).
"""

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom.sop_class import _STORAGE_CLASSES

from service.presentation_contexts import VERIFICATION, accepted, is_storage, is_transfer_syntax

CT = "1.2.840.10008.5.1.4.1.1.2"
PRIVATE = "1.3.12.2.1107.5.9.1"  # Siemens CSA non-image
JPEG = "1.2.840.10008.1.2.4.70"
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("name", sorted(_STORAGE_CLASSES))
def test_every_storage_class_that_pynetdicom_knows(name: str) -> None:
    assert is_storage(str(_STORAGE_CLASSES[name]), private=False)


def test_every_transfer_syntax_that_pynetdicom_knows() -> None:
    refused = [uid for uid in ALL_TRANSFER_SYNTAXES if not is_transfer_syntax(str(uid))]
    assert [uid for uid in refused if not uid.startswith("1.2.840.10008.1.2.7.")] == []


def test_a_storage_class_newer_than_the_dictionary() -> None:
    uid = "1.2.840.10008.5.1.4.1.1.2.99"
    assert uid not in UID_dictionary
    assert is_storage(uid, private=False)


@pytest.mark.parametrize(
    "uid",
    [
        VERIFICATION,
        "1.2.840.10008.5.1.4.1.2.1.1",  # Patient Root FIND
        "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        "1.2.840.10008.1.3.10",  # Media Storage Directory Storage
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol Storage: of no study
        "1.2.840.10008.9.9.9",
        "",
        "nonsense",
    ],
)
def test_not_storage(uid: str) -> None:
    assert not is_storage(uid, private=True)


def test_private_classes_by_policy() -> None:
    assert is_storage(PRIVATE, private=True)
    assert not is_storage(PRIVATE, private=False)
    assert is_storage(PRIVATE, private=frozenset({PRIVATE}))
    assert not is_storage(PRIVATE, private=frozenset({PRIVATE + ".1"}))


def test_transfer_syntaxes_keep_the_order_of_the_peer() -> None:
    proposed = [(CT, [JPEG, "1.2.3"]), (CT, [EXPLICIT]), (VERIFICATION, [EXPLICIT])]
    found = accepted(proposed, private=False)
    assert found == {CT: (JPEG, EXPLICIT), VERIFICATION: (EXPLICIT,)}


def test_a_context_with_no_usable_transfer_syntax_is_left_out() -> None:
    assert accepted([(CT, ["1.2.840.10008.1.2.7.1"]), ("1.2.3", [EXPLICIT])], private=False) == {}
