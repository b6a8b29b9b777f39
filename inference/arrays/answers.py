"""From a network's vector of outputs to coded answers and numbers."""

from collections.abc import Iterator

from torch import Tensor

from inference import calibration, thresholds
from inference.arrays.options import Output
from inference.arrays.segmentation import channel
from inference.description import Description, Label
from inference.errors import ModelRefused
from inference.findings import Classification, Measurement


def probabilities(outputs: Tensor, description: Description, output: Output) -> Tensor:
    """Of each class (class,), calibrated; the outputs themselves without an activation."""
    return calibration.probabilities(
        outputs, output.activation, output.calibration, description.labels
    )


def classifications(
    likely: Tensor, description: Description, output: Output
) -> Iterator[Classification]:
    """The classes that count, as `thresholds` says. `likely`: see `probabilities`.

    When the most probable has no label there is no answer; a network of one output says how
    probable one class is, which may be none. Raises ModelRefused for a label of no output.
    """
    for label in description.labels:
        channel(likely, label)
    for label in thresholds.said(likely.tolist(), description):
        probability = float(likely[label.value])
        yield classification(label, None if output.activation == "none" else probability)


def nameless(likely: Tensor, description: Description) -> tuple[str, ...]:
    """A sentence when the most probable of exclusive classes has no label: that is not nothing."""
    most = int(likely.argmax())
    if description.overlapping or most in {label.value for label in description.labels}:
        return ()
    return (f"The likeliest class (number {most}) has no label: no answer is given.",)


def classification(label: Label, probability: float | None) -> Classification:
    """A label as an answer to its question; raises ModelRefused without a question."""
    if label.question is None:
        raise ModelRefused(f"labels: {label.definition.label}: question is missing")
    return Classification(
        question=label.question, answer=label.definition.type, probability=probability
    )


def measurements(
    outputs: Tensor, description: Description, output: Output
) -> Iterator[Measurement]:
    """Each label's number with its unit, and its interval where the options name one."""
    numbers = outputs * output.multiply + output.add
    for label in description.labels:
        value = float(channel(numbers, label))
        known = output.intervals.get(label.definition.label)
        ends = None
        if known is not None:
            ends = calibration.ends(
                known, value, outputs.tolist(), multiply=output.multiply, add=output.add
            )
        yield measurement(label, value, ends)


def measurement(
    label: Label, value: float, interval: tuple[float, float] | None = None
) -> Measurement:
    """A label as a number of the whole image; raises ModelRefused without a unit."""
    if label.unit is None:
        raise ModelRefused(f"labels: {label.definition.label}: unit is missing")
    return Measurement(name=label.definition.type, value=value, unit=label.unit, interval=interval)
