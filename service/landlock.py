"""A process that has called `restrict` opens no file outside the folders it was given.

Landlock (landlock(7)), as much of it as the kernel has: access to files, since ABI 2 moving, since
ABI 3 truncating, since ABI 4 TCP, since ABI 5 devices, since ABI 6 signals and abstract sockets. It
also keeps the process from tracing others and from reading their environment under /proc.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISDIR

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


def restrict(rules: Iterable[tuple[Path, int]]) -> None:
    """From now on only these paths, each with its rights (LIST, READ, DEVICE, WRITE).

    A path that does not exist is left out. Raises OSError when the kernel refuses. The caller has
    given up new privileges (`seccomp.install` does).
    """
    abi = version()
    handled = FILE_ACCESS[max(known for known in FILE_ACCESS if known <= abi)]
    attributes = struct.pack("=QQQ", handled, TCP if abi >= 4 else 0, SCOPES if abi >= 6 else 0)[
        : _size(abi)
    ]
    ruleset = _checked(CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & handled)
        _checked(RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _size(abi: int) -> int:
    """Bytes of struct landlock_ruleset_attr."""
    return 24 if abi >= 6 else 16 if abi >= 4 else 8


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
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
    finally:
        os.close(descriptor)


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
