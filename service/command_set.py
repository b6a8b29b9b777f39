"""Command sets (PS3.7 6.3.1, Annex E) to and from bytes; what is none raises."""

from collections.abc import Mapping
from struct import Struct, pack

AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
NO_DATA_SET = 0x0101

CommandSet = Mapping[int, bytes]
"""Element number in group 0000 -> value."""

_HEADER = Struct("<HHI")


class CommandSetError(ValueError):
    """The bytes are not a command set."""


def parse(data: bytes) -> CommandSet:
    """The elements of a command set; `CommandSetError` when it is none."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _HEADER.size <= len(data):
        group, number, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        if group != 0 or at + length > len(data):
            raise CommandSetError(f"at byte {at}: not an element of a command set")
        found[number] = data[at : at + length]
        at += length
    return found


def text(command: CommandSet, number: int) -> str:
    """A UID or a string; empty when it is absent."""
    return command.get(number, b"").decode("latin_1").strip(" \0")


def integer(command: CommandSet, number: int) -> int | None:
    """An unsigned short; None when it is absent or none."""
    value = command.get(number, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def store_response(request: CommandSet, status: int, comment: str) -> bytes:
    """The C-STORE-RSP to `request` (PS3.7 Table 9.3-2); UIDs are given back as they came."""
    echoed = {
        number: request[number]
        for number in (AFFECTED_SOP_CLASS_UID, AFFECTED_SOP_INSTANCE_UID)
        if request.get(number)
    }
    elements = {
        COMMAND_FIELD: pack("<H", C_STORE_RSP),
        MESSAGE_ID_BEING_RESPONDED_TO: request.get(MESSAGE_ID, b"\0\0"),
        COMMAND_DATA_SET_TYPE: pack("<H", NO_DATA_SET),
        STATUS: pack("<H", status),
        **({ERROR_COMMENT: comment.encode("ascii", "replace")} if comment else {}),
        **echoed,
    }
    body = b"".join(_element(number, elements[number]) for number in sorted(elements))
    return _element(0x0000, pack("<I", len(body))) + body


def _element(number: int, value: bytes) -> bytes:
    padding = b" " if number == ERROR_COMMENT else b"\0"
    value += padding * (len(value) % 2)
    return _HEADER.pack(0, number, len(value)) + value
