"""A process of ours never outlives its parent, and how it ended is said in words."""

import ctypes
import os
import resource
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
MIB = 1024 * 1024


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send signal `number` to this process when its parent, process `parent`, ends.

    Linux only; elsewhere a child notices at the end of its pipe.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), number)


def be_killed_first() -> None:
    """When the machine runs out of memory, let the kernel end this process before any other."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")


def limit_memory(size: int) -> None:
    """Refuse this process more than `size` bytes of its own (RLIMIT_DATA: no mapped files)."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def signal_name(exit_code: int | None) -> str | None:
    """The name of the signal that ended a process, None when none did."""
    return signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else None


def how_it_ended(exit_code: int | None) -> str:
    """How a process ended, in words for a person: "crashed (SIGSEGV)"."""
    name = signal_name(exit_code)
    if name == "SIGKILL":
        return "was killed (SIGKILL), probably out of memory"
    if name is not None:
        return f"crashed ({name})"
    return f"ended by itself (exit status {exit_code})"
