"""When memory runs out, the same volume is tried with less at once; what worked is kept.

Fewer windows at a time, then sums of scores on the host, give the same labels. Smaller windows
show the network less around each voxel and are the last resort: the result has to say so, and the
next volume begins with the windows that are meant, so that no result depends on those before it.
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
    words = [" x ".join(map(str, size)) for size in (used.windows.size, meant.size)]
    return (f"Memory allowed windows of {words[0]} voxels instead of the model's {words[1]}.",)


def _attempts(effort: Effort | None) -> Iterator[Effort]:
    while effort is not None:
        yield effort
        effort = smaller(effort)


def _shrunk(extent: int) -> int:
    """Three quarters of a window's side, in steps that networks can halve."""
    if extent <= MULTIPLE:
        return extent
    return max(MULTIPLE, extent * 3 // 4 // MULTIPLE * MULTIPLE)
