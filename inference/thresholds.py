"""From which probability a class counts: one rule for every network, of whatever family.

A label with a `threshold` counts from it on. Without one, a class that excludes the others (no
`output.overlapping`, several outputs) counts where it is the likeliest, and one that stands alone
from one half on. Masks that exclude each other stay apart: a voxel is of its likeliest class, if
that one's threshold is reached, or of none. A label map says nothing of probabilities: a threshold
for one of its labels is refused.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.description import Description, Label
from inference.errors import ModelRefused

HALF = 0.5


def alone(label: Label) -> float:
    """From where a class counts that excludes no other."""
    return HALF if label.threshold is None else label.threshold


def said(probabilities: Sequence[float], description: Description) -> tuple[Label, ...]:
    """The classes of an image that are answers; `probabilities`: of each output.

    Raises IndexError for a label of no output.
    """
    exclusive = not description.overlapping and len(probabilities) > 1
    likeliest = int(np.argmax(probabilities))
    return tuple(
        label
        for label in description.labels
        if (
            label.value == likeliest
            if exclusive and label.threshold is None
            else probabilities[label.value] >= alone(label)
        )
    )


def likeliest(values: NDArray[Any], description: Description) -> NDArray[np.int32]:
    """The label map of exclusive classes (class, *space); `nobody` where none counts."""
    found = np.asarray(values.argmax(axis=0), np.int32)
    for label in description.labels:
        if label.threshold is not None and label.value < len(values):
            found[(found == label.value) & (values[label.value] < label.threshold)] = nobody(
                len(values), description
            )
    return found


def nobody(classes: int, description: Description) -> int:
    """A value that is of no class and no label."""
    return max([classes - 1, *(label.value for label in description.labels)]) + 1


def refuse_of_label_map(description: Description) -> None:
    """Raise ModelRefused when a label of a label map has a threshold."""
    names = [one.definition.label for one in description.labels if one.threshold is not None]
    if names:
        raise ModelRefused(
            f"labels: {', '.join(names)}: the model gives a label map, which says nothing of "
            "probabilities; allowed: no threshold"
        )
