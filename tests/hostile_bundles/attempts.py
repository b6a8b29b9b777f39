"""What hostile code does once it runs: each attempt returns when it succeeded and raises when not.

Run in a process of its own, confined or not, with the places that it aims at.
"""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """Where to: files, a listening port, the process that started us."""

    folder: Path  # outside everything that was given
    secret: Path  # the node's configuration, or its catalogue
    readable: Path  # a received instance
    scratch: Path
    port: int
    parent: int


def write(aims: Aims) -> None:
    (aims.folder / "proof").write_text("was here")


def write_instance(aims: Aims) -> None:
    aims.readable.write_text("forged")


def remove_instance(aims: Aims) -> None:
    aims.readable.unlink()


def move_into_scratch(aims: Aims) -> None:
    aims.readable.rename(aims.scratch / "taken")


def link_secret(aims: Aims) -> None:
    os.link(aims.secret, aims.scratch / "linked")


def through_a_link(aims: Aims) -> None:
    link = aims.scratch / "link"
    link.symlink_to(aims.secret)
    link.read_text()


def read_secret(aims: Aims) -> None:
    aims.secret.read_text()


def read_secret_by_descriptor(aims: Aims) -> None:
    Path(f"/proc/self/cwd/{os.path.relpath(aims.secret)}").read_text()


def list_folder(aims: Aims) -> None:
    list(aims.folder.iterdir())


def change_mode(aims: Aims) -> None:
    aims.readable.chmod(0o000)


def connect(aims: Aims) -> None:
    socket.create_connection(("127.0.0.1", aims.port), timeout=2).close()


def connect_ipv6(aims: Aims) -> None:
    socket.socket(socket.AF_INET6).close()


def datagram(aims: Aims) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", aims.port))


def unix_socket(aims: Aims) -> None:
    socket.socket(socket.AF_UNIX).close()


def netlink(aims: Aims) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()


def io_uring(aims: Aims) -> None:
    syscall(425, 4, ctypes.create_string_buffer(120))


def run_program(aims: Aims) -> None:
    subprocess.run(["/bin/touch", str(aims.folder / "proof")], check=True)


def replace_itself(aims: Aims) -> None:
    os.execv("/bin/touch", ["/bin/touch", str(aims.folder / "proof")])  # noqa: S606


def fork(aims: Aims) -> None:
    if os.fork() == 0:
        os._exit(0)


def kill_parent(aims: Aims) -> None:
    os.kill(aims.parent, signal.SIGKILL)


def signal_parent_through_a_pipe(aims: Aims) -> None:
    reading, _ = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, aims.parent)


def hold_an_instance_by_a_lease(aims: Aims) -> None:
    with aims.readable.open("rb") as opened:
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_RDLCK)


def command_the_tracker(aims: Aims) -> None:
    descriptor = getattr(resource_tracker, "_resource_tracker")._fd  # noqa: B009
    os.write(descriptor, b"PROBE:0:noop\n")
    if str(Path(f"/proc/self/fd/{descriptor}").readlink()) == os.devnull:
        raise PermissionError


def kill_everybody(aims: Aims) -> None:
    os.kill(-1, 0)


def read_memory_of_parent(aims: Aims) -> None:
    with Path(f"/proc/{aims.parent}/mem").open("rb") as memory:
        memory.read(0)


def read_environment_of_parent(aims: Aims) -> None:
    Path(f"/proc/{aims.parent}/environ").read_bytes()


def trace_parent(aims: Aims) -> None:
    syscall(101, 16, aims.parent, 0, 0)  # PTRACE_ATTACH, on x86_64


def limit_parent(aims: Aims) -> None:
    import resource

    resource.prlimit(aims.parent, resource.RLIMIT_CPU)


def find_credentials(aims: Aims) -> None:
    known = Path("/proc/self/environ").read_bytes().decode() + str(dict(os.environ))
    if "swordfish" not in known:
        raise PermissionError


def mount(aims: Aims) -> None:
    syscall(165, b"none", str(aims.scratch).encode(), b"tmpfs", 0, None)


def new_user_namespace(aims: Aims) -> None:
    syscall(272, 0x10000000)


def large_file(aims: Aims) -> None:
    with (aims.scratch / "large").open("wb") as file:
        file.truncate(64 << 30)


ATTEMPTS: Mapping[str, Callable[[Aims], None]] = {
    attempt.__name__: attempt
    for attempt in (
        write, write_instance, remove_instance, move_into_scratch, link_secret, through_a_link,
        read_secret, read_secret_by_descriptor, list_folder, change_mode, connect, connect_ipv6,
        datagram, unix_socket, netlink, io_uring, run_program, replace_itself, fork, kill_parent,
        kill_everybody, read_memory_of_parent, read_environment_of_parent, trace_parent,
        limit_parent, find_credentials, mount, new_user_namespace, large_file,
        signal_parent_through_a_pipe, hold_an_instance_by_a_lease, command_the_tracker,
    )
}  # fmt: skip


def what_works(aims: Aims) -> dict[str, str]:
    """Every attempt, and what a model needs: name -> "succeeded", or the class of the error."""
    found = {}
    for name, attempt in {**ATTEMPTS, **NEEDED}.items():
        try:
            attempt(aims)
        except OSError as error:
            found[name] = type(error).__name__
        else:
            found[name] = "succeeded"
    return found


def read_instance(aims: Aims) -> None:
    aims.readable.read_text()


def write_scratch(aims: Aims) -> None:
    (aims.scratch / "mine").write_text("mine")
    (aims.scratch / "mine").unlink()


def use_threads(aims: Aims) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def import_more(aims: Aims) -> None:
    import wave

    assert wave.__name__ in sys.modules


def count_peaks_anew(aims: Aims) -> None:
    del aims
    large = b"\1" * (64 << 20)
    del large
    before = peak_kib()
    Path("/proc/self/clear_refs").write_text("5")
    assert before - peak_kib() > 32 << 10


def peak_kib() -> int:
    """The largest resident size of this process, KiB (proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


NEEDED: Mapping[str, Callable[[Aims], None]] = {
    attempt.__name__: attempt
    for attempt in (read_instance, write_scratch, use_threads, import_more, count_peaks_anew)
}


def syscall(number: int, *arguments: object) -> None:
    """A system call; OSError when it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
