"""Left and right are vouched for, or it is said that nobody does.

A network that is given slices, rows and columns in the scanner's order takes its left from that
order, which another scanner, or another way to lie, turns round.
"""

import re
from collections.abc import Sequence

from inference.arrays.options import Input
from inference.description import Description, Label

UNILATERAL = ("7771000", "24028007")  # SNOMED CT: Left, Right (PS3.16 CID 244)
WORDS = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
STACK = 3  # dimensions
SEVERAL = 5


def limits(description: Description, options: Input) -> tuple[str, ...]:
    """A sentence for every result when labels have sides that the image's axes do not give."""
    names = sided(description.labels)
    if not names or options.orientation != "source" or description.dimensions != STACK:
        return ()
    more = f" and {len(names) - SEVERAL} more" if len(names) > SEVERAL else ""
    words = (
        "The network was given slices, rows and columns as the scanner ordered them: if it learnt "
        f"another order, left and right are exchanged ({', '.join(names[:SEVERAL])}{more})."
    )
    return (words,)


def sided(labels: Sequence[Label]) -> tuple[str, ...]:
    """The names of the labels that are of one side, by their modifier or their words."""
    return tuple(one.definition.label for one in labels if _is_sided(one))


def _is_sided(label: Label) -> bool:
    modifier = label.definition.modifier
    if modifier is not None and modifier.value in UNILATERAL:
        return True
    words = (label.definition.label, str(label.definition.type.meaning))
    return any(WORDS.search(one) for one in words)
