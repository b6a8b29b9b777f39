"""Every storage SOP class in every transfer syntax is accepted, also newer ones; nothing else is.

Pure: what a peer proposes and our policy give what is accepted.
"""

from collections.abc import Iterable, Mapping, Sequence

from pydicom.uid import UID

VERIFICATION = "1.2.840.10008.1.1"
DICOM_ROOT = "1.2.840.10008."

Policy = bool | frozenset[str]
"""Private storage SOP classes: all, none, or those named."""

_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_SYNTAX_ROOT = "1.2.840.10008.1.2"
_NON_PATIENT = frozenset(
    _STORAGE_ROOT + leaf for leaf in ("200.1", "200.3", "200.7", "201.1")
) | frozenset("1.2.840.10008.5.1.4." + leaf for leaf in ("38.1", "39.1", "43.1", "44.1", "45.1"))
# protocols, templates and inventories belong to no study: another service class (PS3.4 Annex GG)
_NOT_FOR_NETWORK = (
    "1.2.840.10008.1.2.6.",  # MIME and XML encapsulation, not data sets
    "1.2.840.10008.1.2.7.",  # SMPTE ST 2110: real-time video
)
_LONGEST_UID = 64


def accepted(
    proposed: Iterable[tuple[str, Sequence[str]]], private: Policy
) -> Mapping[str, tuple[str, ...]]:
    """Abstract syntax -> transfer syntaxes that we take, in the order of the peer."""
    found: dict[str, dict[str, None]] = {}
    for abstract, transfers in proposed:
        if abstract == VERIFICATION or is_storage(abstract, private):
            known = (transfer for transfer in transfers if is_transfer_syntax(transfer))
            found.setdefault(abstract, {}).update(dict.fromkeys(known))
    return {abstract: tuple(transfers) for abstract, transfers in found.items() if transfers}


def is_storage(uid: str, private: Policy) -> bool:
    """Whether `uid` is a storage SOP class that is kept here."""
    if not uid.startswith(DICOM_ROOT):
        return _is_uid(uid) and (uid in private if isinstance(private, frozenset) else private)
    if uid in _NON_PATIENT:
        return False
    known = UID(uid)
    if known.name == uid:  # not in the dictionary: newer than it
        return uid.startswith(_STORAGE_ROOT)
    return known.type == "SOP Class" and "Storage" in known.name and not _is_a_service(known.name)


def is_transfer_syntax(uid: str) -> bool:
    """Whether data sets in `uid` are kept here: all of the standard, retired and new ones."""
    if uid.startswith(_NOT_FOR_NETWORK):
        return False
    return uid == _SYNTAX_ROOT or uid.startswith(_SYNTAX_ROOT + ".")


def _is_uid(uid: str) -> bool:
    return 0 < len(uid) <= _LONGEST_UID and not set(uid) - set("0123456789.")


def _is_a_service(name: str) -> bool:
    return "Storage Commitment" in name or "Media Storage Directory" in name
