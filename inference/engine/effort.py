"""When memory runs out, the same volume is tried with less at once; what worked is kept.

Fewer windows at a time, then sums of scores on the host, give the same labels but for last bits.
Smaller windows show the network less around each voxel and are the last resort: the result has to
say so, and the next volume begins with the windows that are meant. Whatever was less belongs to how
the result was computed, and so to its identifiers (`lessened`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from inference.engine.device import is_exhausted
from inference.engine.sliding_window import Windows

MULTIPLE = 32  # voxels: what networks with up to five levels can halve
T = TypeVar("T")
E = TypeVar("E")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is in memory at once. `on_host`: image and sums of scores are not on the device."""

    windows: Windows
    on_host: bool


def smaller(effort: Effort) -> Effort | None:
    """The next one to try; None when nothing is left."""
    windows = effort.windows
    if windows.batch > 1:
        return replace(effort, windows=replace(windows, batch=windows.batch // 2))
    if not effort.on_host:
        return replace(effort, on_host=True)
    size = tuple(_shrunk(extent) for extent in windows.size)
    if size == windows.size:
        return None
    return replace(effort, windows=replace(windows, size=size))


def managed(run: Callable[[Effort], T], effort: Effort) -> tuple[T, Effort]:
    """What `run` gives with the largest effort, from `effort` on, for which memory suffices.

    Raises what `run` raised when the smallest is still too much.
    """
    return first_that_fits(run, tuple(_attempts(effort)))


def first_that_fits(run: Callable[[E], T], efforts: Sequence[E]) -> tuple[T, E]:
    """What `run` gives with the first of some efforts for which memory suffices, and that effort.

    Raises what `run` raised with the last.
    """
    *others, last = efforts
    for effort in others:
        try:
            return run(effort), effort
        except (MemoryError, RuntimeError) as error:
            if not is_exhausted(error):
                raise
    return run(last), last


def kept(used: Effort, meant: Windows) -> Effort:
    """What the next volume begins with: as little at once, in windows of the size that is meant."""
    return replace(used, windows=replace(used.windows, size=meant.size))


def limits(used: Effort, meant: Windows) -> tuple[str, ...]:
    """What a person must know of how a result was computed."""
    if used.windows.size == meant.size:
        return ()
    allowed, own = _extents(used.windows.size), _extents(meant.size)
    return (f"Memory allowed windows of {allowed} voxels instead of the model's {own}.",)


def lessened(used: Effort, meant: Effort) -> str:
    """What gives other bits than the effort that is meant, in words; "" for nothing.

    Windows that go through a network together may be added up in another order than one alone.
    """
    size = () if used.windows.size == meant.windows.size else used.windows.size
    fewer = 0 if used.windows.batch == meant.windows.batch else used.windows.batch
    return words(fewer=fewer, on_host=used.on_host and not meant.on_host, size=size)


def words(*, fewer: int, on_host: bool, size: Sequence[int] = ()) -> str:
    """Of less than is meant: so many windows at a time (0: as many), sums on the host, a size."""
    parts = (
        f"windows {fewer} at a time" if fewer else "",
        "sums on the host" if on_host else "",
        f"windows of {_extents(size)} voxels" if size else "",
    )
    return ", ".join(filter(None, parts))


def _extents(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _attempts(effort: Effort | None) -> Iterator[Effort]:
    while effort is not None:
        yield effort
        effort = smaller(effort)


def _shrunk(extent: int) -> int:
    """Three quarters of a window's side, in steps that networks can halve."""
    if extent <= MULTIPLE:
        return extent
    return max(MULTIPLE, extent * 3 // 4 // MULTIPLE * MULTIPLE)
