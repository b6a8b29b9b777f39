"""What runs models reads what it needs and nothing else, writes one folder, and reaches nobody.

`confine` is called by the child of a worker before it loads the science. Afterwards, for this
process and its threads and for good: no network, no other process or program, no file but the
program's, the system's libraries, the models' and the received instances, no write but to a folder
of its own. `environment` is what such a process is started with. deploy/docs/SECURITY.md says what
this does not protect.
"""

import ctypes
import importlib.util
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

from service import landlock, seccomp

PACKAGES = ("service", "inference", "storage")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sys", "/proc")
SETTINGS = tuple(
    f"/etc/{name}"
    for name in (
        "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "locale.alias",
        "nsswitch.conf", "passwd", "group", "mime.types", "fonts", "alternatives", "os-release",
        "OpenCL", "nvidia", "vulkan",
    )
)  # fmt: skip
DEVICES = ("null", "zero", "full", "random", "urandom", "dri", "kfd")
DEVICE_NAMES = ("nvidia*",)
KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "TMPDIR"}
    | {"PYTHONPATH", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "VIRTUAL_ENV"}
)
KEPT_BEGINNINGS = (
    "LC_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "CUDA_", "CUDNN_", "NVIDIA_", "NCCL_",
    "TORCH_", "PYTORCH_", "ATEN_", "DNNL_", "ONEDNN_", "MONAI_", "ROCR_", "HIP_", "GOMP_",
    "MALLOC_",
)  # fmt: skip
SCRATCH = (
    "TMPDIR",
    "XDG_CACHE_HOME",
    "MPLCONFIGDIR",
    "TORCH_HOME",
    "CUDA_CACHE_PATH",
    "NUMBA_CACHE_DIR",
)
COURTESY = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
}
"""Threads that wait for each other soon sleep. Those of libgomp spin for long: on a machine whose
cores also receive images that made one prediction five to ten times as long."""
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""What a layer of a network frees the next one uses (glibc): else the system would map and clear
every page anew for each, a fifth of the work of a large network. Between two studies it goes back
to the machine; but its addresses stay, which a limit (RLIMIT_DATA) counts like memory in use."""
PEAK_RESET = Path("/proc/self/clear_refs")  # what a run's own peak of memory is counted from
LARGEST_FILE = 4 << 30  # bytes
MOST_THREADS = 4096  # of the user, before the child may start no more
CAPABILITIES_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
DAC_READ_SEARCH = 1 << 2  # a node that runs as root reads files of others


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a confined process may read beside program and system, and the folder it may fill.

    `files`: plain files that it may read, by their resolved places: what is there when the process
    is confined counts, and a link that came since is not followed. `listed`: folders of which it
    may see the names of files, and no more.
    """

    readable: tuple[Path, ...]
    writable: Path
    files: tuple[Path, ...] = ()
    listed: tuple[Path, ...] = ()
    package: str = "inference.models"  # where the models' modules are


def lacking() -> str | None:
    """What this machine cannot keep a model from, in words; None when it can all."""
    wanting = [] if landlock.version() else ["files (the kernel has no Landlock)"]
    reason = seccomp.unavailable()
    if reason is not None:
        wanting.append(f"network and processes ({reason})")
    return " and ".join(wanting) or None


def environment(
    current: Mapping[str, str], scratch: Path, *, limited: bool = False
) -> dict[str, str]:
    """The environment of a confined process: no credentials, caches in a folder of its own.

    How its threads wait is as `COURTESY` says, and what becomes of freed memory as `KEEPING` where
    its memory is not `limited`, unless `current` says otherwise.
    """
    kept = {
        name: value
        for name, value in current.items()
        if name in KEPT or name.startswith(KEPT_BEGINNINGS)
    }
    keeping = {} if limited else KEEPING
    return {**COURTESY, **keeping, **kept, **dict.fromkeys(SCRATCH, str(scratch))}


@contextmanager
def bare_environment(scratch: Path, *, limited: bool = False) -> Iterator[None]:
    """What is started meanwhile has the `environment` of a confined process from the first."""
    ours = dict(os.environ)
    wanted = environment(ours, scratch, limited=limited)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(ours)


def confine(bounds: Bounds) -> str | None:
    """Give up everything beyond `bounds`; what could not be given up, in words, or None."""
    wanting = lacking()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, LARGEST_FILE)
    _lower(resource.RLIMIT_NPROC, MOST_THREADS)
    _leave_tracker()
    rules = tuple(_rules(bounds))
    if hasattr(ctypes.CDLL(None), "capset"):
        _drop_capabilities()
    if seccomp.unavailable() is None:
        seccomp.install()
    if landlock.version():
        landlock.restrict(rules, bounds.files)
    return wanting


def _leave_tracker() -> None:
    """The tracker of multiprocessing removes shared memory of any name for whoever writes to it."""
    descriptor = getattr(resource_tracker, "_resource_tracker")._fd  # noqa: B009, SLF001
    if descriptor is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (lowest, lowest))


def _rules(bounds: Bounds) -> Iterator[tuple[Path, int]]:
    yield from ((path, landlock.LIST) for path in (*_search_path(), *bounds.listed))
    yield from ((path, landlock.READ) for path in _program(bounds.package))
    yield from ((Path(name), landlock.READ) for name in (*SYSTEM, *SETTINGS))
    yield from ((path, landlock.READ) for path in _libraries(os.environ))
    yield from ((path, landlock.DEVICE) for path in _devices(Path("/dev")))
    yield from ((path, landlock.READ) for path in bounds.readable)
    yield bounds.writable, landlock.WRITE
    yield PEAK_RESET, landlock.WRITE


def _search_path() -> Iterator[Path]:
    """Folders that imports look through; that of a checkout may hold more than the program."""
    return (Path(entry) for entry in sys.path if entry)


def _program(package: str) -> Iterator[Path]:
    """The interpreter, the installed packages, and ours wherever they are."""
    yield from (Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix))
    yield from (Path(path) for path in set(sysconfig.get_paths().values()))
    yield from (Path(entry) for entry in sys.path if Path(entry).name.endswith("-packages"))
    for name in {*PACKAGES, package.partition(".")[0]}:
        found = importlib.util.find_spec(name)
        if found is not None:
            yield from (Path(place) for place in found.submodule_search_locations or ())


def _libraries(current: Mapping[str, str]) -> Iterable[Path]:
    return (Path(one) for one in current.get("LD_LIBRARY_PATH", "").split(":") if one)


def _devices(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in DEVICES)
    for name in DEVICE_NAMES:
        yield from folder.glob(name)


def _drop_capabilities() -> None:
    """Keep none, but of root the right to read files of other users. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", CAPABILITIES_VERSION, 0)
    held = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; low, then high
    if libc.capget(header, held) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities cannot be read")
    effective, permitted, *_ = struct.unpack("=6I", held.raw)
    kept = effective & permitted & DAC_READ_SEARCH
    if libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities cannot be given up")
