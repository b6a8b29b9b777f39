"""Probabilities as somebody calibrated them, and the 95 % prediction intervals of numbers.

Temperature scaling (Guo et al. 2017) divides all outputs by one number; Platt scaling (Platt 1999)
makes of one output a straight line, before the sigmoid. Both were fitted on data that the node does
not have: the sidecar states their results.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference.description import Label
from inference.errors import ModelRefused

NORMAL_95 = 1.959963984540054  # standard deviations that hold 95 % of a normal distribution
CALIBRATION = "a table with temperature (a number above 0) and platt (name = [slope, intercept])"
INTERVALS = (
    "a table: name of a label = [index, index] of two outputs, or { sigma = index }, "
    "{ log_variance = index } or { margin = a number above 0 }"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """`platt`: name of a label -> slope and intercept of its output."""

    temperature: float = 1.0
    platt: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """How the ends of a prediction interval are known: of these exactly one is not None.

    `quantiles`: outputs that are its ends; `sigma`, `log_variance`: an output that is the standard
    deviation of a normal distribution, or the logarithm of its square; `margin`: half its length.
    """

    quantiles: tuple[int, int] | None = None
    sigma: int | None = None
    log_variance: int | None = None
    margin: float | None = None


def platt(given: Any) -> dict[str, tuple[float, float]]:
    """Slopes and intercepts; raises ValueError."""
    if not isinstance(given, Mapping):
        raise ValueError(CALIBRATION)  # noqa: TRY004  (one family, caught by the reader)
    return {str(name): _line(line) for name, line in given.items()}


def _line(given: Any) -> tuple[float, float]:
    if not isinstance(given, list) or len(given) != 2 or not all(map(_is_number, given)):
        raise ValueError(CALIBRATION)
    return float(given[0]), float(given[1])


def intervals(given: Any) -> dict[str, Interval]:
    """How each label's interval is known; raises ValueError."""
    if not isinstance(given, Mapping):
        raise ValueError(INTERVALS)  # noqa: TRY004  (one family, caught by the reader)
    return {str(name): _interval(one) for name, one in given.items()}


def _interval(given: Any) -> Interval:
    if isinstance(given, list) and len(given) == 2 and all(map(_is_index, given)):
        return Interval(quantiles=(given[0], given[1]))
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ValueError(INTERVALS)
    ((kind, value),) = given.items()
    if kind == "margin" and _is_number(value) and value > 0:
        return Interval(margin=float(value))
    if kind == "sigma" and _is_index(value):
        return Interval(sigma=value)
    if kind == "log_variance" and _is_index(value):
        return Interval(log_variance=value)
    raise ValueError(INTERVALS)


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


def _is_index(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= 0


def of_options(options: Mapping[str, Any]) -> tuple[Calibration, dict[str, Interval]]:
    """The tables `calibration` and `intervals` of a sidecar's options; raises ModelRefused."""
    table = options.get("calibration", {})
    try:
        return _calibration(table), intervals(options.get("intervals", {}))
    except ValueError as error:
        raise ModelRefused(f"options: {error.args[0]}") from error


def _calibration(table: Any) -> Calibration:
    if not isinstance(table, Mapping) or not set(table) <= {"temperature", "platt"}:
        raise ValueError(CALIBRATION)
    temperature = table.get("temperature", 1.0)
    if not _is_number(temperature) or temperature <= 0:
        raise ValueError(CALIBRATION)
    return Calibration(temperature=float(temperature), platt=platt(table.get("platt", {})))


def refused(
    calibration: Calibration,
    ranges: Mapping[str, Interval],
    activation: str,
    labels: Sequence[Label],
) -> str | None:
    """Why calibration, intervals and the rest of a sidecar do not fit together; None: they do."""
    names = {label.definition.label for label in labels}
    if unknown := sorted({*calibration.platt, *ranges} - names):
        return f"names no label: {', '.join(unknown)}; allowed: {', '.join(sorted(names))}"
    if calibration.platt and activation != "sigmoid":
        return 'platt is of probabilities one by one; allowed: activation = "sigmoid"'
    if calibration.temperature != 1.0 and activation == "none":
        return "temperature is of outputs that are no probabilities yet; allowed: an activation"
    return None


def probabilities(
    outputs: Tensor, activation: str, calibration: Calibration, labels: Sequence[Label]
) -> Tensor:
    """Outputs (class, ...) as calibrated probabilities; as they are without an activation."""
    values = outputs
    if calibration.temperature != 1.0:
        values = values / calibration.temperature
    lines = [(one.value, calibration.platt.get(one.definition.label)) for one in labels]
    for index, line in lines:
        if line is not None and index < values.shape[0]:
            values = values.clone() if values is outputs else values
            values[index] = line[0] * values[index] + line[1]
    if activation == "softmax":
        return torch.softmax(values, dim=0)
    return torch.sigmoid(values) if activation == "sigmoid" else values


def ends(
    interval: Interval, value: float, outputs: Sequence[float], *, multiply: float, add: float
) -> tuple[float, float]:
    """Lower and upper end of the 95 % prediction interval of `value`, in its unit.

    `outputs`: all of the network, each of which times `multiply` plus `add` is in that unit.
    Raises ModelRefused when the network has fewer.
    """
    if interval.quantiles is not None:
        low, high = (_output(outputs, one) * multiply + add for one in interval.quantiles)
        return min(low, high), max(low, high)
    if interval.sigma is not None:
        deviation = abs(_output(outputs, interval.sigma) * multiply)
        return value - NORMAL_95 * deviation, value + NORMAL_95 * deviation
    if interval.log_variance is not None:
        deviation = math.exp(_output(outputs, interval.log_variance) / 2) * abs(multiply)
        return value - NORMAL_95 * deviation, value + NORMAL_95 * deviation
    margin = interval.margin or 0.0
    return value - margin, value + margin


def _output(outputs: Sequence[float], index: int) -> float:
    if index >= len(outputs):
        raise ModelRefused(f"intervals: the network gives {len(outputs)} outputs, no {index}")
    return float(outputs[index])
