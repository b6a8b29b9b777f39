"""MODELS.md: each example is a sidecar that the node reads and a bundle accepts; every option of a
bundle and of nnU-Net is in its table.

Not covered: whether the codes are the best ones.
"""

import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from inference import description
from inference.bundles import options as bundle_options
from inference.models import monai_bundle
from inference.nnunet import options as nnunet_options
from service import sidecar
from service.validation import Place

DOCUMENT = Path(__file__).resolve().parents[2] / "deploy" / "docs" / "MODELS.md"
SECTION = DOCUMENT.read_text(encoding="utf-8").partition("## Task by task\n")[2].partition("\n## ")
EXAMPLES = re.findall(r"```toml\n(.*?)```", SECTION[0], re.DOTALL)
REST: dict[str, Any] = {
    "name": "Example",
    "version": "1",
    "summary": "An example.",
    "input": {"modalities": ["CT"]},
    "files": {"models/model.pt": "0" * 64},
}


def read(example: str) -> description.Description:
    document = {**REST, **tomllib.loads(example)}
    return description.parse(sidecar.parse(document, Place(file=DOCUMENT)).plain)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_sidecar_whose_options_a_bundle_takes(example: str) -> None:
    found = read(example)
    assert monai_bundle.settled(found).activation in monai_bundle.ACTIVATIONS


@pytest.mark.parametrize(
    ("kind", "known"), [("monai_bundle", bundle_options.RULES), ("nnunet", nnunet_options.KNOWN)]
)
def test_every_option_is_documented(kind: str, known: Collection[str]) -> None:
    _, _, after = DOCUMENT.read_text(encoding="utf-8").partition(f"### Options of `{kind}`")
    table = after.partition("\n**")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(known)


def test_every_task_has_an_example() -> None:
    assert {read(example).task for example in EXAMPLES} == set(description.Task)


def test_an_example_says_what_it_seems_to_say() -> None:
    by_task = {read(example).task: monai_bundle.settled(read(example)) for example in EXAMPLES}
    assert by_task[description.Task.CLASSIFICATION].calibration.platt == {"Effusion": (1.2, -0.3)}
    assert by_task[description.Task.REGRESSION].intervals["Bone age"].sigma == 1
    assert by_task[description.Task.KEYPOINTS].points.reversed
