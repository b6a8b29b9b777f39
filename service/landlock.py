"""A process that has called `restrict` opens no file outside the folders it was given.

Landlock (landlock(7)), as much of it as the kernel has: access to files, since ABI 2 moving, since
ABI 3 truncating, since ABI 4 TCP, since ABI 5 devices, since ABI 6 signals and abstract sockets. It
also keeps the process from tracing others and from reading their environment under /proc.
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # system calls, the same on every architecture
GET_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
LIST = READ_DIR
READ = READ_FILE | READ_DIR
DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE
OF_A_FILE = WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # what a rule for one file may have

FILE_ACCESS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
TCP = 0b11  # bind and connect, ABI 4
SCOPES = 0b11  # abstract sockets and signals, ABI 6


def version() -> int:
    """The kernel's Landlock ABI; 0: it has none."""
    return max(0, _call(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(GET_VERSION)))


def restrict(rules: Iterable[tuple[Path, int]], files: Iterable[Path] = ()) -> None:
    """From now on only these paths, each with its rights (LIST, READ, DEVICE, WRITE).

    `files`: resolved places of plain files that may be read; where a link has come since, or what
    is no plain file, nothing is allowed. A path that does not exist is left out. Raises OSError
    when the kernel refuses. The caller has given up new privileges (`seccomp.install` does).
    """
    abi = version()
    handled = FILE_ACCESS[max(known for known in FILE_ACCESS if known <= abi)]
    attributes = struct.pack("=QQQ", handled, TCP if abi >= 4 else 0, SCOPES if abi >= 6 else 0)[
        : _size(abi)
    ]
    ruleset = _checked(CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path, rights in rules:
            with _opened(path) as descriptor:
                _allow(ruleset, descriptor, rights & handled)
        for path in files:
            with _opened_without_links(path) as descriptor:
                if descriptor is not None and S_ISREG(os.fstat(descriptor).st_mode):
                    _allow(ruleset, descriptor, READ_FILE)
        _checked(RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _size(abi: int) -> int:
    """Bytes of struct landlock_ruleset_attr."""
    return 24 if abi >= 6 else 16 if abi >= 4 else 8


@contextmanager
def _opened(path: Path, *, flags: int = 0, inside: int | None = None) -> Iterator[int | None]:
    """A descriptor that only names a path; None where there is none, or not for us."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | flags, dir_fd=inside)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened_without_links(path: Path) -> Iterator[int | None]:
    """The same, step by step from the root: a link is no folder, and the last step is itself."""
    with ExitStack() as opened:
        descriptor = opened.enter_context(_opened(Path(path.anchor)))
        for step in path.parts[1:]:
            if descriptor is None:
                break
            inner = _opened(Path(step), flags=os.O_NOFOLLOW, inside=descriptor)
            descriptor = opened.enter_context(inner)
        yield descriptor


def _allow(ruleset: int, descriptor: int | None, rights: int) -> None:
    if descriptor is None:
        return
    if not S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= OF_A_FILE
    if rights:
        rule = struct.pack("=Qi", rights, descriptor)
        _checked(
            ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(PATH_BENEATH),
            rule,
            ctypes.c_uint32(0),
        )


def _checked(number: int, *arguments: object) -> int:
    answer = _call(number, *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused its rules")
    return answer


def _call(number: int, *arguments: object) -> int:
    syscall = getattr(ctypes.CDLL(None, use_errno=True), "syscall", None)
    if syscall is None:
        return -1
    syscall.restype = ctypes.c_long
    return int(syscall(ctypes.c_long(number), *arguments))
