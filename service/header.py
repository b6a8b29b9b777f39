"""Of a data set only the indexed elements are decoded, so that nothing else in it can do harm.

Walks the top level (PS3.5 7.1) of the first bytes up to the last indexed tag. Sequences, of defined
or undefined length, are stepped over without recursion. The number of elements, the depth, the
inflated size and the length of a value are bounded. Equal to pydicom on well-formed data sets.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, calcsize, error, iter_unpack

from pydicom.datadict import dictionary_VR, tag_for_keyword

from service.character_sets import decode
from storage.records import Header

INDEXED: tuple[str, ...] = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "SeriesDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "StudyDescription",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "ContrastBolusAgent",
    "BodyPartExamined",
    "SliceThickness",
    "KVP",
    "SpacingBetweenSlices",
    "ProtocolName",
    "ConvolutionKernel",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BurnedInAnnotation",
    "LossyImageCompression",
)

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)  # the whole data set is deflated (PS3.5 A.5, A.7, A.11)

MAXIMUM_INFLATED = 4 << 20  # bytes of a deflated data set that are looked at
MAXIMUM_ELEMENTS = 300_000  # of all levels, stepped over
MAXIMUM_DEPTH = 1_000  # of nested sequences of undefined length
MAXIMUM_VALUE = 4096  # bytes of one indexed value

_KEYWORDS = {tag_for_keyword(keyword): keyword for keyword in INDEXED}
_LAST = max(tag for tag in _KEYWORDS if tag is not None)
_LONG_FORM = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)  # PS3.5 Table 7.1-1
_SHORT_FORM = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # PS3.5 Table 7.1-2
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d"}
_ENCODED_TEXT = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"})
_ONE_VALUE = frozenset({b"LT", b"ST", b"UT", b"UR"})
_SMALLEST_ELEMENT = 8  # bytes; fewer at the end are padding
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


class HeaderError(ValueError):
    """The bytes are no data set in that transfer syntax; `str(error)` quotes no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """`cut`: the bytes ended before the last indexed tag, not at the data set's end."""

    header: Header
    cut: bool


@dataclass(frozen=True, slots=True)
class _Element:
    tag: int
    vr: bytes  # empty when implicit
    start: int  # of the value
    length: int


@dataclass(frozen=True, slots=True)
class _Found:
    vr: bytes
    value: bytes
    order: str  # of bytes, as `struct` names it


class _Cut(Exception):  # noqa: N818  (not an error: the bytes at hand are used up)
    pass


def read_header(data: bytes, transfer_syntax_uid: str) -> Header:
    """Keyword -> values of the indexed elements that are not empty; `HeaderError` if unreadable."""
    return scan(data, transfer_syntax_uid, whole=False).header


def scan(data: bytes, transfer_syntax_uid: str, *, whole: bool) -> Scan:
    """What the first bytes of a data set, or the `whole` of it, have of the indexed elements."""
    if transfer_syntax_uid in DEFLATED:
        data, whole = _inflated(data)
    walk = _Walk(data, transfer_syntax_uid)
    found: dict[str, _Found] = {}
    rest = walk.into(found)
    cut = rest is not None and not (whole and rest < _SMALLEST_ELEMENT)
    return Scan(header=_texts(found), cut=cut)


def _inflated(data: bytes) -> tuple[bytes, bool]:
    """What is looked at of a deflated data set, and whether it is all of it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(data, MAXIMUM_INFLATED), inflater.eof
    except zlib.error as problem:
        raise HeaderError("not a deflated data set") from problem


class _Walk:
    """Over the elements of one data set; keeps the bounds."""

    def __init__(self, data: bytes, transfer_syntax_uid: str) -> None:
        self._data = data
        order = ">" if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN else "<"
        self._order = order
        self._tag = Struct(order + "HH")
        self._short = Struct(order + "H")
        self._long = Struct(order + "I")
        self._left = MAXIMUM_ELEMENTS
        self._at = 0  # of the current element of the top level
        self._implicit = self._is_implicit(declared=transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN)

    def into(self, found: dict[str, _Found]) -> int | None:
        """Fills `found`; None, or if the bytes were used up, how many the last element had."""
        try:
            for element in self._top_level():
                keyword = _KEYWORDS.get(element.tag)
                if keyword is not None:
                    found[keyword] = _Found(self._vr(element), self._value(element), self._order)
        except _Cut:
            return max(0, len(self._data) - self._at)
        return None

    def _top_level(self) -> Iterator[_Element]:
        while True:
            element = self._element(self._at, implicit=self._implicit)
            if element.tag > _LAST:
                return
            if element.length == _UNDEFINED:
                self._at = self._after_undefined(element)
            else:
                yield element
                self._at = self._after_defined(element)

    def _after_defined(self, element: _Element) -> int:
        end = element.start + element.length
        if end > len(self._data):
            raise _Cut
        return end

    def _is_implicit(self, *, declared: bool) -> bool:
        """What the first element shows, where it contradicts the declaration (some devices lie)."""
        vr = self._data[4:6]
        if declared:
            return not (vr in _LONG_FORM or vr in _SHORT_FORM)
        return len(vr) == 2 and not b"AA" <= vr <= b"ZZ"

    def _element(self, at: int, *, implicit: bool) -> _Element:
        self._left -= 1
        if self._left < 0:
            raise HeaderError(f"more than {MAXIMUM_ELEMENTS} elements before the last indexed one")
        try:
            group, number = self._tag.unpack_from(self._data, at)
            tag = group << 16 | number
            vr = self._data[at + 4 : at + 6]
            if implicit or group == 0xFFFE or not b"AA" <= vr <= b"ZZ":
                return _Element(tag, b"", at + 8, self._long.unpack_from(self._data, at + 4)[0])
            if vr in _LONG_FORM:
                return _Element(tag, vr, at + 12, self._long.unpack_from(self._data, at + 8)[0])
            return _Element(tag, vr, at + 8, self._short.unpack_from(self._data, at + 6)[0])
        except error as problem:
            raise _Cut from problem

    def _after_undefined(self, element: _Element) -> int:
        """Where it ends; what UN of undefined length hides is implicit VR (PS3.5 6.2.2 note 2)."""
        open_levels = [self._implicit or element.vr == b"UN"]
        at = element.start
        while open_levels:
            inner = self._element(at, implicit=open_levels[-1])
            at = inner.start
            if inner.tag in {_ITEM_END, _SEQUENCE_END}:
                open_levels.pop()
            elif inner.length != _UNDEFINED:
                at += inner.length
            elif len(open_levels) >= MAXIMUM_DEPTH:
                raise HeaderError(f"sequences nested more than {MAXIMUM_DEPTH} deep")
            else:
                open_levels.append(open_levels[-1] or inner.vr == b"UN")
        return at

    def _vr(self, element: _Element) -> bytes:
        if element.vr in {b"", b"UN"}:
            return dictionary_VR(element.tag).split(" ")[0].encode("ascii")
        return element.vr

    def _value(self, element: _Element) -> bytes:
        end = self._after_defined(element)
        return self._data[element.start : min(end, element.start + MAXIMUM_VALUE)]


def _texts(found: dict[str, _Found]) -> Header:
    charset = found.get("SpecificCharacterSet")
    terms = charset.value.decode("ascii", "replace").split("\\") if charset else []
    texts = {keyword: _values(each, terms) for keyword, each in found.items()}
    return {keyword: values for keyword, values in texts.items() if any(values)}


def _values(found: _Found, terms: list[str]) -> tuple[str, ...]:
    if found.vr in _NUMBERS:
        return _numbers(found.value, found.order + _NUMBERS[found.vr])
    text = _text(found, terms).replace("\0", "")
    values = [text] if found.vr in _ONE_VALUE else text.split("\\")
    padding = " \t\r\n=" if found.vr == b"PN" else " \t\r\n"
    return tuple(value.strip(" \t\r\n").rstrip(padding) for value in values)


def _numbers(raw: bytes, form: str) -> tuple[str, ...]:
    whole = raw[: len(raw) // calcsize(form) * calcsize(form)]
    return tuple(str(value) for (value,) in iter_unpack(form, whole))


def _text(found: _Found, terms: list[str]) -> str:
    if found.vr not in _ENCODED_TEXT:
        return found.value.decode("latin_1")
    delimiters = b"\\^=" if found.vr == b"PN" else b"\\\r\n\t\f"
    return decode(found.value, terms, delimiters=delimiters)
