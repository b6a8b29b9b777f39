"""What is refused gets the status the standard has for it; its bytes are kept for a person to see.

Not covered: statuses of faults of our own (test_receive_faults.py).
"""

import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.objects import CT, EXPLICIT, ct, ct_file, data_set_bytes, uid
from tests.part10_files import take_apart
from tests.peers import echoscu, storescu
from tests.raw_peer import AC, RJ, RawPeer, command_elements, store_request
from tests.receiver import LIMITS, Receiver, receiving

DEFLATED = "1.2.840.10008.1.2.1.99"
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "node") as found:
        yield found


def refused(receiver: Receiver, status: int, data: bytes, **command: str | None) -> None:
    """Asserts the status, that the bytes are quarantined, and that the association goes on."""
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        words = {"sop_class": CT, "sop_instance": uid("a")} | command
        peer.send_command(1, store_request(**words))
        peer.send_data(1, data)
        assert peer.status() == status
        assert peer.store(1, CT, uid("good"), data_set_bytes(ct("good"))) == 0x0000
        peer.release()
    (file,) = receiver.quarantined()
    part = take_apart(file.read_bytes(), file.name)
    assert part is not None
    assert part.data_set == data
    assert receiver.catalog.counts().quarantined == 1
    assert [row.sop_instance_uid for row in receiver.rows()] == [uid("good")]
    receiver.nothing_half()


def test_other_instance_than_the_command_says(receiver: Receiver) -> None:
    refused(receiver, 0xA900, data_set_bytes(ct("b")))


def test_other_class_than_the_command_says(receiver: Receiver) -> None:
    mr = "1.2.840.10008.5.1.4.1.1.4"
    refused(receiver, 0xA900, data_set_bytes(ct("a", SOPClassUID=mr)))


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_without_what_identifies_it(receiver: Receiver, keyword: str) -> None:
    refused(receiver, 0xC000, data_set_bytes(ct("a", **{keyword: None})))


def test_a_uid_that_is_none(receiver: Receiver) -> None:
    raw = data_set_bytes(ct("a", StudyInstanceUID="1.2.3.1"))
    refused(receiver, 0xC000, raw.replace(b"1.2.3.1\0", b"../../a\0"))


@pytest.mark.parametrize("data", [b"", b"\0" * 132, b"DICM nonsense " * 50, b"\xff" * 5000])
def test_what_is_no_data_set(receiver: Receiver, data: bytes) -> None:
    refused(receiver, 0xC000, data)


def test_a_header_that_ends_early(receiver: Receiver) -> None:
    whole = data_set_bytes(ct("a"))
    refused(receiver, 0xC000, whole[:100])


@pytest.mark.parametrize("sop_instance", [None, "", "1.2.3/../x", "1." * 40 + "1"])
def test_a_command_without_a_valid_instance(receiver: Receiver, sop_instance: str | None) -> None:
    refused(receiver, 0x0117, data_set_bytes(ct("a")), sop_instance=sop_instance)


@pytest.mark.parametrize("sop_class", [None, "1.2.840.10008.5.1.4.1.2.1.1", VERIFICATION])
def test_a_command_without_a_storage_class(receiver: Receiver, sop_class: str | None) -> None:
    refused(receiver, 0x0122, data_set_bytes(ct("a")), sop_class=sop_class)


def test_a_store_without_a_data_set(receiver: Receiver) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        peer.send_command(1, store_request(CT, uid("a"), data_set=0x0101))
        assert peer.status() == 0xC000
        peer.release()


def test_the_response_says_why(receiver: Receiver) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT])])
        peer.send_command(1, store_request(CT, uid("a"), message_id=7))
        peer.send_data(1, data_set_bytes(ct("a", StudyInstanceUID=None)))
        elements = command_elements(peer.response())
        peer.release()
    assert elements[0x0902].decode().strip() == "the data set has no StudyInstanceUID"
    assert struct.unpack("<H", elements[0x0120]) == (7,)
    assert elements[0x0100] == struct.pack("<H", 0x8001)
    assert elements[0x1000].decode().strip("\0") == uid("a")


def test_bombs_are_refused_quickly(receiver: Receiver) -> None:
    level = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    level += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(64 << 20)) + deflater.flush()
    with RawPeer(receiver.port) as peer:
        peer.associate([(CT, [EXPLICIT]), (CT, [DEFLATED])])
        peer.socket.settimeout(5)
        assert peer.store(1, CT, uid("a"), level * 100_000) == 0xC000
        assert peer.store(3, CT, uid("a"), bomb) == 0xC000
        peer.release()


def test_callers_that_are_not_on_the_list(tmp_path: Path) -> None:
    limits = replace(LIMITS, accepted_calling_ae_titles=("CT1", "MR1"))
    with receiving(tmp_path / "node", limits=limits) as receiver:
        with RawPeer(receiver.port, calling="STRANGER") as peer:
            assert peer.associate([(CT, [EXPLICIT])]) == RJ
            assert tuple(peer.reply[1:]) == (1, 1, 3)  # permanent, user, calling not recognised
        with RawPeer(receiver.port, calling="MR1") as peer:
            assert peer.associate([(CT, [EXPLICIT])]) == AC
            peer.release()
        sent = storescu(receiver.port, [ct_file(tmp_path, "a")], "-aet", "STRANGER")
        assert "Calling AE Title Not Recognized" in sent.output
        assert echoscu(receiver.port, "-aet", "CT1").code == 0
        assert receiver.rows() == []


def test_callers_of_another_title(tmp_path: Path) -> None:
    limits = replace(LIMITS, require_called_ae_title=True)
    with receiving(tmp_path, limits=limits) as receiver:
        with RawPeer(receiver.port) as peer:
            assert peer.associate([(CT, [EXPLICIT])], called="OTHER") == RJ
            assert tuple(peer.reply[1:]) == (1, 1, 7)  # called AE title not recognised
        with RawPeer(receiver.port) as peer:
            assert peer.associate([(CT, [EXPLICIT])], called="HOUNSFIELD") == AC
            peer.release()


def test_no_room_is_said_before_the_disk_is_full(tmp_path: Path) -> None:
    with receiving(tmp_path / "node", minimum_free_bytes=1 << 60) as receiver:
        sent = storescu(receiver.port, [ct_file(tmp_path, "a")])
        assert "0xa700" in sent.output.lower() or "OutOfResources" in sent.output
        with RawPeer(receiver.port) as peer:
            peer.associate([(CT, [EXPLICIT])])
            assert peer.store(1, CT, uid("a"), data_set_bytes(ct("a"))) == 0xA700
            peer.release()
        assert receiver.rows() == []
        assert receiver.quarantined() == []
        receiver.nothing_half()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size; skips where it may not be mounted."""
    folder.mkdir()
    command = ["/usr/bin/mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here: run as root to see a full disk")
    try:
        yield folder
    finally:
        subprocess.run(["/usr/bin/umount", "-l", folder], check=True)


def test_a_full_disk_is_out_of_resources_and_leaves_nothing(tmp_path: Path) -> None:
    large = data_set_bytes(ct("a", Rows=4096, Columns=1024, PixelData=bytes(8 << 20)))
    with small_disk(tmp_path / "disk", "6m") as disk, receiving(disk) as receiver:
        with RawPeer(receiver.port) as peer:
            peer.associate([(CT, [EXPLICIT])])
            assert peer.store(1, CT, uid("a"), large) == 0xA700
            assert receiver.parts() == []
            assert peer.store(1, CT, uid("small"), data_set_bytes(ct("small"))) == 0x0000
            peer.release()
        assert [row.sop_instance_uid for row in receiver.rows()] == [uid("small")]
        receiver.nothing_half()


def test_the_watermark_is_seen_in_the_middle_of_an_object(tmp_path: Path) -> None:
    large = data_set_bytes(ct("a", Rows=4096, Columns=1024, PixelData=bytes(8 << 20)))
    with (
        small_disk(tmp_path / "disk", "16m") as disk,
        receiving(disk, minimum_free_bytes=10 << 20) as receiver,
        RawPeer(receiver.port) as peer,
    ):
        peer.associate([(CT, [EXPLICIT])])
        assert peer.store(1, CT, uid("a"), large) == 0xA700
        assert receiver.instances.free_bytes() > 10 << 20
        assert peer.store(1, CT, uid("small"), data_set_bytes(ct("small"))) == 0x0000
        peer.release()
        receiver.nothing_half()
