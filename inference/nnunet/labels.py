"""What the values in a result mean: classes that compete, or regions that overlap.

As the `labels` and `regions_class_order` of dataset.json say it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import ModelRefused

BACKGROUND = "background"
IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A label or region by its name in dataset.json. `values`: in the label map; a region's are
    those of all its labels.
    """

    name: str
    values: tuple[int, ...]

    def mask(self, labelled: NDArray[Any]) -> NDArray[np.bool_]:
        """Where it is in a label map of any axes."""
        found: NDArray[np.bool_] = np.isin(labelled, self.values)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """`regions_order`: what each region's channel writes into the label map, in this order, later
    ones over earlier ones; None when classes compete.
    """

    structures: tuple[Structure, ...]  # without the background
    values: tuple[int, ...]  # of the label map, 0 included
    regions_order: tuple[int, ...] | None = None

    @property
    def heads(self) -> int:
        """Channels of the network's answer."""
        return len(self.values) if self.regions_order is None else len(self.regions_order)

    @property
    def foreground(self) -> tuple[int, ...]:
        """Values other than background; a cascade's second stage has a channel for each."""
        return tuple(value for value in self.values if value != 0)


def parse(dataset: Mapping[str, Any]) -> Labels:
    """The labels in dataset.json; raises ModelRefused when they are not what nnU-Net writes."""
    try:
        found = {str(name): _values(given) for name, given in dataset["labels"].items()}
        order = dataset.get("regions_class_order")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelRefused(f"dataset.json: labels: {error}") from error
    if found.pop(BACKGROUND, None) != (0,):
        raise ModelRefused("dataset.json: labels: background is not 0")
    found.pop(IGNORE, None)
    structures = tuple(
        Structure(name=name, values=values) for name, values in found.items() if values != (0,)
    )
    values = tuple(sorted({0, *(value for one in structures for value in one.values)}))
    if values != tuple(range(len(values))):
        raise ModelRefused("dataset.json: labels: the values are not 0, 1, 2, ... without a gap")
    if not any(len(one.values) > 1 for one in structures):
        return Labels(structures=structures, values=values)
    if not isinstance(order, list) or len(order) != len(structures):
        raise ModelRefused("dataset.json: regions_class_order has not one value for each region")
    return Labels(structures=structures, values=values, regions_order=tuple(map(int, order)))


def _values(given: Any) -> tuple[int, ...]:
    return (
        tuple(sorted({int(value) for value in given})) if isinstance(given, list) else (int(given),)
    )
