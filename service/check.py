"""A configuration that this accepts, `run` accepts; on request it asks the destinations, too."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from service import kinds, model_states, resolved, sandbox
from service.config import DESTINATIONS, Configuration, Destination
from service.destinations import DestinationError
from service.exits import FAILURE, SUCCESS

BARE = ("torchscript", "onnx")
STACK = 3  # dimensions
UNILATERAL = ("7771000", "24028007")  # SNOMED CT: Left, Right (PS3.16 CID 244)
SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
UNSURE = (
    'options.input.orientation is "source": left and right of {} are right only for images whose '
    "slices, rows and columns lie as those that the network learnt"
)


def check(configuration: Configuration, *, echo: bool, lacking: Mapping[str, Sequence[str]]) -> int:
    """Print the resolved configuration; with `echo` ask every destination whether it answers.

    `lacking`: name of a model that cannot run here -> why (service/model_check.py, which loads what
    this module must not).
    """
    print(resolved.toml(configuration), end="")
    for name, reason in model_states.stopped(configuration).items():
        sys.stderr.write(f"hounsfield: model {name!r} is stopped: {reason}\n")
    for name, reasons in lacking.items():
        for reason in reasons:
            sys.stderr.write(f"hounsfield: model {name!r} does not run here yet: {reason}\n")
    for name, labels in unsure_of_sides(configuration).items():
        sys.stderr.write(f"hounsfield: model {name!r}: {UNSURE.format(', '.join(labels))}\n")
    unconfined = sandbox.lacking()
    if unconfined is not None:
        sys.stderr.write(f"hounsfield: on this machine nothing keeps models from {unconfined}\n")
    if not echo:
        return SUCCESS
    calling = configuration.application_entity.ae_title
    answers = [answer(each, calling_ae_title=calling) for each in configuration.destinations]
    for destination, error in zip(configuration.destinations, answers, strict=True):
        _say(destination, error)
    return FAILURE if any(answers) else SUCCESS


def unsure_of_sides(configuration: Configuration) -> dict[str, tuple[str, ...]]:
    """Name of a bare network -> its labels with a side that only the scanner's order gives.

    Their results say so, too (inference/arrays/sides.py, which a test compares with this).
    """
    found = {}
    for model in configuration.models:
        if model.kind in BARE and model.artifact is not None:
            found[model.name] = _sided(model.artifact.sidecar.plain)
    return {name: labels for name, labels in found.items() if labels}


def _sided(sidecar: Mapping[str, Any]) -> tuple[str, ...]:
    given = sidecar["options"].get("input", {})
    if sidecar["input"]["dimensions"] != STACK or given.get("orientation", "source") != "source":
        return ()
    return tuple(
        label["name"]
        for label in sidecar["labels"]
        if (label["modifier"] or [""])[0] in UNILATERAL
        or any(SIDE.search(words) for words in (label["name"], label["type"][2]))
    )


def answer(destination: Destination, *, calling_ae_title: str) -> str | None:
    """Why a destination could not take objects now; None when it could."""
    module = kinds.load_kind(DESTINATIONS, destination.kind)
    peer = module.destination(destination.settings, calling_ae_title=calling_ae_title)
    try:
        peer.echo()
    except DestinationError as error:
        return str(error)
    return None


def _say(destination: Destination, error: str | None) -> None:
    if error is None:
        print(f"# {destination.name} ({destination.kind}) answers")
    else:
        sys.stderr.write(f"hounsfield: destination {destination.name!r}: {error}\n")
