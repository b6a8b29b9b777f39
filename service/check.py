"""A configuration that this accepts, `run` accepts; on request it asks the destinations, too."""

import sys

from service import kinds, model_states, resolved, sandbox
from service.config import DESTINATIONS, Configuration, Destination
from service.destinations import DestinationError
from service.exits import FAILURE, SUCCESS


def check(configuration: Configuration, *, echo: bool) -> int:
    """Print the resolved configuration; with `echo` ask every destination whether it answers."""
    print(resolved.toml(configuration), end="")
    for name, reason in model_states.stopped(configuration).items():
        sys.stderr.write(f"hounsfield: model {name!r} is stopped: {reason}\n")
    lacking = sandbox.lacking()
    if lacking is not None:
        sys.stderr.write(f"hounsfield: on this machine nothing keeps models from {lacking}\n")
    if not echo:
        return SUCCESS
    calling = configuration.application_entity.ae_title
    answers = [answer(each, calling_ae_title=calling) for each in configuration.destinations]
    for destination, error in zip(configuration.destinations, answers, strict=True):
        _say(destination, error)
    return FAILURE if any(answers) else SUCCESS


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
