"""Calibrated probabilities and prediction intervals against their formulas in plain numbers.

Not covered: how well somebody calibrated a model.
"""

import math
from typing import Any

import pytest
import torch
from pydicom.sr.coding import Code

from inference import calibration
from inference.calibration import Calibration, Interval
from inference.description import Label
from inference.errors import ModelRefused
from inference.findings import SegmentDefinition

OUTPUTS = torch.tensor([2.0, -1.0, 0.5])


def label(value: int, name: str) -> Label:
    code = Code(name, "99TEST", name)
    return Label(value=value, definition=SegmentDefinition(label=name, category=code, type=code))


LABELS = [label(0, "A"), label(1, "B"), label(2, "C")]


def test_temperature_divides_before_the_softmax() -> None:
    found = calibration.probabilities(OUTPUTS, "softmax", Calibration(temperature=2.0), LABELS)
    powers = [math.exp(value / 2) for value in OUTPUTS.tolist()]
    assert found.tolist() == pytest.approx([one / sum(powers) for one in powers])


def test_platt_makes_a_line_of_one_output_and_leaves_the_others() -> None:
    given = Calibration(platt={"B": (2.0, 0.5)})
    found = calibration.probabilities(OUTPUTS, "sigmoid", given, LABELS)
    expected = [1 / (1 + math.exp(-value)) for value in (2.0, 2 * -1.0 + 0.5, 0.5)]
    assert found.tolist() == pytest.approx(expected)
    assert OUTPUTS.tolist() == [2.0, -1.0, 0.5]


def test_without_an_activation_outputs_are_probabilities_already() -> None:
    assert calibration.probabilities(OUTPUTS, "none", Calibration(), LABELS) is OUTPUTS


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2], (0.9, 1.7)),
        ([2, 1], (0.9, 1.7)),
        ({"sigma": 1}, (2.2 - 1.96 * 0.4, 2.2 + 1.96 * 0.4)),
        ({"log_variance": 2}, (2.2 - 1.96 * math.exp(0.3) * 2, 2.2 + 1.96 * math.exp(0.3) * 2)),
        ({"margin": 1.5}, (0.7, 3.7)),
    ],
)
def test_the_ends_of_an_interval(given: Any, expected: tuple[float, float]) -> None:
    known = calibration.intervals({"A": given})["A"]
    outputs = (0.85, 0.2, 0.6)
    found = calibration.ends(known, 2.2, outputs, multiply=2.0, add=0.5)
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_output_that_the_network_does_not_have_is_refused() -> None:
    with pytest.raises(ModelRefused, match="the network gives 3 outputs, no 7"):
        calibration.ends(Interval(sigma=7), 0.0, (1.0, 2.0, 3.0), multiply=1.0, add=0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"calibration": {"temperature": 0}},
        {"calibration": {"temperature": float("nan")}},
        {"calibration": {"warmth": 1.0}},
        {"calibration": {"platt": {"A": [1.0]}}},
        {"calibration": []},
        {"intervals": {"A": [1]}},
        {"intervals": {"A": {"sigma": -1}}},
        {"intervals": {"A": {"margin": 0}}},
        {"intervals": {"A": {"sigma": 1, "margin": 2}}},
        {"intervals": {"A": {"width": 1}}},
        {"intervals": []},
    ],
)
def test_what_the_sidecar_may_not_say_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match="options: a table"):
        calibration.of_options(options)


@pytest.mark.parametrize(
    ("given", "ranges", "activation", "words"),
    [
        (Calibration(platt={"Z": (1, 0)}), {}, "sigmoid", "names no label: Z; allowed: A, B, C"),
        (Calibration(), {"Z": Interval(sigma=1)}, "none", "names no label: Z"),
        (Calibration(platt={"A": (1, 0)}), {}, "softmax", "one by one"),
        (Calibration(temperature=2.0), {}, "none", "an activation"),
    ],
)
def test_what_does_not_fit_together(
    given: Calibration, ranges: dict[str, Interval], activation: str, words: str
) -> None:
    assert words in str(calibration.refused(given, ranges, activation, LABELS))
    assert calibration.refused(Calibration(), {}, activation, LABELS) is None
