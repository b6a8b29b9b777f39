"""The peers that tests use, as real processes: found by absolute path, always ended."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

LISTENING = "0A"  # /proc/net/tcp


def debian_program(name: str, package: str) -> Path:
    """A program by absolute path (pynetdicom's scripts have DCMTK's names); skips when absent."""
    found = shutil.which(name, path="/usr/bin:/usr/local/bin:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install {package}")
    return Path(found)


def unused_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(
    command: list[str | Path], *, log: Path, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on `port` from the first line of the block on; killed at its end."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for_listener(port, child)
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for_listener(port: int, child: subprocess.Popen[bytes], *, seconds: float = 20) -> None:
    """Wait without connecting: a probe would be an association to the peer."""
    deadline = time.monotonic() + seconds
    while not is_listening(port):
        if child.poll() is not None:
            raise RuntimeError(f"{child.args!r} ended with {child.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on {port} after {seconds} s")
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Whether a local process listens on `port`."""
    rows = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        rows += (
            [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
        )
    return any(row[3] == LISTENING and int(row[1].split(":")[1], 16) == port for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePeer:
    """A PACS: where it listens, where what it received lies, what it said, its process."""

    ae_title: str
    port: int
    folder: Path
    log: Path
    process_id: int = 0

    def received(self) -> list[Path]:
        """The files it has, sorted by name."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextmanager
def dcmtk_storescp(folder: Path, *flags: str, port: int | None = None) -> Iterator[StoragePeer]:
    """DCMTK's storescp, bit-preserving, with its bad habits by flag (`--refuse`, ...)."""
    program = debian_program("storescp", "dcmtk")
    peer = _storage_peer(folder, port, "STORESCP")
    options = ["+B", "-v", "-od", str(peer.folder), "-aet", peer.ae_title, *flags]
    with process([program, *options, str(peer.port)], log=peer.log, port=peer.port) as child:
        yield replace(peer, process_id=child.pid)


@contextmanager
def pynetdicom_storage(folder: Path, **habits: str | int) -> Iterator[StoragePeer]:
    """Our scripted PACS (tests/storage_peer.py) in a process of its own; `habits` are its flags."""
    port = habits.pop("port", None)
    peer = _storage_peer(folder, int(port) if port else None, "SCRIPTED")
    flags = [text for name, value in habits.items() for text in (f"--{name}", str(value))]
    script = Path(__file__).with_name("storage_peer.py")
    command = [sys.executable, script, str(peer.port), peer.folder, *flags]
    with process(command, log=peer.log, port=peer.port) as child:
        yield replace(peer, process_id=child.pid)


def _storage_peer(folder: Path, port: int | None, ae_title: str) -> StoragePeer:
    received = folder / "received"
    received.mkdir(parents=True, exist_ok=True)
    return StoragePeer(
        ae_title=ae_title,
        port=port or unused_port(),
        folder=received,
        log=folder / "peer.log",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """A real archive: DICOM and REST on 127.0.0.1."""

    ae_title: str
    port: int
    http_port: int

    def instances(self) -> dict[str, bytes]:
        """SOP Instance UID -> the file as the archive gives it back."""
        found: dict[str, bytes] = {}
        for identifier in json.loads(self.get("/instances")):
            tags = json.loads(self.get(f"/instances/{identifier}/simplified-tags"))
            found[tags["SOPInstanceUID"]] = self.get(f"/instances/{identifier}/file")
        return found

    def get(self, path: str) -> bytes:
        """A resource of its REST interface."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """An empty Orthanc of its own, its storage in `folder`."""
    program = debian_program("Orthanc", "orthanc")
    archive = Orthanc(ae_title="ORTHANC", port=unused_port(), http_port=unused_port())
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "Name": "tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [],
        "DicomAet": archive.ae_title,
        "DicomPort": archive.port,
        "HttpPort": archive.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageCompression": False,
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    with process([program, str(file)], log=folder / "orthanc.log", port=archive.port) as child:
        wait_for_listener(archive.http_port, child)
        yield archive


@contextmanager
def silent_peer() -> Iterator[int]:
    """A half-dead host: its port takes connections and never says or reads anything."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        kept: list[socket.socket] = []
        thread = threading.Thread(target=_accept_for_ever, args=(listener, kept), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


def _accept_for_ever(listener: socket.socket, kept: list[socket.socket]) -> None:
    while True:
        try:
            kept.append(listener.accept()[0])
        except OSError:  # shut down
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How a DCMTK sender ended: exit code and what it said."""

    code: int
    output: str

    def statuses(self) -> list[str]:
        """What each C-STORE response said, in the words of `storescu -v`."""
        return [
            line.split("Received Store Response (", 1)[1].rstrip(")")
            for line in self.output.splitlines()
            if "Received Store Response (" in line
        ]


def echoscu(port: int, *flags: str) -> Sent:
    """DCMTK's echoscu, verbose."""
    return _dcmtk("echoscu", port, ["-v", *flags])


def storescu(port: int, files: Sequence[Path], *flags: str, seconds: float = 60) -> Sent:
    """DCMTK's storescu, verbose. `files` may be folders with `+sd +r`."""
    return _dcmtk("storescu", port, ["-v", *flags], files, seconds=seconds)


def dcmsend(port: int, files: Sequence[Path], *flags: str, seconds: float = 60) -> Sent:
    """DCMTK's dcmsend, verbose: it proposes what each object needs."""
    return _dcmtk("dcmsend", port, ["-v", *flags], files, seconds=seconds)


def _dcmtk(
    name: str, port: int, flags: Sequence[str], files: Sequence[Path] = (), *, seconds: float = 60
) -> Sent:
    program = debian_program(name, "dcmtk")
    command = [program, *flags, "127.0.0.1", str(port), *files]
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False
    )
    return Sent(code=ended.returncode, output=ended.stdout.decode("utf-8", "replace"))
