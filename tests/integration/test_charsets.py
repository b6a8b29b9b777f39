"""Text passes unchanged in its file and shows right in the catalogue, also under a wrong label.

Not covered: text in result objects (tests of inference/encoding), fonts of the page.
"""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from service.character_sets import decode
from service.header import scan
from tests.objects import CT, EXPLICIT, ct, data_set_bytes, uid
from tests.part10_files import files, take_apart
from tests.raw_peer import RawPeer
from tests.receiver import Receiver, receiving

# Specific Character Set, how the bytes are encoded, what a person has to see
LABELLED = [
    ("GB18030", "gb18030", "王^小东"),
    ("GBK", "gbk", "王^小东"),
    ("ISO_IR 192", "utf-8", "Ζωή^Ελένη"),
    ("ISO_IR 192", "utf-8", "山田^太郎"),
    ("ISO_IR 100", "latin-1", "Müller^Jürgen"),
    ("ISO_IR 101", "iso8859-2", "Wałęsa^Łukasz"),
    ("ISO_IR 126", "iso8859-7", "Διονυσιος^Ελλη"),
    ("ISO_IR 127", "iso8859-6", "قباني^لنزار"),
    ("ISO_IR 138", "iso8859-8", "שרון^דבורה"),
    ("ISO_IR 144", "iso8859-5", "Люкceмбypг^Иван"),
    ("ISO_IR 148", "iso8859-9", "Çavuşoğlu^Ayşe"),
    ("ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("ISO_IR 166", "tis-620", "นามสกุล^ชื่อ"),
]
ISO_2022 = [
    (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        "Yamada^Tarou=山田^太郎",
    ),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
        "Hong^Gildong=洪^吉洞",
    ),
    (
        "\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
        "Zhang^XiaoDong=张^小东",
    ),
    (
        "ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126",
        b"\x1b-L\xbb\xee\xda^\x1b-F\xc4\xe9",
        "Люк^Δι",
    ),
]
MISLABELLED = [
    ("", "cp1251", "Иванов^Пётр"),
    ("ISO_IR 6", "cp1251", "Иванов^Пётр"),
    ("ISO_IR 100", "cp1251", "ИВАНОВА^МАРИЯ"),
    ("", "utf-8", "Müller^Jürgen"),
    ("ISO_IR 100", "utf-8", "Иванов^Пётр"),
    ("ISO_IR 100", "utf-8", "山田^太郎"),
    ("ISO_IR 144", "utf-8", "Иванов^Пётр"),
    ("", "gb18030", "王小明"),
    ("ISO_IR 100", "gb18030", "欧阳^小东"),
    ("", "latin-1", "Müller^Jürgen"),
    ("ISO_IR 192", "latin-1", "M�ller^J�rgen"),
    ("ISO_IR 192", "cp1251", "Иванов^Пётр"),
    ("NONSENSE 7", "latin-1", "Müller^Jürgen"),
    ("ISO-IR 100", "latin-1", "Müller^Jürgen"),
    ("ISO_IR_192", "utf-8", "山田^太郎"),
]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("node")) as found:
        yield found


def sent(receiver: Receiver, label: str, name: bytes) -> tuple[bytes, bytes, str]:
    """The data set as sent and as kept, and the name as the catalogue shows it."""
    own = uid(label + name.hex())
    raw = labelled(own, label, name)
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        assert peer.store(1, CT, own, raw) == 0x0000
        peer.release()
    row = next(row for row in receiver.rows() if row.sop_instance_uid == own)
    part = take_apart(receiver.file(row), row.key)
    assert part is not None
    return raw, part.data_set, row.header["PatientName"][0]


def labelled(own: str, label: str, name: bytes) -> bytes:
    """A data set with these bytes for a name; the label as it is, right or wrong."""
    padded = name + b" " * (len(name) % 2)
    term = label.encode("ascii") + b" " * (len(label) % 2)
    raw = data_set_bytes(ct("x", SOPInstanceUID=own, PatientName="@" * len(padded)))
    raw = raw.replace(b"@" * len(padded), padded)
    return b"\x08\x00\x05\x00CS" + len(term).to_bytes(2, "little") + term + raw


def shown(label: str, name: bytes) -> str:
    return scan(labelled("1.2.3", label, name), EXPLICIT, whole=True).header["PatientName"][0]


@pytest.mark.parametrize(("label", "encoding", "text"), LABELLED)
def test_labelled_text(receiver: Receiver, label: str, encoding: str, text: str) -> None:
    before, after, name = sent(receiver, label, text.encode(encoding))
    assert after == before
    assert name == text


@pytest.mark.parametrize(("label", "raw", "text"), ISO_2022)
def test_code_extensions(receiver: Receiver, label: str, raw: bytes, text: str) -> None:
    before, after, name = sent(receiver, label, raw)
    assert after == before
    assert name == text


@pytest.mark.parametrize(("label", "encoding", "text"), MISLABELLED)
def test_wrong_labels(receiver: Receiver, label: str, encoding: str, text: str) -> None:
    clean = text.replace("M�ller^J�rgen", "Müller^Jürgen")
    before, after, name = sent(receiver, label, clean.encode(encoding))
    assert after == before
    assert name == text


@pytest.mark.parametrize(
    ("label", "encoding", "text"),
    [
        ("ISO_IR 100", "latin-1", "Noël^Zoë"),
        ("ISO_IR 100", "latin-1", "Åse^Øyvind"),
        ("ISO_IR 100", "latin-1", "Cañón^Íñigo"),
        ("ISO_IR 100", "latin-1", "Brontë^Désirée"),
        ("ISO_IR 126", "iso8859-7", "ΆΝΝΑ^ΠΑΠΑ"),
        ("ISO_IR 144", "iso8859-5", "ТАТА^ТАТА"),
        ("GB18030", "gb18030", "李^娜"),
    ],
)
def test_right_labels_are_believed(label: str, encoding: str, text: str) -> None:
    assert shown(label, text.encode(encoding)) == text


def test_a_backslash_in_a_character_of_gb18030_is_no_delimiter() -> None:
    raw = "沒^誠".encode("gb18030")
    assert b"\x5c" in raw
    assert shown("GB18030", raw) == "沒^誠"


@pytest.mark.parametrize("raw", [b"\xff\xfe\xfd", b"\x1b$B\xff", b"\x1b", b"\x1b$", b"\x80" * 9])
@pytest.mark.parametrize("label", ["", "ISO_IR 192", "GB18030", "\\ISO 2022 IR 87", "ISO_IR 13"])
def test_any_bytes_show_as_something(label: str, raw: bytes) -> None:
    assert isinstance(decode(raw, label.split("\\")), str)


def test_the_charset_files_of_the_shared_data(receiver: Receiver, data: Path) -> None:
    for part in files(data / "charsets"):
        head = pydicom.dcmread(data / "charsets" / part.name, stop_before_pixels=True)
        if head.get("SOPInstanceUID") is None or not head.get("SeriesInstanceUID"):
            continue
        with RawPeer(receiver.port) as peer:
            peer.associate([(str(head.SOPClassUID), [part.transfer_syntax])])
            own = str(head.SOPInstanceUID)
            assert peer.store(1, str(head.SOPClassUID), own, part.data_set) == 0x0000
            peer.release()
        mine = [row for row in receiver.rows() if row.sop_instance_uid == own]
        kept = [take_apart(receiver.file(row), row.key) for row in mine]
        assert part.data_set in [found.data_set for found in kept if found is not None]
        names = {row.header.get("PatientName", ("",))[0] for row in mine}
        assert str(head.get("PatientName", "")).rstrip("=") in names
