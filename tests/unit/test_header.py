"""The header scanner equals pydicom on real and made data sets, and bombs do it no harm.

Not covered: what a person sees of wrongly labelled text (tests/integration/test_charsets.py).
"""

import io
import math
import struct
import time
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID

from service.character_sets import codec
from service.header import INDEXED, MAXIMUM_DEPTH, HeaderError, read_header, scan
from tests.part10_files import Part10, files, packed_files

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"


def expected(data_set: Dataset) -> dict[str, tuple[str, ...]]:
    """What pydicom says of the indexed elements, in the form of a Header."""
    found = {keyword: texts(data_set.get(keyword)) for keyword in INDEXED}
    return {keyword: values for keyword, values in found.items() if any(values)}


def texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, MultiValue | list) else [value]
    return tuple(str(each).replace("\0", "").strip(" \t\r\n") for each in values)


def same(keyword: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Equal, or equal as numbers: pydicom may write a decimal string in another way."""
    if keyword == "PatientName":
        theirs = tuple(each.rstrip("=") for each in theirs)
    if ours == theirs:
        return True
    try:
        return all(math.isclose(float(a), float(b)) for a, b in zip(ours, theirs, strict=True))
    except ValueError:
        return False


def assert_equal(part: Part10) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files are odd on purpose
        theirs = expected(pydicom.dcmread(io.BytesIO(part.raw), stop_before_pixels=True))
    ours = scan(part.data_set, part.transfer_syntax, whole=True).header
    different = {
        keyword: (ours.get(keyword), theirs.get(keyword))
        for keyword in INDEXED
        if not same(keyword, ours.get(keyword, ()), theirs.get(keyword, ()))
    }
    assert not different, part.name


def test_equals_pydicom_on_every_file_of_the_shared_data(data: Path) -> None:
    syntaxes = set()
    for part in (*files(data), *packed_files(data)):
        assert_equal(part)
        syntaxes.add(part.transfer_syntax)
    assert {IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED} <= syntaxes
    assert len(syntaxes) > 12


def test_first_64_kib_are_enough_or_it_says_so(data: Path) -> None:
    for part in files(data):
        found = scan(part.data_set[:65536], part.transfer_syntax, whole=False)
        if not found.cut:
            whole = scan(part.data_set, part.transfer_syntax, whole=True).header
            assert found.header == whole, part.name


TEXT = st.text(st.characters(codec="ascii", exclude_characters="\\^=\x7f"), max_size=16)
ASCII = TEXT.map(lambda text: "".join(c for c in text if c.isprintable()).strip())
NUMBER = st.integers(-(10**6), 10**6)
ELEMENTS = {
    "ImageType": st.lists(st.sampled_from(["ORIGINAL", "DERIVED", "AXIAL"]), max_size=4),
    "SOPInstanceUID": st.integers(1, 10**20).map(lambda n: f"1.2.{n}"),
    "Modality": st.sampled_from(["CT", "MR", ""]),
    "StudyDescription": ASCII,
    "PatientName": st.lists(ASCII, max_size=5).map("^".join),
    "PatientAge": st.sampled_from(["045Y", ""]),
    "SliceThickness": NUMBER.map(str),
    "InstanceNumber": NUMBER.map(str),
    "ImagePositionPatient": st.lists(NUMBER.map(str), min_size=3, max_size=3),
    "Rows": st.integers(0, 65535),
    "Columns": st.integers(0, 65535),
    "BurnedInAnnotation": st.sampled_from(["YES", "NO"]),
}


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 3) -> Dataset:
    """Data sets with sequences between, before and after the indexed elements."""
    made = Dataset()
    for keyword in draw(st.sets(st.sampled_from(sorted(ELEMENTS)))):
        setattr(made, keyword, draw(ELEMENTS[keyword]))
    if draw(st.booleans()):
        block = made.private_block(0x0019, "HOUNSFIELD TEST", create=True)
        block.add_new(0x01, "UN", draw(st.binary(max_size=40).filter(lambda b: len(b) % 2 == 0)))
        block.add_new(0x02, "OB", b"\xfe\xff\xdd\xe0\0\0\0\0")  # looks like a delimiter
    if depth:
        for keyword in draw(st.sets(st.sampled_from(SEQUENCES), max_size=2)):
            items = draw(st.lists(data_sets(depth=depth - 1), max_size=2))
            for item in items:
                item.is_undefined_length_sequence_item = draw(st.booleans())
            setattr(made, keyword, Sequence(items))
            made[keyword].is_undefined_length = draw(st.booleans())
    return made


SEQUENCES = ["ReferencedImageSequence", "RequestAttributesSequence", "ModalityLUTSequence"]


def encoded(data_set: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == IMPLICIT
    buffer.is_little_endian = syntax != BIG_ENDIAN
    write_dataset(buffer, data_set)
    written = buffer.getvalue()
    if syntax != DEFLATED:
        return written
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(written) + deflater.flush()


@given(data_set=data_sets(), syntax=st.sampled_from([IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED]))
@settings(max_examples=150, deadline=None)
def test_equals_pydicom_on_made_data_sets(data_set: Dataset, syntax: str) -> None:
    raw = encoded(data_set, syntax)
    found = scan(raw, syntax, whole=True)
    assert not found.cut
    theirs = expected(data_set)
    for keyword in INDEXED:
        assert same(keyword, found.header.get(keyword, ()), theirs.get(keyword, ())), keyword


@given(raw=st.binary(max_size=400), syntax=st.sampled_from([IMPLICIT, EXPLICIT, DEFLATED]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_header_or_a_header_error(raw: bytes, syntax: str) -> None:
    try:
        scan(raw, syntax, whole=True)
    except HeaderError:
        return


@given(data_set=data_sets(), cut=st.integers(0, 2000), flips=st.lists(st.integers(0, 2000)))
@settings(max_examples=150, deadline=None)
def test_damaged_data_sets_do_no_harm(data_set: Dataset, cut: int, flips: list[int]) -> None:
    raw = bytearray(encoded(data_set, EXPLICIT)[:cut])
    for place in flips:
        if place < len(raw):
            raw[place] ^= 0xFF
    try:
        scan(bytes(raw), EXPLICIT, whole=True)
    except HeaderError:
        return


def nested(depth: int) -> bytes:
    """A sequence in an item in a sequence ..., all of undefined length, never closed."""
    opening = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return (opening + item) * depth


def test_deep_nesting_is_refused_without_recursion() -> None:
    with pytest.raises(HeaderError, match="nested"):
        scan(nested(MAXIMUM_DEPTH), EXPLICIT, whole=True)


def test_nesting_within_the_bound_is_stepped_over() -> None:
    depth = MAXIMUM_DEPTH // 2 - 1
    closing = (
        struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    ) * depth
    rows = struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, 512)
    found = scan(nested(depth) + closing + rows, EXPLICIT, whole=True)
    assert found.header == {"Rows": ("512",)}


def test_a_deflate_bomb_is_inflated_to_the_bound_only() -> None:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    large = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 1 << 30)
    bomb = deflater.compress(large) + deflater.compress(bytes(256 << 20)) + deflater.flush()
    began = time.monotonic()
    assert scan(bomb, DEFLATED, whole=True).cut
    assert time.monotonic() - began < 1.0


def test_bytes_that_are_not_deflated_are_refused() -> None:
    with pytest.raises(HeaderError, match="deflated"):
        scan(b"\xff" * 100, DEFLATED, whole=True)


def test_a_header_longer_than_the_first_bytes_is_said_to_be_cut() -> None:
    large = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 100_000) + bytes(100_000)
    rows = struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, 512)
    assert scan((large + rows)[:65536], EXPLICIT, whole=False).cut
    assert scan(large + rows, EXPLICIT, whole=True).header == {"Rows": ("512",)}


def test_a_data_set_that_ends_inside_an_element_is_cut() -> None:
    raw = struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 16) + b"CT"
    assert scan(raw, EXPLICIT, whole=True).cut
    assert read_header(raw, EXPLICIT) == {}


def test_explicit_data_in_an_implicit_context_is_read_as_what_it_is() -> None:
    made = Dataset()
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    made.Modality = "CT"
    assert read_header(encoded(made, EXPLICIT), IMPLICIT)["Modality"] == ("CT",)
    assert read_header(encoded(made, IMPLICIT), EXPLICIT)["Modality"] == ("CT",)


def test_values_of_absurd_length_are_cut_short() -> None:
    raw = struct.pack("<HH2sHI", 0x0008, 0x1030, b"UT", 0, 1 << 20) + b"x" * (1 << 20)
    (value,) = scan(raw, EXPLICIT, whole=True).header["StudyDescription"]
    assert len(value) == 4096


def test_every_defined_term_of_pydicom_is_known() -> None:
    for term in python_encoding:
        if term and "IR 6" not in term and term not in {"ISO_IR 6", "ISO 2022 58"}:
            assert codec(term) != "ascii", term


def test_a_large_header_is_read_fast() -> None:
    made = Dataset()
    item = Dataset()
    item.ReferencedSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    item.ReferencedSOPInstanceUID = UID("1.2.3")
    item.is_undefined_length_sequence_item = True
    made.ReferencedImageSequence = Sequence([item] * 5000)
    made["ReferencedImageSequence"].is_undefined_length = True
    made.Modality = "SEG"
    made.Rows = 512
    raw = encoded(made, EXPLICIT)
    began = time.monotonic()
    assert scan(raw, EXPLICIT, whole=True).header["Rows"] == ("512",)
    assert time.monotonic() - began < 1.0
    assert io.BytesIO(raw).getbuffer().nbytes > 300_000
