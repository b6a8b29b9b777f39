"""A long sequence of alike items becomes the bytes that pydicom gives it, in a part of its time.

A segmentation has an item for each of its many hundred frames, and most of what one holds is in
another as well. pydicom encodes each value once; items and lengths are put around it here, as
PS3.5 7.5 says: Explicit VR Little Endian, all lengths defined.
"""

import struct

from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

Text = tuple[type, str]  # a number of another type may read alike and be another (numpy.float32)
Key = tuple[int, str, Text | tuple[Text, ...]]
Known = dict[Key, bytes]
_ITEM = struct.Struct("<HHL")
_SEQUENCE = struct.Struct("<HH2sHL")


def encoded(sequence: DataElement, character_set: str) -> RawDataElement:
    """The element of VR SQ with its items as bytes; nothing in them may have an ambiguous VR."""
    value = _items(sequence, character_set, {})
    return RawDataElement(
        tag=BaseTag(sequence.tag),
        VR="SQ",
        length=len(value),
        value=value,
        value_tell=0,
        is_implicit_VR=False,
        is_little_endian=True,
    )


def _items(sequence: DataElement, character_set: str, known: Known) -> bytes:
    return b"".join(_item(item, character_set, known) for item in sequence.value)


def _item(item: Dataset, character_set: str, known: Known) -> bytes:
    tags = sorted(item.keys(), key=int)
    value = b"".join(_element(item[tag], character_set, known) for tag in tags)
    return _ITEM.pack(0xFFFE, 0xE000, len(value)) + value


def _element(element: DataElement, character_set: str, known: Known) -> bytes:
    tag = element.tag
    if element.VR == "SQ":
        value = _items(element, character_set, known)
        return _SEQUENCE.pack(tag >> 16, tag & 0xFFFF, b"SQ", 0, len(value)) + value
    key = (int(tag), str(element.VR), _as_text(element))
    if key not in known:
        known[key] = _leaf(element, character_set)
    return known[key]


def _as_text(element: DataElement) -> Text | tuple[Text, ...]:
    value = element.value
    if isinstance(value, (MultiValue, list)):
        return tuple((type(one), str(one)) for one in value)
    return type(value), str(value)


def _leaf(element: DataElement, character_set: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_data_element(buffer, element, character_set)
    return buffer.getvalue()
