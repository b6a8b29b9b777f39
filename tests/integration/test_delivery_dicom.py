"""A PACS that misbehaves: every wait ends, every outcome says in words what happened.

Does not cover when an object is tried again (test_delivery.py), nor TLS versions and ciphers.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom.dsutils import split_dataset

from service.destinations import Answer, Outcome, Outgoing
from service.destinations.dicom import Destination, Settings, Turnstile, contexts, judge
from tests.peers import StoragePeer, dcmtk_storescp, orthanc, pynetdicom_storage, silent_peer

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture
def results(data: Path) -> list[Outgoing]:
    """A real segmentation and a real report."""
    return [outgoing(data / "seg-sr-dcmqi" / "sr-example" / name) for name in ("seg.dcm", "sr.dcm")]


def outgoing(path: Path) -> Outgoing:
    """A file as an object to send."""
    uid = str(split_dataset(path)[0].MediaStorageSOPInstanceUID)
    return Outgoing(sop_instance_uid=uid, path=path, size=path.stat().st_size)


def data_set(path: Path) -> bytes:
    """The data set's bytes."""
    return path.read_bytes()[split_dataset(path)[1] :]


def destination(port: int, ae_title: str = "PACS", **changes: object) -> Destination:
    """A destination that waits seconds where the default waits a minute."""
    settings = Settings(
        ae_title=ae_title,
        host="127.0.0.1",
        port=port,
        connection_seconds=2,
        association_seconds=2,
        response_seconds=2,
        network_seconds=2,
    )
    return Destination(replace(settings, **changes), "HOUNSFIELD")  # type: ignore[arg-type]


def sent(peer: StoragePeer, results: Sequence[Outgoing], **changes: object) -> list[Outcome]:
    """What a peer makes of the objects."""
    return list(destination(peer.port, peer.ae_title, **changes).send(results))


def answers(outcomes: Sequence[Outcome]) -> list[Answer]:
    """The answers alone."""
    return [each.answer for each in outcomes]


def notes(outcomes: Sequence[Outcome]) -> str:
    """All that was said."""
    return " | ".join(each.note or "" for each in outcomes)


def associations(peer: StoragePeer) -> int:
    """How often DCMTK accepted us."""
    return peer.log.read_text().count("Association Received")


def test_one_association_carries_many_objects(tmp_path: Path, results: list[Outgoing]) -> None:
    with dcmtk_storescp(tmp_path) as peer:
        assert answers(sent(peer, results * 5)) == [Answer.SENT] * 10
        assert associations(peer) == 1
        assert "Association Release" in peer.log.read_text()


def test_a_peer_that_refuses_associations(tmp_path: Path, results: list[Outgoing]) -> None:
    with dcmtk_storescp(tmp_path, "--refuse") as peer:
        outcomes = sent(peer, results)
        assert answers(outcomes) == [Answer.TRANSIENT] * 2
        assert "rejected the association" in notes(outcomes)
        assert associations(peer) == 1  # the second object does not knock again
        assert peer.received() == []


@pytest.mark.parametrize("flag", ["--abort-during", "--abort-after"])
def test_a_peer_that_aborts_loses_its_chance_object_by_object(
    tmp_path: Path, results: list[Outgoing], flag: str
) -> None:
    with dcmtk_storescp(tmp_path, flag) as peer:
        outcomes = sent(peer, results)
        assert answers(outcomes) == [Answer.TRANSIENT] * 2
        assert notes(outcomes).count("ended the association before it answered") == 2
        assert associations(peer) == 2  # the abort of one object does not stand in the other's way


def test_a_slow_peer_is_waited_for(tmp_path: Path, results: list[Outgoing]) -> None:
    with dcmtk_storescp(tmp_path, "--sleep-after", "1") as peer:
        assert answers(sent(peer, results[1:])) == [Answer.SENT]


def test_a_peer_that_sleeps_over_the_release(tmp_path: Path, results: list[Outgoing]) -> None:
    with dcmtk_storescp(tmp_path, "--sleep-after", "30") as peer:
        started = time.monotonic()
        assert answers(sent(peer, results[1:])) == [Answer.SENT]
        assert time.monotonic() - started < 10


def test_a_sleeping_peer_is_given_up_in_time(tmp_path: Path, results: list[Outgoing]) -> None:
    with dcmtk_storescp(tmp_path, "--sleep-during", "30") as peer:
        started = time.monotonic()
        outcomes = sent(peer, results[1:])
        assert answers(outcomes) == [Answer.TRANSIENT]
        assert "did not answer within 2 s" in notes(outcomes)
        assert time.monotonic() - started < 6


def test_a_half_dead_host_is_given_up_once_for_all_objects(results: list[Outgoing]) -> None:
    with silent_peer() as port:
        started = time.monotonic()
        outcomes = list(destination(port).send(results))
        assert answers(outcomes) == [Answer.TRANSIENT] * 2
        assert "did not answer the association request within 2 s" in notes(outcomes)
        assert time.monotonic() - started < 6


def test_a_half_dead_host_with_tls(results: list[Outgoing]) -> None:
    with silent_peer() as port:
        outcomes = list(destination(port, tls=True).send(results))
        assert answers(outcomes) == [Answer.TRANSIENT] * 2
        assert "no connection to PACS at 127.0.0.1" in notes(outcomes)


def test_a_peer_that_freezes_while_a_large_object_leaves(
    tmp_path: Path, results: list[Outgoing]
) -> None:
    large = outgoing(_large_object(tmp_path / "large.dcm", 24 << 20))
    with dcmtk_storescp(tmp_path / "pacs") as peer:
        sending = destination(peer.port, peer.ae_title).send([results[0], large, results[1]])
        assert next(sending).answer is Answer.SENT
        os.kill(peer.process_id, signal.SIGSTOP)
        started = time.monotonic()
        outcomes = list(sending)
        assert answers(outcomes) == [Answer.TRANSIENT] * 2
        assert time.monotonic() - started < 10
        os.kill(peer.process_id, signal.SIGCONT)
        assert answers(sent(peer, [large], response_seconds=20)) == [Answer.SENT]
        assert data_set(large.path) in [data_set(each) for each in peer.received()]


def _large_object(path: Path, size: int) -> Path:
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = "2.25.1"
    image.add_new(0x7FE00010, "OB", os.urandom(size))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta = meta
    image.save_as(path, enforce_file_format=True)
    return path


def test_a_host_that_cannot_be_named(results: list[Outgoing]) -> None:
    outcomes = list(destination(104, host="no-such-host.invalid").send(results))
    assert answers(outcomes) == [Answer.TRANSIENT] * 2
    assert "no connection to PACS at no-such-host.invalid:104" in notes(outcomes)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("0xA700", Answer.TRANSIENT),
        ("0xA900", Answer.REFUSED),
        ("0xC000", Answer.TRANSIENT),
        ("0x0110", Answer.TRANSIENT),
        ("0x0111", Answer.SENT),
        ("0x0122", Answer.REFUSED),
        ("0x0124", Answer.REFUSED),
        ("0xB000", Answer.SENT),
        ("0xB006", Answer.SENT),
        ("0xB007", Answer.SENT),
    ],
)
def test_what_a_status_means(status: str, answer: Answer) -> None:
    said, note = judge(int(status, 0))
    assert said is answer
    assert note is not None
    assert status in note


def test_a_full_pacs_says_so_and_keeps_the_association(
    tmp_path: Path, results: list[Outgoing]
) -> None:
    with pynetdicom_storage(tmp_path, status="0xA700") as peer:
        outcomes = sent(peer, results)
        assert answers(outcomes) == [Answer.TRANSIENT] * 2
        assert "0xA700, out of resources" in notes(outcomes)
        (tmp_path / "status").write_text("0x0000")
        assert answers(sent(peer, results)) == [Answer.SENT] * 2


def test_a_pacs_that_takes_reports_only_refuses_the_segmentation(
    tmp_path: Path, results: list[Outgoing]
) -> None:
    with pynetdicom_storage(tmp_path, accept="reports") as peer:
        outcomes = sent(peer, results)
        assert answers(outcomes) == [Answer.REFUSED, Answer.SENT]
        assert "does not accept Segmentation Storage in Explicit VR" in notes(outcomes)


def test_a_pacs_that_accepts_no_context_refuses_every_object(
    tmp_path: Path, results: list[Outgoing]
) -> None:
    with pynetdicom_storage(tmp_path, accept="nothing") as peer:
        assert answers(sent(peer, results)) == [Answer.REFUSED] * 2


def test_a_pacs_of_implicit_vr_gets_the_same_values(
    tmp_path: Path, results: list[Outgoing]
) -> None:
    with dcmtk_storescp(tmp_path, "+xi") as peer:
        assert answers(sent(peer, results)) == [Answer.SENT] * 2
        received = {str(each.SOPInstanceUID): each for each in map(dcmread, peer.received())}
        for each in results:
            there = received[each.sop_instance_uid]
            assert there.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
            here = dcmread(each.path)
            assert there.keys() == here.keys()
            assert there.get("ContentSequence") == here.get("ContentSequence")
            assert there.get("PixelData") == here.get("PixelData")


def test_contexts_propose_what_is_stored_first_and_the_default_syntax_last() -> None:
    proposed = contexts(
        [(REPORT, str(ExplicitVRLittleEndian)), (SEGMENTATION, "1.2.840.10008.1.2.5")]
    )
    assert [(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in proposed] == [
        (SEGMENTATION, "1.2.840.10008.1.2.5"),
        (REPORT, str(ExplicitVRLittleEndian)),
        (REPORT, str(ImplicitVRLittleEndian)),
    ]


def test_a_peer_that_dies_while_it_receives(tmp_path: Path, results: list[Outgoing]) -> None:
    with pynetdicom_storage(tmp_path, drop=2) as peer:
        outcomes = sent(peer, results)
        assert answers(outcomes) == [Answer.SENT, Answer.TRANSIENT]


def test_a_large_compressed_object_arrives_byte_for_byte(tmp_path: Path, data: Path) -> None:
    path = data / "seg-compressed" / "liver.dcm"
    with dcmtk_storescp(tmp_path, "+xa") as peer:
        assert answers(sent(peer, [outgoing(path)])) == [Answer.SENT]
        assert [data_set(each) for each in peer.received()] == [data_set(path)]


def test_tls_with_a_named_authority(tmp_path: Path, results: list[Outgoing]) -> None:
    key, certificate = _certificate(tmp_path)
    flags = {"certificate": str(certificate), "key": str(key)}
    with pynetdicom_storage(tmp_path / "pacs", **flags) as peer:
        trusting = {"tls": True, "tls_certificate_authority": str(certificate)}
        assert answers(sent(peer, results, **trusting)) == [Answer.SENT] * 2
        stranger = sent(peer, results, tls=True)
        assert answers(stranger) == [Answer.TRANSIENT] * 2
        assert "TLS handshake failed" in notes(stranger)


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    return key, certificate


def test_orthanc_keeps_what_we_send(tmp_path: Path, results: list[Outgoing]) -> None:
    with orthanc(tmp_path) as archive:
        target = destination(archive.port, archive.ae_title, response_seconds=20)
        target.echo()
        for _ in range(2):  # a repeat is harmless
            assert answers(list(target.send(results))) == [Answer.SENT] * 2
        kept = archive.instances()
        assert set(kept) == {each.sop_instance_uid for each in results}
        for each in results:
            assert dcmread(BytesIO(kept[each.sop_instance_uid])) == dcmread(each.path)


def test_a_reactor_that_wakes_up_late_takes_no_answer_away() -> None:
    """Let go and held up again at once, again and again, as between one object and the next."""
    association = SimpleNamespace(_is_paused=False)
    turnstile, passed, ends = Turnstile(association), [0], threading.Event()

    def react() -> None:  # as pynetdicom's does
        while not ends.is_set():
            association._is_paused = True
            turnstile.wait()
            association._is_paused = False
            passed[0] += 1

    reactor = threading.Thread(target=react)
    reactor.start()
    try:
        for _ in range(3000):
            turnstile.clear()
            while not association._is_paused:
                time.sleep(0)
            before = passed[0]
            time.sleep(0.0001)
            assert passed[0] == before, "while an answer was awaited"
            turnstile.set()
    finally:
        ends.set()
        turnstile.set()
        reactor.join()
