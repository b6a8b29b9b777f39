"""No peer makes another wait, whatever it does or leaves undone; the receiver ends in order.

Not covered: many associations at once for long (benchmarks).
"""

import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.data_phase import MOST_WAITING
from service.transport import WakingQueue
from tests.half_way import VERIFICATION, assert_nothing_came, begun, ended, wait_until
from tests.objects import CT, EXPLICIT, ct, ct_file, data_set_bytes, uid
from tests.peers import echoscu, storescu, unused_port
from tests.raw_peer import (
    ABORT,
    AC,
    COMMAND,
    DATA,
    LAST,
    RELEASE_RP,
    RJ,
    RawPeer,
    element,
    pdv,
)
from tests.receiver import LIMITS, Receiver, receiving, receiving_process


def test_a_silent_association_is_aborted_and_its_object_dropped(tmp_path: Path) -> None:
    with receiving(tmp_path, limits=replace(LIMITS, network_timeout=1.0)) as receiver:
        with begun(receiver) as peer:
            assert peer.receive_pdu()[0] == ABORT
        assert_nothing_came(receiver)


def test_a_stalled_fragment_is_given_up(tmp_path: Path) -> None:
    with receiving(tmp_path, limits=replace(LIMITS, network_timeout=1.0)) as receiver:
        with begun(receiver) as peer:
            peer.socket.sendall(struct.pack(">BxI", DATA, 5000) + b"x" * 100)
            ended(peer)
        assert_nothing_came(receiver)


def test_a_trickling_fragment_is_given_up(tmp_path: Path) -> None:
    with receiving(tmp_path, limits=replace(LIMITS, network_timeout=1.0)) as receiver:
        with begun(receiver) as peer:
            peer.socket.sendall(struct.pack(">BxI", DATA, 5000))
            trickle(peer, seconds=6.0)
        assert_nothing_came(receiver)


def test_a_trickling_request_is_given_up(tmp_path: Path) -> None:
    with receiving(tmp_path, limits=replace(LIMITS, acse_timeout=1.0)) as receiver:
        with RawPeer(receiver.port) as peer:
            peer.socket.sendall(struct.pack(">BxI", 1, 5000))
            trickle(peer, seconds=6.0)
        assert_nothing_came(receiver)


def trickle(peer: RawPeer, *, seconds: float) -> None:
    """A byte now and then, until the other side has enough of it."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            peer.socket.sendall(b"x")
            time.sleep(0.1)
    except OSError:
        return
    pytest.fail("it has not had enough")


def test_requests_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = element(0x0002, b"1.2.840.10008.1.1\0") + element(0x0100, struct.pack("<H", 0x30))
    request += element(0x0110, b"\1\0") + element(0x0800, struct.pack("<H", 0x0101))
    waiting = []
    put = WakingQueue.put

    def noted(queue: WakingQueue, item: object, **options: Any) -> None:
        put(queue, item, **options)
        if isinstance(item, tuple):  # a message, not a PDU to send
            waiting.append(queue.qsize())

    monkeypatch.setattr(WakingQueue, "put", noted)
    limits = replace(LIMITS, network_timeout=2.0)
    with receiving(tmp_path, limits=limits) as receiver:
        with RawPeer(receiver.port) as peer:
            peer.associate([VERIFICATION])
            peer.send_pdu(DATA, pdv(1, COMMAND | LAST, request) * 1000)
            assert peer.status() == 0x0000
            wait_until(lambda: max(waiting) >= MOST_WAITING)
            time.sleep(0.5)
            peer.abort()
        assert max(waiting) <= MOST_WAITING + 1
        assert_nothing_came(receiver)


def test_more_associations_than_allowed(tmp_path: Path) -> None:
    limits = replace(LIMITS, maximum_associations=2)
    with receiving(tmp_path, limits=limits) as receiver, ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(receiver.port)) for _ in range(3)]
        assert [peer.associate([VERIFICATION]) for peer in peers] == [AC, AC, RJ]
        assert tuple(peers[2].reply[1:]) == (2, 3, 2)  # transient, local limit exceeded
        peers[0].release()
        wait_until(lambda: associated(receiver))


def associated(receiver: Receiver) -> bool:
    with RawPeer(receiver.port) as peer:
        return peer.associate([VERIFICATION]) == AC and peer.release() == RELEASE_RP


def test_silent_connections_are_no_associations(tmp_path: Path) -> None:
    limits = replace(LIMITS, maximum_associations=2, acse_timeout=2.0)
    with receiving(tmp_path, limits=limits) as receiver, ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(RawPeer(receiver.port))
        assert echoscu(receiver.port).code == 0
        assert receiver.entity is not None
        entity = receiver.entity
        wait_until(lambda: entity.associations == 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-days", "1", "-nodes", "-newkey", "rsa:2048"]
    command = [openssl, "req", "-x509", *subject, "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return key, pem


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    key, pem = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return context


def client_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate[1])
    context.check_hostname = False
    return context


def test_tls_with_silent_peers_beside(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    with (
        receiving(tmp_path / "node", tls=server_context(certificate)) as receiver,
        ExitStack() as stack,
    ):
        for _ in range(20):
            stack.enter_context(RawPeer(receiver.port))  # never begins the handshake
        began = time.monotonic()
        flags = ["+tla", "-ic"]
        assert echoscu(receiver.port, *flags).code == 0
        assert storescu(receiver.port, [ct_file(tmp_path, "a")], *flags).code == 0
        with RawPeer(receiver.port, tls=client_context(certificate)) as peer:
            peer.associate([(CT, [EXPLICIT])])
            assert peer.store(1, CT, uid("b"), data_set_bytes(ct("b"))) == 0x0000
            peer.release()
        assert time.monotonic() - began < 4.0
        assert len(receiver.rows()) == 2


def test_a_peer_without_tls_is_sent_away(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    with (
        receiving(tmp_path, tls=server_context(certificate)) as receiver,
        RawPeer(receiver.port) as peer,
        pytest.raises(OSError),  # noqa: PT011  (closed or reset, as it comes)
    ):
        peer.associate([VERIFICATION])


def test_stop_lets_an_object_end(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        assert receiver.entity is not None
        peer = begun(receiver)
        port = receiver.port
        stopping = background(receiver.entity.stop)
        wait_until(lambda: refuses(port))
        peer.send_data(1, data_set_bytes(ct("a"))[400:])
        assert peer.status() == 0x0000
        assert peer.release() == RELEASE_RP
        peer.socket.close()
        stopping.join(10)
        assert not stopping.is_alive()
        assert len(receiver.rows()) == 1


def test_stop_aborts_who_does_not_end(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver, begun(receiver) as peer:
        assert receiver.entity is not None
        entity = receiver.entity
        stopping = background(lambda: entity.stop(grace=0.3))
        assert peer.receive_pdu()[0] == ABORT
        stopping.join(10)
        assert receiver.parts() == []


def test_stop_ends_who_is_in_the_middle_of_a_fragment(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver, begun(receiver) as peer:
        assert receiver.entity is not None
        entity = receiver.entity
        peer.socket.sendall(struct.pack(">BxI", DATA, 5000) + b"x" * 100)
        time.sleep(0.3)
        entity.stop(grace=0.3)
        assert receiver.parts() == []
        ended(peer)


def background(work: Any) -> Any:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_two_processes_share_a_port(tmp_path: Path) -> None:
    port = unused_port()
    with ExitStack() as stack:
        first = stack.enter_context(receiving(tmp_path, share_port=True, port=port))
        stack.enter_context(receiving(tmp_path, share_port=True, port=port))
        for number in range(8):
            with RawPeer(port) as peer:
                peer.associate([(CT, [EXPLICIT])])
                name = f"{number}"
                assert peer.store(1, CT, uid(name), data_set_bytes(ct(name))) == 0x0000
                peer.release()
        assert len(first.rows()) == 8


def test_one_line_in_the_log_for_each_association(tmp_path: Path) -> None:
    with receiving_process(tmp_path, unused_port()) as receiver:
        with RawPeer(receiver.port, calling="CT1") as peer:
            peer.associate([(CT, [EXPLICIT])])
            secret = {"PatientName": "SECRET^NAME", "PatientID": "SECRET-ID"}
            for made in (ct("a", **secret), ct("a", **secret), ct("a", Rows=8, **secret)):
                peer.store(1, CT, uid("a"), data_set_bytes(made))
            peer.store(1, CT, uid("b"), data_set_bytes(ct("a", **secret)))
            peer.release()
        with RawPeer(receiver.port) as peer:
            peer.associate([(CT, [EXPLICIT])])
            peer.abort()
        with RawPeer(receiver.port) as peer:
            peer.associate([(CT, [EXPLICIT])])
        wait_until(lambda: len(associations(tmp_path)) == 3)
        found = {line["outcome"]: line for line in associations(tmp_path)}
        first = found["released"]
        assert first["calling_ae_title"] == "CT1"
        counted = ("instances", "duplicates", "conflicts", "refused")
        assert [first[name] for name in counted] == [3, 1, 1, 1]
        assert first["bytes"] > 1500
        assert set(found) == {"released", "aborted", "lost"}
        assert "SECRET" not in (tmp_path / "log.jsonl").read_text()


def associations(root: Path) -> list[dict[str, Any]]:
    log = root / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in lines if line["event"] == "association"]


def test_idle_associations_cost_little(tmp_path: Path) -> None:
    with receiving_process(tmp_path, unused_port()) as receiver, ExitStack() as stack:
        for _ in range(20):
            peer = stack.enter_context(RawPeer(receiver.port))
            assert peer.associate([VERIFICATION]) == AC
        before = processor_seconds(receiver.pid)
        time.sleep(1.5)
        assert processor_seconds(receiver.pid) - before < 0.3  # polling took a whole core


def processor_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
