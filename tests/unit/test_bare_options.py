"""What a sidecar may say of a bare network, in one line each when it may not; all of it documented.

Not covered: options of the engine (test_bare_engine.py).
"""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from inference.arrays.options import DEFAULTS, Locate
from inference.arrays.rules import RULES
from inference.errors import ModelRefused
from tests.array_models import label, oblique
from tests.bare_networks import (
    Ask,
    Bright,
    Identity,
    Means,
)

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
README = Path(__file__).resolve().parents[2] / "deploy" / "models" / "README.md"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs": {}}, "options.inputs: unknown; allowed: file, input, window"),
        ({"input": {"spaceing": [1, 1, 1]}}, "options.input.spaceing: unknown; allowed: orient"),
        ({"input": {"orientation": "RAX"}}, "'RAX' is not allowed; allowed: source, or three"),
        ({"input": {"spacing": [1, 1]}}, "options.input.spacing: 2 numbers; allowed: one an axis"),
        ({"input": {"spacing": [1, 1, 0]}}, r"options.input.spacing: \[1, 1, 0\] is not allowed"),
        ({"input": {"clip": [5, 5]}}, r"options.input.clip: .* allowed: \[\], or \[lowest"),
        ({"input": {"scale": "minmax"}}, "allowed: none, unit, zscore, zscore_nonzero"),
        ({"input": {"channels": 2}}, "options.input.channels: 2 is not allowed; allowed: 1 or 3"),
        ({"input": {"slicewise": 1}}, "options.input.slicewise: 1 .* allowed: true or false"),
        ({"window": {"overlap": 1.0}}, "options.window.overlap: 1.0 .* from 0 to 0.95"),
        ({"window": {"size": [8, 8, 8]}, "output": {"form": "label_map"}}, "cannot be averaged"),
        ({"output": {"activation": "relu"}}, "allowed: none, softmax, sigmoid"),
        ({"output": {"intervals": {"Age": [0, 1]}}}, "options.output.intervals: names no label"),
        ({"output": {"take": 3}}, "options.output.take: the network gives no output 3"),
        ({"locate": {"file": "a.pt"}}, "options.locate.size: is missing"),
        ({"file": "other.pt"}, "other.pt is not among the files that were added"),
        ({"input": {"spacing": [1, 1, 1], "size": [9, 9, 9]}}, "together with spacing"),
    ],
)
def test_options_that_are_not_allowed_are_one_line(
    options: dict[str, Any], words: str, ask: Ask
) -> None:
    with pytest.raises(ModelRefused, match=words) as refused:
        ask(Bright(), oblique(), label(1, "Bright"), **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("network", "labels", "described", "words"),
    [
        (Bright(), [label(5, "Five")], {}, "Five has value 5; the network gives 2 outputs"),
        (Identity(), [label(0, "One")], {}, "one channel: output.overlapping = true"),
        (Means(), [label(0, "One")], {}, "the network answers .* allowed: a channel first"),
        (Bright(), [label(0, "No")], {"task": "classification"}, "labels: No: question is missing"),
        (Bright(), [label(0, "No")], {"task": "regression"}, "labels: No: unit is missing"),
        (Bright(), [label(0, "No")], {"task": "detection"}, "answers no boxes"),
        (Bright(), [], {}, "labels: none; allowed: one or more"),
    ],
)
def test_networks_that_do_not_fit_their_sidecar_are_refused(
    network: nn.Module, labels: list[Any], described: dict[str, Any], words: str, ask: Ask
) -> None:
    with pytest.raises(ModelRefused, match=words):
        ask(network, oblique(), *labels, **described)


def test_every_option_and_its_default_is_documented() -> None:
    """In the table of deploy/models/README.md; those of `locate` are the dataclass's."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \| .+ \|$", README.read_text(), re.MULTILINE)
    stated = {key: default.strip("`") for key, default in rows if "." in key}
    known = {f"{table}.{key}" for table, keys in RULES.items() for key in keys}
    assert set(stated) == known
    defaults = {
        f"{table}.{key}": value for table in DEFAULTS for key, value in DEFAULTS[table].items()
    }
    for key, value in defaults.items():
        assert json.loads(stated[key]) == value, key
    for field in fields(Locate):
        if field.name not in ("file", "size"):
            assert float(stated[f"locate.{field.name}"]) == field.default
