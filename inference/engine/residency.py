"""Models stay loaded by least recent use, within a budget; a run that will not fit is not begun.

What a model takes is measured when it is loaded, what a run takes when it ends; both decide for
the next. A first run of a model is always tried: nothing is known of it yet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from inference.engine.device import Device, is_exhausted
from inference.errors import ModelRefused

ALIKE = 2.0  # runs on up to so many times fewer or more voxels say what the next one takes
GIB = 1 << 30
M = TypeVar("M")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident(Generic[M]):
    """A loaded model and the bytes that loading it took."""

    model: M
    size: int


@dataclass(slots=True)
class Needs:
    """The most memory that runs of each model took beside what was resident, by voxels."""

    seen: dict[str, dict[int, int]] = field(default_factory=dict)

    def record(self, name: str, voxels: int, peak: int) -> None:
        """A run ended."""
        runs = self.seen.setdefault(name, {})
        runs[voxels] = max(peak, runs.get(voxels, 0))

    def expected(self, name: str, voxels: int) -> int | None:
        """Bytes for an image of so many voxels, in proportion to those alike; None: unknown."""
        alike = [
            peak * voxels // seen
            for seen, peak in self.seen.get(name, {}).items()
            if seen <= voxels * ALIKE and voxels <= seen * ALIKE
        ]
        return max(alike, default=None)


def evicted(sizes: Mapping[str, int], wanted: int, budget: int) -> tuple[str, ...]:
    """Who leaves so that `wanted` more bytes fit: the least recently used, first in `sizes`.

    Everybody, when even that is not enough.
    """
    over, leaving = sum(sizes.values()) + wanted - budget, []
    for name, size in sizes.items():
        if over <= 0:
            break
        leaving.append(name)
        over -= size
    return tuple(leaving)


class Residents(Generic[M]):
    """The loaded models of one device, the least recently used first.

    `budget`: bytes of all of them and of a run; None: all that the device has.
    """

    def __init__(self, device: Device, budget: int | None = None) -> None:
        self.device = device
        self.budget = min(filter(None, (budget, device.memory_bytes)), default=0)
        self.needs = Needs()
        self._resident: dict[str, Resident[M]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Who is loaded, the least recently used first."""
        return tuple(self._resident)

    def model(self, name: str, load: Callable[[], M]) -> M:
        """The model, loaded if it is not; others leave when it alone made the budget too small."""
        if name in self._resident:
            self._resident[name] = self._resident.pop(name)
            return self._resident[name].model
        loaded = self._loaded(load)
        self._leave(evicted(self._sizes(), loaded.size, self.budget))
        self._resident[name] = loaded
        return loaded.model

    def _loaded(self, load: Callable[[], M]) -> Resident[M]:
        """What memory does not hold beside others is loaded again when they have left."""
        try:
            return self._measured(load)
        except Exception as error:
            if not (self._resident and is_exhausted(error)):
                raise
        self._leave(self.names)
        return self._measured(load)

    def _measured(self, load: Callable[[], M]) -> Resident[M]:
        before = self.device.used_bytes()
        model = load()
        return Resident(model=model, size=max(0, self.device.used_bytes() - before))

    def loaded(self, name: str) -> M | None:
        """The model if it is loaded; asking so is no use of it."""
        found = self._resident.get(name)
        return None if found is None else found.model

    def forget(self, name: str) -> None:
        """Unload a model, if it is loaded."""
        if name in self._resident:
            self._leave((name,))

    def admit(self, name: str, voxels: int) -> None:
        """Make room for a run of a loaded model; raises ModelRefused when there cannot be."""
        expected = self.needs.expected(name, voxels)
        if expected is None or not self.budget:
            return
        own = self._resident[name].size
        if own + expected > self.budget:
            raise ModelRefused(
                f"an image of this size would take about {(own + expected) / GIB:.1f} GiB of "
                f"{self.device.name}; {self.budget / GIB:.1f} GiB are allowed"
            )
        others = {other: size for other, size in self._sizes().items() if other != name}
        self._leave(evicted(others, own + expected, self.budget))

    def spare(self, name: str, voxels: int) -> int:
        """Bytes of the budget that stay free while a loaded model runs; 0 when nothing is known."""
        expected = self.needs.expected(name, voxels)
        if expected is None:
            return 0
        return max(0, self.budget - sum(self._sizes().values()) - expected)

    def ran(self, name: str, voxels: int, peak: int) -> None:
        """A run ended; `peak`: the most that was in use on the device while it ran."""
        self.needs.record(name, voxels, max(0, peak - sum(self._sizes().values())))

    def _sizes(self) -> dict[str, int]:
        return {name: one.size for name, one in self._resident.items()}

    def _leave(self, names: tuple[str, ...]) -> None:
        for name in names:
            del self._resident[name]
        if names:
            self.device.release()
