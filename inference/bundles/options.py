"""What a sidecar's `[options]` say of a bundle, checked by themselves: a wrong one is refused.

Whether they fit the bundle (an id to override, a file of weights) is known once that is read.
"""

from collections.abc import Callable, Mapping
from typing import Any

from inference.description import Description, Task
from inference.errors import ModelRefused

COLOURS = (1, 3)
AXES = (0, 1, 2)


def _is_name(given: Any) -> bool:
    return isinstance(given, str) and given != ""


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def _is_count(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= 1


def _are_names(given: Any) -> bool:
    return isinstance(given, list) and all(map(_is_name, given))


def _are_axes(given: Any) -> bool:
    return isinstance(given, list) and sorted(map(str, given)) == sorted(
        str(axis) for axis in AXES if axis in given
    )


def _is_table(given: Any) -> bool:
    return isinstance(given, Mapping)


RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "weights": (_is_name, "the path of a file in the bundle"),
    "activation": (lambda given: given in ("softmax", "sigmoid", "none"), "softmax, sigmoid, none"),
    "calibration": (_is_table, "a table of temperature and platt"),
    "intervals": (_is_table, "a table: name of a label = how its interval is known"),
    "points": (_is_table, "a table of form, unit and reversed"),
    "colours": (lambda given: _is_number(given) and given in COLOURS, "1 or 3"),
    "override": (_is_table, 'a table: "id" = the value instead'),
    "ensemble": (_are_names, "a list of files with weights"),
    "mirror": (_are_axes, "a list of axes: 0, 1, 2, each once"),
    "labels_at_once": (_is_count, "a whole number from 1"),
    "agreement": (_is_number, "a number; above 1: never in bfloat16"),
    "engine": (lambda given: isinstance(given, bool), "true or false"),
}


def check(description: Description) -> None:
    """Raise ModelRefused, naming the key, for the first option that is unknown or not allowed."""
    options = description.options
    for key, given in options.items():
        if key not in RULES:
            raise ModelRefused(f"options.{key}: unknown; allowed: {', '.join(RULES)}")
        holds, allowed = RULES[key]
        if not holds(given):
            raise ModelRefused(f"options.{key}: {given!r} is not allowed; allowed: {allowed}")
    for name in ("ensemble", "mirror"):
        if description.task is Task.DETECTION and options.get(name):
            raise ModelRefused(f"options.{name}: boxes are not averaged; allowed: []")
    for key, names in (
        ("weights", [options["weights"]] if "weights" in options else []),
        ("ensemble", options.get("ensemble", [])),
    ):
        for name in names:
            if name not in description.files:
                raise ModelRefused(
                    f"options.{key}: {name!r} is not among the files that were added; allowed: "
                    f"{_listed(description)}"
                )


def _listed(description: Description) -> str:
    weights = [name for name in sorted(description.files) if name.endswith((".pt", ".pth"))]
    return ", ".join(weights) or "a file with weights, put there and added"
