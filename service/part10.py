"""Equal objects have equal files: the head of a DICOM file for data set bytes (PS3.10 7.1)."""

from struct import pack

IMPLEMENTATION_CLASS_UID = "2.25.308853165579771801034662259456819274604"  # as in our results
IMPLEMENTATION_VERSION_NAME = "HOUNSFIELD"

_PREAMBLE = bytes(128) + b"DICM"


def head(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and file meta information. Empty UIDs give empty elements."""
    elements = b"".join(
        (
            _long(0x0001, b"OB", b"\x00\x01"),
            _short(0x0002, b"UI", sop_class_uid),
            _short(0x0003, b"UI", sop_instance_uid),
            _short(0x0010, b"UI", transfer_syntax_uid),
            _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        )
    )
    return _PREAMBLE + pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(elements)) + elements


def _short(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _long(element: int, vr: bytes, value: bytes) -> bytes:
    return pack("<HH2sHI", 0x0002, element, vr, 0, len(value)) + value
