"""Where networks run: the first GPU, or the CPU; what it can do and how much memory it has."""

import ctypes
import gc
import resource
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

from inference.errors import ModelRefused, OutOfMemory

AUTOMATIC = "auto"
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # flags of /proc/cpuinfo
EXHAUSTED = (
    "not enough memory",
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "alloc_failed",
    "allocation_failed",
)
"""Of torch's allocators, of C++, of CUBLAS_STATUS_ALLOC_FAILED, of CUDNN_STATUS_ALLOC_FAILED and
CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED; in lower case."""
STATUS = Path("/proc/self/status")
MEMORY = Path("/proc/meminfo")
RESET, PEAK = Path("/proc/self/clear_refs"), "5"  # proc(5): resets VmHWM
GPU_WINDOWS = 4
CPU_WINDOWS = 1  # more at once only wants more memory


class Device(Protocol):
    """What the engine asks of a device."""

    @property
    def name(self) -> str:
        """As logs, status and results have it."""
        ...

    @property
    def torch(self) -> torch.device:
        """Where tensors go."""
        ...

    @property
    def is_host(self) -> bool:
        """Whether its memory is the machine's."""
        ...

    @property
    def bfloat16(self) -> bool:
        """Whether it computes in bfloat16 faster than in float32."""
        ...

    @property
    def windows(self) -> int:
        """How many windows go through a network at once, to begin with."""
        ...

    @property
    def memory_bytes(self) -> int:
        """All that it has."""
        ...

    def begin(self) -> None:
        """Peaks are counted from here, where that is possible."""
        ...

    def used_bytes(self) -> int:
        """In use now."""
        ...

    def release(self) -> None:
        """Give back what was freed."""
        ...

    def peak_bytes(self) -> int:
        """The most memory in use since `begin`."""
        ...


class Cpu:
    """The processor and the machine's memory."""

    name = "cpu"
    is_host = True
    windows = CPU_WINDOWS

    def __init__(self) -> None:
        self.torch = torch.device("cpu")
        self.bfloat16 = any(flag in _processor_flags() for flag in CPU_BFLOAT16)
        self.memory_bytes = _proc_bytes(MEMORY, "MemTotal")

    def begin(self) -> None:
        """Reset the system's count of the process (Linux); where it may not be, it goes on.

        What was freed before does not count.
        """
        give_back_host()
        with suppress(OSError):
            RESET.write_text(PEAK, encoding="ascii")

    def used_bytes(self) -> int:
        """The process's resident size, without what it has freed."""
        give_back_host()
        return _proc_bytes(STATUS, "VmRSS")

    def release(self) -> None:
        """What nobody refers to any more."""
        collect()
        give_back_host()

    def peak_bytes(self) -> int:
        """The process's largest resident size."""
        return _proc_bytes(STATUS, "VmHWM")


class Gpu:
    """A CUDA device. The process then computes float32 in float32, not in TF32, and repeatably."""

    is_host = False
    windows = GPU_WINDOWS

    def __init__(self, index: int = 0) -> None:
        self.name = f"cuda:{index}"
        self.torch = torch.device("cuda", index)
        self.bfloat16 = torch.cuda.get_device_capability(index) >= (8, 0)  # Ampere
        self.memory_bytes = torch.cuda.get_device_properties(index).total_memory
        exactly()

    def begin(self) -> None:
        """Reset torch's count."""
        torch.cuda.reset_peak_memory_stats(self.torch)

    def used_bytes(self) -> int:
        """By torch's count."""
        return torch.cuda.memory_allocated(self.torch)

    def release(self) -> None:
        """What nobody refers to any more, and torch's cache of it."""
        collect()
        torch.cuda.empty_cache()

    def peak_bytes(self) -> int:
        """By torch's count."""
        return torch.cuda.max_memory_allocated(self.torch)


def choose(name: str = AUTOMATIC) -> Device:
    """`auto`: the first GPU if there is one; `cpu`; `cuda` or `cuda:N`. Raises ModelRefused."""
    if name == "cpu" or (name == AUTOMATIC and not torch.cuda.is_available()):
        return Cpu()
    index = int(name.partition(":")[2] or 0) if name != AUTOMATIC else 0
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise ModelRefused(f"the device {name} is not there")
    return Gpu(index)


def exactly() -> None:
    """float32 convolutions on a GPU are no TF32 (torch's default), and the same each time."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def free_host_bytes() -> int:
    """What this process may still take of the machine's memory; 0 where the system does not say."""
    free = _proc_bytes(MEMORY, "MemAvailable")
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return free
    return max(0, min(free, limit - _proc_bytes(STATUS, "VmData")))


def collect() -> None:
    """Free what nobody refers to any more, also of what was set aside (`gc.freeze`): a model that
    was loaded before that, whose parts refer to each other, would stay for good."""
    gc.unfreeze()
    gc.collect()


def give_back_host() -> None:
    """Memory that was freed goes back to the machine, where the C library keeps it (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_exhausted(error: BaseException) -> bool:
    """Whether memory ran out: of the process, or of a device; torch has several words for it.

    Also where that is the cause: MONAI says only which transform or part it was that failed.
    """
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, MemoryError | torch.OutOfMemoryError | OutOfMemory):
            return True
        said = str(one).lower()
        if isinstance(one, RuntimeError) and any(words in said for words in EXHAUSTED):
            return True
        one = one.__cause__
    return False


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux: the slower arithmetic is right everywhere
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def _proc_bytes(path: Path, key: str) -> int:
    """A line `KEY: N kB`; 0 where the system has no such file."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    found = next((line for line in lines if line.startswith(f"{key}:")), f"{key}: 0 kB")
    return int(found.split()[1]) * 1024
