"""What is sent is kept byte for byte and catalogued, whatever its transfer syntax and SOP class.

Not covered: refusals (test_receive_refusals.py), broken and slow associations
(test_receive_associations.py, test_receive_serving.py), faults (test_receive_faults.py),
PostgreSQL.
"""

import hashlib
import io
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from storage.records import Instance, SeriesState
from tests.objects import CT, EXPLICIT, ct, ct_file, data_set_bytes, uid
from tests.part10_files import Part10, files, take_apart
from tests.peers import dcmsend, debian_program, echoscu, storescu, unused_port
from tests.raw_peer import COMMAND, DATA, LAST, RawPeer, pdv, store_request
from tests.receiver import LIMITS, Receiver, receiving, receiving_process

UNKNOWN_TO_DCMTK = (  # DCMTK 3.6.7 cannot read or propose these
    "1.2.840.10008.1.2.8.1",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "node") as found:
        yield found


def on_disk(receiver: Receiver, row: Instance) -> Part10:
    part = take_apart(receiver.file(row), row.key)
    assert part is not None
    return part


def identified(data: Path) -> list[Part10]:
    """The files of the shared data that name a study; equal ones once."""
    found: dict[str, Part10] = {}
    for part in files(data):
        head = pydicom.dcmread(io.BytesIO(part.raw), stop_before_pixels=True, force=True)
        if head.get("SeriesInstanceUID") and head.get("SOPInstanceUID") == part.sop_instance:
            found.setdefault(digest(part), part)
    return list(found.values())


def digest(part: Part10) -> str:
    return hashlib.sha256(part.transfer_syntax.encode() + b"\0" + part.data_set).hexdigest()


def test_echo(receiver: Receiver) -> None:
    assert echoscu(receiver.port).code == 0
    assert echoscu(receiver.port, "-pts", "38", "-ppc", "128").code == 0


def test_a_file_on_disk_is_a_dicom_file(receiver: Receiver, tmp_path: Path) -> None:
    assert storescu(receiver.port, [ct_file(tmp_path, "a")]).code == 0
    (row,) = receiver.rows()
    file = receiver.instances.path(row.key)
    dcmdump = debian_program("dcmdump", "dcmtk")
    subprocess.run([dcmdump, file], check=True, capture_output=True)
    read = pydicom.dcmread(file)
    assert read.file_meta.MediaStorageSOPInstanceUID == row.sop_instance_uid == uid("a")
    assert read.file_meta.TransferSyntaxUID == row.transfer_syntax_uid == ExplicitVRLittleEndian
    assert row.size == file.stat().st_size


def test_the_catalogue_says_what_came(receiver: Receiver, tmp_path: Path) -> None:
    storescu(receiver.port, [ct_file(tmp_path, "a"), ct_file(tmp_path, "b")], "-aet", "CT1")
    (series,) = receiver.series()
    assert (series.modality, series.instances, series.state) == ("CT", 2, SeriesState.RECEIVING)
    assert series.attributes["Rows"] == ("16",)
    assert {row.calling_ae_title for row in receiver.rows()} == {"CT1"}
    receiver.nothing_half()


def test_the_digest_is_of_transfer_syntax_and_data_set(receiver: Receiver, tmp_path: Path) -> None:
    storescu(receiver.port, [ct_file(tmp_path, "a")])
    (row,) = receiver.rows()
    part = on_disk(receiver, row)
    expected = hashlib.sha256(part.transfer_syntax.encode() + b"\0" + part.data_set)
    assert row.digest == expected.hexdigest()


def test_every_file_of_the_shared_data_byte_for_byte(receiver: Receiver, data: Path) -> None:
    sent = identified(data)
    for start in range(0, len(sent), 100):
        send_as_they_are(receiver, sent[start : start + 100])
    rows = {row.digest: row for row in receiver.rows()}
    for part in sent:
        row = rows[digest(part)]
        assert on_disk(receiver, row).data_set == part.data_set, part.name
        assert row.transfer_syntax_uid == part.transfer_syntax, part.name
    assert len(rows) == len(sent) > 150
    assert len({part.transfer_syntax for part in sent}) > 12
    receiver.nothing_half()


def send_as_they_are(receiver: Receiver, parts: list[Part10]) -> None:
    pairs = sorted({(part.sop_class, part.transfer_syntax) for part in parts})
    with RawPeer(receiver.port) as peer:
        peer.associate([(abstract, [syntax]) for abstract, syntax in pairs])
        for part in parts:
            context = peer.context(part.sop_class, part.transfer_syntax)
            status = peer.store(context, part.sop_class, part.sop_instance, part.data_set)
            assert status == 0x0000, part.name
        peer.release()


def test_dcmsend_sends_the_shared_data(receiver: Receiver, data: Path, tmp_path: Path) -> None:
    sent = {part.sop_instance: part for part in identified(data)}
    folder = tmp_path / "out"
    folder.mkdir()
    for name, part in sent.items():
        if part.transfer_syntax not in UNKNOWN_TO_DCMTK:
            (folder / f"{name}.dcm").write_bytes(part.raw)
    ended = dcmsend(receiver.port, [folder], "+sd", "-nh", "-dn")
    assert ended.code == 0, ended.output[-2000:]
    rows = receiver.rows()
    assert len(rows) > 150
    for row in rows:
        assert same_pixels(on_disk(receiver, row), sent[row.sop_instance_uid])
    receiver.nothing_half()


def same_pixels(one: Part10, other: Part10) -> bool:
    """Whether pixel data are equal: DCMTK writes the rest anew, and as little endian."""
    if other.transfer_syntax == ExplicitVRBigEndian:
        return True
    first, second = (pydicom.dcmread(io.BytesIO(part.raw)) for part in (one, other))
    equal: bool = first.get("PixelData") == second.get("PixelData")
    compressed = UID(other.transfer_syntax).is_compressed
    return equal and (one.transfer_syntax == other.transfer_syntax or not compressed)


def test_same_bytes_again_is_success_and_nothing_happens(
    receiver: Receiver, tmp_path: Path
) -> None:
    file = ct_file(tmp_path, "a")
    assert storescu(receiver.port, [file]).code == 0
    before = receiver.series()
    assert storescu(receiver.port, [file], "--repeat", "3").statuses() == ["Success"] * 3
    assert receiver.series() == before
    assert len(receiver.rows()) == 1
    receiver.nothing_half()


def test_same_uid_with_other_bytes_is_kept_and_the_series_marked(
    receiver: Receiver, tmp_path: Path
) -> None:
    first = ct_file(tmp_path / "1", "a")
    second = ct_file(tmp_path / "2", "a", PatientID="P2")
    assert storescu(receiver.port, [first, second]).statuses() == ["Success"] * 2
    (series,) = receiver.series()
    assert (series.instances, series.conflicts) == (1, 1)
    assert [row.conflict for row in sorted(receiver.rows(), key=lambda r: r.conflict)] == [
        False,
        True,
    ]
    assert len(receiver.kept()) == 2
    receiver.nothing_half()


def test_many_resend_the_same_at_once(receiver: Receiver, tmp_path: Path) -> None:
    for number in range(10):
        ct_file(tmp_path / "out", f"{number}")
    with ThreadPoolExecutor(6) as pool:
        ended = list(
            pool.map(lambda _: storescu(receiver.port, [tmp_path / "out"], "+sd"), range(6))
        )
    assert [each.code for each in ended] == [0] * 6
    (series,) = receiver.series()
    assert (series.instances, series.conflicts) == (10, 0)
    receiver.nothing_half()


def test_private_sop_classes_by_policy(tmp_path: Path) -> None:
    private, other = "1.3.12.2.1107.5.9.1", "1.3.12.2.1107.5.9.2"
    limits = replace(LIMITS, private_sop_classes=frozenset({private}))
    with receiving(tmp_path, limits=limits) as receiver, RawPeer(receiver.port) as peer:
        peer.associate([(private, [EXPLICIT]), (other, [EXPLICIT])])
        assert list(peer.contexts.values()) == [(private, EXPLICIT)]
        made = data_set_bytes(ct("a", SOPClassUID=private))
        assert peer.store(1, private, uid("a"), made) == 0x0000
        peer.release()
        assert [row.sop_class_uid for row in receiver.rows()] == [private]


def test_a_header_longer_than_the_first_bytes_is_found(receiver: Receiver) -> None:
    made = ct("a")
    made.ReferencedImageSequence = [reference(number) for number in range(5000)]
    raw = data_set_bytes(made)
    assert len(raw) > 300_000
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        assert peer.store(1, CT, uid("a"), raw) == 0x0000
        peer.release()
    (row,) = receiver.rows()
    assert row.header["Rows"] == ("16",)


def reference(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CT
    item.ReferencedSOPInstanceUID = f"1.2.3.4.{number}"
    return item


@pytest.mark.parametrize("fragment", [1, 7, 131_060])
def test_any_size_of_fragments(receiver: Receiver, fragment: int) -> None:
    raw = data_set_bytes(ct("a"))
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        assert peer.maximum_length == 131_072
        assert peer.store(1, CT, uid("a"), raw, fragment=fragment) == 0x0000
        peer.release()
    (row,) = receiver.rows()
    assert on_disk(receiver, row).data_set == raw


def test_several_values_in_one_pdu(receiver: Receiver) -> None:
    raw = data_set_bytes(ct("a"))
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        command = store_request(CT, uid("a"))
        peer.send_pdu(
            DATA,
            pdv(1, COMMAND, command[:20])
            + pdv(1, COMMAND | LAST, command[20:])
            + pdv(1, 0, raw[:100])
            + pdv(1, LAST, raw[100:]),
        )
        assert peer.status() == 0x0000
        peer.release()
    (row,) = receiver.rows()
    assert on_disk(receiver, row).data_set == raw


def test_a_large_object_in_constant_memory(tmp_path: Path) -> None:
    size = 160 << 20
    head = data_set_bytes(ct("a", Rows=8192, Columns=10240, PixelData=b"\0\0"))[:-14]
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size)
    block = bytes(range(256)) * 4096
    with receiving_process(tmp_path / "node", unused_port()) as receiver:
        warm_up(receiver.port)
        before = peak_memory(receiver.pid)
        whole = hashlib.sha256(EXPLICIT.encode() + b"\0" + head + pixels)
        with RawPeer(receiver.port) as peer:
            peer.associate([(CT, [EXPLICIT])])
            peer.send_command(1, store_request(CT, uid("a")))
            peer.send_data(1, head + pixels, last=False)
            for left in range(size // len(block) - 1, -1, -1):
                peer.send_data(1, block, fragment=131_060, last=left == 0)
                whole.update(block)
            assert peer.status() == 0x0000
            peer.release()
        row = next(row for row in receiver.rows() if row.sop_instance_uid == uid("a"))
        assert row.digest == whole.hexdigest()
        assert digest(on_disk(receiver, row)) == row.digest
        assert peak_memory(receiver.pid) - before < 20 << 20


def warm_up(port: int) -> None:
    with RawPeer(port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        peer.store(1, CT, uid("warm"), data_set_bytes(ct("warm")))
        peer.release()


def peak_memory(pid: int) -> int:
    """The most resident memory a process ever had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
