"""What each key of a sidecar's `[options]` may hold, in code and in words."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference import calibration
from inference.errors import ModelRefused

LETTERS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
"""Towards which side an index grows: the axis of the patient (LPS) and its sign."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be, in words; `value` makes it ours or raises ValueError."""

    allowed: str
    value: Callable[[Any], Any]


def table(
    raw: Mapping[str, Any], name: str, rules: Mapping[str, Mapping[str, Rule]]
) -> dict[str, Any]:
    """What the table of that name says, by key; ModelRefused for what its rules do not allow."""
    given, allowed = raw.get(name, {}), rules[name]
    if not isinstance(given, Mapping):
        raise ModelRefused(f"options.{name}: is not a table")
    for key in given:
        if key not in allowed:
            raise ModelRefused(f"options.{name}.{key}: unknown; allowed: {', '.join(allowed)}")
    return {key: checked(f"{name}.{key}", value, allowed[key]) for key, value in given.items()}


def checked(key: str, value: Any, rule: Rule) -> Any:
    """A value as ours; ModelRefused, which names it and what is allowed."""
    try:
        return rule.value(value)
    except ValueError as error:
        wrong = f"options.{key}: {value!r} is not allowed; allowed: {rule.allowed}"
        raise ModelRefused(wrong) from error


def number(low: float, high: float, allowed: str) -> Rule:
    """A number from `low` to `high`, both included."""

    def value(given: Any) -> float:
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or not low <= given <= high:
            raise ValueError(allowed)
        return float(given)

    return Rule(allowed, value)


def _whole(low: int, allowed: str) -> Rule:
    def value(given: Any) -> int:
        if isinstance(given, bool) or not isinstance(given, int) or given < low:
            raise ValueError(allowed)
        return given

    return Rule(allowed, value)


def _list(item: Rule, lengths: Sequence[int], allowed: str, *, single: bool = False) -> Rule:
    def value(given: Any) -> tuple[Any, ...]:
        listed = [given] if single and not isinstance(given, list) else given
        if not isinstance(listed, list) or len(listed) not in lengths:
            raise ValueError(allowed)
        return tuple(item.value(one) for one in listed)

    return Rule(allowed, value)


def _choice(*choices: str) -> Rule:
    allowed = ", ".join(choices)

    def value(given: Any) -> str:
        if given not in choices:
            raise ValueError(allowed)
        return str(given)

    return Rule(allowed, value)


def _rising(given: Any, rule: Rule) -> Any:
    values = rule.value(given)
    if values and not values[0] < values[1]:
        raise ValueError(rule.allowed)
    return values


def _pair(item: Rule, allowed: str) -> Rule:
    plain = _list(item, (0, 2), allowed)
    return Rule(allowed, lambda given: _rising(given, plain))


def _orientation(given: Any) -> str:
    if given == "source":
        return "source"
    letters = tuple(given) if isinstance(given, str) else ()
    axes = sorted(LETTERS[one][0] for one in letters if one in LETTERS)
    if axes == [0, 1, 2] and len(letters) == len(axes):
        return str(given)
    raise ValueError(ORIENTATION)


def _boolean(given: Any) -> bool:
    if not isinstance(given, bool):
        raise ValueError("true or false")  # noqa: TRY004  (one family, caught by the reader)
    return given


def _take(given: Any) -> int | str:
    if isinstance(given, bool) or not isinstance(given, int | str) or given == "":
        raise ValueError(TAKE)
    return given


def _file_name(given: Any) -> str:
    if not isinstance(given, str) or not re.fullmatch(r"[^\x00-\x1f\\]{1,200}", given):
        raise ValueError(FILE)
    return given


def _one_or_three(given: Any) -> int:
    if given not in (1, 3) or isinstance(given, bool):
        raise ValueError("1 or 3")
    return int(given)


INFINITE = float("inf")
ORIENTATION = 'source, or three letters as in "RAS": L or R, P or A, S or I'
TAKE = "an index from 0, or a name"
ANY_NUMBER = number(-INFINITE, INFINITE, "a number")
AXES = _list(_whole(0, "an axis"), range(4), "[], or axes from 0, each once")
VOXELS = _list(_whole(1, "whole numbers from 1"), (0, 2, 3), "[], or whole numbers, one an axis")
PER_CHANNEL = _list(ANY_NUMBER, range(1, 65), "a number, or a list of one a channel", single=True)
SWITCH = Rule("true or false", _boolean)
FILE = "the name of a file"
TEXT = Rule(FILE, _file_name)
FRACTION = number(0.0, 1.0, "a number from 0 to 1")
POSITIVE = number(1e-6, 1e6, "a number above 0")

RULES: Mapping[str, Mapping[str, Rule]] = {
    "input": {
        "orientation": Rule(ORIENTATION, _orientation),
        "spacing": _list(POSITIVE, (0, 2, 3), "[], or millimetres above 0, one an axis"),
        "size": VOXELS,
        "interpolation": _choice("linear", "nearest", "area"),
        "clip": _pair(ANY_NUMBER, "[], or [lowest, highest]"),
        "clip_percentiles": _pair(
            number(0.0, 100.0, "0 to 100"), "[], or [lowest, highest], each from 0 to 100"
        ),
        "scale": _choice("none", "unit", "zscore", "zscore_nonzero"),
        "multiply": PER_CHANNEL,
        "add": PER_CHANNEL,
        "channels": Rule("1 or 3", _one_or_three),
        "multiple": _whole(1, "a whole number from 1"),
        "pad_value": ANY_NUMBER,
        "slicewise": SWITCH,
        "mirror": AXES,
    },
    "window": {
        "size": VOXELS,
        "overlap": number(0.0, 0.95, "a number from 0 to 0.95"),
        "weight": _choice("gaussian", "constant"),
        "agreement": number(0.0, 2.0, "a number from 0 to 2"),
    },
    "output": {
        "take": Rule(TAKE, _take),
        "form": _choice("channels", "label_map"),
        "activation": _choice("none", "softmax", "sigmoid"),
        "components": _choice("all", "largest"),
        "fill_holes": SWITCH,
        "multiply": ANY_NUMBER,
        "add": ANY_NUMBER,
        "intervals": Rule(calibration.INTERVALS, calibration.intervals),
    },
    "calibration": {
        "temperature": POSITIVE,
        "platt": Rule(calibration.CALIBRATION, calibration.platt),
    },
    "locate": {
        "file": TEXT,
        "size": VOXELS,
        "channel": _whole(0, "a whole number from 0"),
        "threshold": FRACTION,
        "margin": number(0.0, 2.0, "a number from 0 to 2"),
        "filled": FRACTION,
    },
}
