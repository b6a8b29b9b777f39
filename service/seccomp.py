"""A process that has called `install` reaches no network, other process or program any more.

A classic BPF program over the number and arguments of each system call (seccomp(2), mode filter),
for x86_64 and aarch64. It is inherited by threads, cannot be taken back, and refuses with an errno,
so that a library which merely tries goes on; another architecture's calls end the process.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Mapping

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_GET_SECCOMP = 22, 38, 21
MODE_FILTER = 2
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000  # SECCOMP_RET_*
LOAD, JEQ, JGE, JSET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF, words, against a constant
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
CLONE_THREAD = 0x00010000
TO_OTHERS = (0x5412, 0x541C, 0x8901, 0x8902)
"""Requests of ioctl: TIOCSTI and TIOCLINUX type into another's terminal; FIOSETOWN, SIOCSPGRP."""
SIGNALLING = (8, 10, 15, 1024)
"""Commands of fcntl: with F_SETOWN, F_SETSIG, F_SETOWN_EX the kernel signals others; F_SETLEASE."""

# name: (x86_64, aarch64), None where an architecture has no such call
NETWORK = {
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
PROGRAMS = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
}  # fmt: skip
OTHER_PROCESSES = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "perf_event_open": (298, 241),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
}  # fmt: skip
FILES = {  # that Landlock does not look at
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "truncate": (76, 45), "open_by_handle_at": (304, 265),
    "open_tree_attr": (467, 467), "file_setattr": (469, 469),
}  # fmt: skip
MACHINE = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, None), "ioperm": (173, None), "personality": (135, 92), "vhangup": (153, 58),
}  # fmt: skip
REFUSED: Mapping[str, tuple[int | None, int | None]] = {
    **NETWORK, **PROGRAMS, **OTHER_PROCESSES, **FILES, **MACHINE,
}  # fmt: skip
CLONE, CLONE3, KILL_CALL, TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
IOCTL, PRLIMIT, FCNTL = (16, 29), (302, 261), (72, 25)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
X32 = 0x40000000  # calls of the x32 ABI have this bit

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def unavailable() -> str | None:
    """Why this kernel has no such filter, in words; None when it has."""
    if platform.machine() not in ARCHITECTURES or not hasattr(ctypes.CDLL(None), "prctl"):
        return f"no system call filter for {platform.system()} on {platform.machine()}"
    if _libc().prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0 and ctypes.get_errno() == errno.EINVAL:
        return "the kernel has no system call filter (seccomp)"
    return None


def install() -> None:
    """Refuse the calls from now on, for this thread and those that it starts; OSError if not."""
    program = b"".join(struct.pack("=HBBI", *one) for one in _program(os.getpid()))
    code = ctypes.create_string_buffer(program)
    filter_ = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    )
    libc = _libc()
    zero = ctypes.c_ulong(0)
    for option, argument, pointer in (
        (PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero),
        (PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), ctypes.byref(filter_)),
    ):
        if libc.prctl(option, argument, pointer, zero, zero) != 0:
            raise OSError(ctypes.get_errno(), "the system call filter cannot be installed")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _program(process_id: int) -> Iterator[Instruction]:
    column, architecture = ARCHITECTURES[platform.machine()]
    yield (LOAD, 0, 0, ARCHITECTURE)
    yield (JEQ, 1, 0, architecture)
    yield (RETURN, 0, 0, KILL)
    yield (LOAD, 0, 0, NUMBER)
    if architecture == ARCHITECTURES["x86_64"][1]:
        yield from _when((JGE, X32), _refuse(errno.ENOSYS))
    yield from _when((JEQ, CLONE3[column]), _refuse(errno.ENOSYS))  # libc then uses clone
    yield from _when((JEQ, CLONE[column]), _unless(0, (JSET, CLONE_THREAD)))
    for call in (KILL_CALL, TGKILL):
        yield from _when((JEQ, call[column]), _unless(0, (JEQ, process_id)))
    yield from _when((JEQ, PRLIMIT[column]), _unless(0, (JEQ, 0), (JEQ, process_id)))
    yield from _when((JEQ, IOCTL[column]), _if(1, *((JEQ, one) for one in TO_OTHERS)))
    yield from _when((JEQ, FCNTL[column]), _if(1, *((JEQ, one) for one in SIGNALLING)))
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            reason = errno.EACCES if numbers in NETWORK.values() else errno.EPERM
            yield from _when((JEQ, number), _refuse(reason))
    yield (RETURN, 0, 0, ALLOW)


def _refuse(reason: int) -> list[Instruction]:
    return [(RETURN, 0, 0, ERRNO | reason)]


def _when(test: tuple[int, int], then: list[Instruction]) -> Iterator[Instruction]:
    """These instructions, which end in a return, when the number passes a test."""
    yield (test[0], 0, len(then), test[1])
    yield from then


def _unless(argument: int, *tests: tuple[int, int]) -> list[Instruction]:
    """Refused unless an argument passes one of the tests."""
    count = len(tests)
    return [
        (LOAD, 0, 0, FIRST_ARGUMENT + 8 * argument),
        *((test, count - at, 0, value) for at, (test, value) in enumerate(tests)),
        *_refuse(errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]


def _if(argument: int, *tests: tuple[int, int]) -> list[Instruction]:
    """Refused if an argument passes one of the tests."""
    count = len(tests)
    return [
        (LOAD, 0, 0, FIRST_ARGUMENT + 8 * argument),
        *((test, count - at, 0, value) for at, (test, value) in enumerate(tests)),
        (RETURN, 0, 0, ALLOW),
        *_refuse(errno.EPERM),
    ]
