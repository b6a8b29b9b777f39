"""Classes and numbers of bare networks; what is no number is an error.

Not covered: the rule of thresholds, which bundles share (test_thresholds.py), calibration and
intervals in full (test_calibration.py).
"""

from typing import Any

import numpy as np
import pytest

from inference.errors import ModelError
from tests.array_models import label, planar
from tests.bare_networks import (
    QUESTION,
    Ask,
    Identity,
    Means,
    One,
    photograph,
)

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


COLOURS: dict[str, Any] = {"dimensions": 2, "modalities": ["XC"]}
RADIOGRAPH: dict[str, Any] = {"dimensions": 2, "modalities": ["DX"]}
EXCLUSIVE: dict[str, Any] = COLOURS | {
    "task": "classification",
    "input": {"channels": 3, "multiply": [0.1, 0.1, 0.1], "size": [4, 4]},
    "output": {"activation": "softmax"},
}
RED, GREEN, BLUE = (
    label(value, name, question=QUESTION) for value, name in enumerate(("Red", "Green", "Blue"))
)


def test_the_most_probable_class_with_its_probability(ask: Ask) -> None:
    (answer,) = ask(Means(), photograph(10, 20, 60), RED, BLUE, **EXCLUSIVE).classifications
    outputs = np.exp([1.0, 2.0, 6.0, 3.0])
    assert (answer.answer.meaning, answer.question.value) == ("Blue", QUESTION[0])
    assert answer.probability == pytest.approx(outputs[2] / outputs.sum(), abs=1e-6)


def test_several_answers_each_above_its_threshold(ask: Ask) -> None:
    found = ask(
        Means(),
        photograph(0, 20, 60),
        RED,
        GREEN,
        BLUE | {"threshold": 0.999},
        task="classification",
        overlapping=True,
        input={"channels": 3, "multiply": 0.1, "add": -1.0},
        output={"activation": "sigmoid"},
        **COLOURS,
    )
    assert [one.answer.meaning for one in found.classifications] == ["Green"]


def test_the_most_probable_class_without_a_label_is_no_other_class(ask: Ask) -> None:
    found = ask(Means(), photograph(10, 20, 60), RED, GREEN, **EXCLUSIVE)
    assert found.classifications == ()
    assert "The likeliest class (number 2) has no label: no answer is given." in found.limitations


@pytest.mark.parametrize(("add", "said"), [(-2.0, 0), (2.0, 1)])
def test_one_output_that_is_improbable_is_no_answer(add: float, said: int, ask: Ask) -> None:
    found = ask(
        One(),
        planar(np.full((8, 8), 100, np.int16), "DX"),
        label(0, "Effusion", question=QUESTION),
        task="classification",
        input={"multiply": 0.0, "add": add},
        output={"activation": "sigmoid"},
        **RADIOGRAPH,
    )
    assert len(found.classifications) == said


@pytest.mark.parametrize("task", ["segmentation", "classification", "keypoints"])
def test_an_answer_that_is_not_finite_is_an_error_and_not_nothing(task: str, ask: Ask) -> None:
    with pytest.raises(ModelError, match="not finite"):
        ask(
            Means() if task == "classification" else Identity(),
            planar(np.full((8, 8), 100, np.int16), "DX"),
            label(0, "Effusion", question=QUESTION),
            task=task,
            overlapping=True,
            input={"channels": 3, "multiply": 1e38},
            **RADIOGRAPH,
        )


def test_a_number_with_its_unit_and_interval(ask: Ask) -> None:
    found = ask(
        Means(),
        photograph(10, 20, 60),
        label(1, "Age", unit=["a", "UCUM", "year"]),
        task="regression",
        input={"channels": 3},
        output={"multiply": 2.0, "add": 1.0, "intervals": {"Age": [0, 2]}},
        **COLOURS,
    )
    (number,) = found.measurements
    assert (number.value, number.interval, number.unit.value) == (41.0, (21.0, 121.0), "a")
