"""Text of a data set for people to read: any bytes decode and none raise.

Specific Character Set (PS3.3 C.12.1.1.2) is believed where the bytes fit it. Labels that are
evidently wrong (UTF-8, Windows-1251 or GB 2312 text under a Latin label or none) are seen through.
"""

import re
from collections.abc import Sequence

ESCAPE = b"\x1b"
DEFAULT = "ascii"

_SINGLE_BYTE = {
    "6": DEFAULT,
    "13": "shift_jis",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "166": "tis_620",
    "203": "iso8859_15",
}
_MULTI_BYTE = {
    "58": "gb2312",
    "87": "iso2022_jp_2",
    "149": "euc_kr",
    "159": "iso2022_jp_2",
    "192": "utf_8",
}
_NAMED = {"UTF": "utf_8", "GB18030": "gb18030", "GBK": "gb18030"}
_LATIN = {DEFAULT, "latin_1", "iso8859_2", "iso8859_3", "iso8859_4", "iso8859_9", "iso8859_15"}
_ESCAPES = {  # PS3.3 Tables C.12-3 and C.12-4
    b"(B": DEFAULT,
    b"(J": "shift_jis",
    b")I": "shift_jis",
    b"-A": "latin_1",
    b"-B": "iso8859_2",
    b"-C": "iso8859_3",
    b"-D": "iso8859_4",
    b"-F": "iso8859_7",
    b"-G": "iso8859_6",
    b"-H": "iso8859_8",
    b"-L": "iso8859_5",
    b"-M": "iso8859_9",
    b"-T": "tis_620",
    b"-b": "iso8859_15",
    b"$B": "iso2022_jp_2",
    b"$(D": "iso2022_jp_2",
    b"$)A": "gb2312",
    b"$)C": "euc_kr",
}
_SWITCH = re.compile(rb"\x1b(\$[()][A-D]|\$B|[()-][A-Za-z])")
_WITH_ESCAPES = {"iso2022_jp_2"}  # Python's codec reads the escape sequence itself
_CYRILLIC_WORDS = re.compile(
    rb"(?:[\x00-\x7f]|(?<![\x80-\xff])(?:[\xc0-\xdf\xa8]?[\xe0-\xff\xb8]+|[\xc0-\xdf\xa8]+)(?![\x80-\xff]))+"
)
_HIGH_RUN = re.compile(rb"[\x80-\xff]{3}")
_C1 = re.compile(rb"[\x80-\x9f]")


def decode(raw: bytes, terms: Sequence[str], *, delimiters: bytes = b"\\\r\n\t\f") -> str:
    """`raw` as text under the terms of Specific Character Set.

    `delimiters`: bytes that end a code extension (PS3.5 6.1.2.5.3).
    """
    first = codec(terms[0]) if terms else DEFAULT
    if raw.isascii() and ESCAPE not in raw:
        return raw.decode("ascii")
    if ESCAPE not in raw:
        return _plain(raw, first)
    head, *rest = _switches(raw)
    pieces = [_plain(head[1], first), *(_extended(*piece, first, delimiters) for piece in rest)]
    return "".join(pieces)


def codec(term: str) -> str:
    """Python's name for a defined term, or for a usual misspelling of one; ASCII if none."""
    text = term.strip().upper()
    for name, found in _NAMED.items():
        if name in text:
            return found
    number = re.search(r"(\d+)$", text)
    if number is None:
        return DEFAULT
    return _SINGLE_BYTE.get(number[1]) or _MULTI_BYTE.get(number[1], DEFAULT)


def _switches(raw: bytes) -> list[tuple[bytes, bytes]]:
    """(escape code, bytes until the next escape); the first has no escape code."""
    parts = _SWITCH.split(raw)
    return [(b"", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def _extended(code: bytes, raw: bytes, first: str, delimiters: bytes) -> str:
    name = _ESCAPES.get(code, first)
    if name in _WITH_ESCAPES:
        return (ESCAPE + code + raw).decode(name, "replace")
    if name == DEFAULT:
        return _plain(raw, first)
    cut = next((at for at, byte in enumerate(raw) if byte in delimiters), len(raw))
    return raw[:cut].decode(name, "replace") + _plain(raw[cut:], first)


def _plain(raw: bytes, name: str) -> str:
    """Bytes without escapes, declared as `name`."""
    if raw.isascii() and name != "shift_jis":
        return raw.decode("ascii")
    return raw.decode(_believable(raw, name), "replace")


def _believable(raw: bytes, name: str) -> str:
    """The codec to use for `raw`, which has bytes above 0x7F and is declared as `name`."""
    if name in _LATIN and _fits(raw, "utf_8"):
        return "utf_8"
    if name not in _LATIN and name.startswith("iso8859") and _C1.search(raw):
        return "utf_8" if _fits(raw, "utf_8") else name
    if name in {DEFAULT, "latin_1"} or (name == "utf_8" and not _fits(raw, name)):
        return _guess(raw, "utf_8" if name == "utf_8" else "latin_1")
    return name


def _guess(raw: bytes, otherwise: str) -> str:
    if _HIGH_RUN.search(raw) is None:
        return otherwise
    if _CYRILLIC_WORDS.fullmatch(raw):
        return "cp1251"
    return "gb18030" if _fits(raw, "gb2312") else otherwise


def _fits(raw: bytes, name: str) -> bool:
    try:
        raw.decode(name)
    except UnicodeDecodeError:
        return False
    return True
