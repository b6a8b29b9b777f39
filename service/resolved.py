"""A configuration as TOML, every key with its value, secrets masked: what `check` prints."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from service.config import (
    DESTINATIONS,
    MODELS,
    Artifact,
    Configuration,
    Destination,
    Model,
    Route,
    keys_of,
)
from service.criteria import Criterion
from service.declared import Values
from service.sections import DestinationKeys, ModelKeys
from service.validation import Section, is_secret

MASK = "********"
PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@]*(?=@)")
PLAIN_SECTIONS = (
    "application_entity",
    "storage",
    "web",
    "retention",
    "results",
    "inference",
    "deliveries",
    "log",
)


def toml(configuration: Configuration) -> str:
    """The whole configuration; it loads again to the same values, but for masked secrets."""
    tables = [_table(f"[{name}]", values) for name, values in _sections(configuration).items()]
    tables += [_table("[[destinations]]", _destination(d)) for d in configuration.destinations]
    tables += [_table("[[models]]", _model(model)) for model in configuration.models]
    tables += [_table("[[routes]]", _route(route)) for route in configuration.routes]
    return "\n\n".join(tables) + "\n"


def masked_url(url: str) -> str:
    """A database URL without its password."""
    return PASSWORD.sub(rf"\1:{MASK}", url)


def _sections(configuration: Configuration) -> dict[str, dict[str, Any]]:
    sections = {name: _dumped(getattr(configuration, name)) for name in PLAIN_SECTIONS}
    sections["storage"]["database"] = masked_url(configuration.database_url)
    completion = asdict(configuration.completion)
    sections["completion"] = completion.pop("settings") | completion
    return sections


def _dumped(section: Section) -> dict[str, Any]:
    return section.model_dump()


def _destination(destination: Destination) -> dict[str, Any]:
    section = keys_of(DestinationKeys, package=DESTINATIONS, kind=destination.kind)
    return {
        "name": destination.name,
        "kind": destination.kind,
        "results": destination.results,
        **_masked(section, destination.settings),
    }


def _model(model: Model) -> dict[str, Any]:
    section = keys_of(ModelKeys, package=MODELS, kind=model.kind)
    return {
        "name": model.name,
        "kind": model.kind,
        "deadline_seconds": model.deadline_seconds,
        **_artifact(model.artifact),
        **_masked(section, model.settings),
    }


def _artifact(artifact: Artifact | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    return {"path": str(artifact.path), "trust": "trusted" if artifact.trusted else "strict"}


def _masked(section: type[Section], settings: Values) -> dict[str, Any]:
    secret = {key for key, field in section.model_fields.items() if is_secret(field)}
    return {key: MASK if key in secret else value for key, value in settings.items()}


def _route(route: Route) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "name": route.name,
        "match": {criterion.keyword: _criterion(criterion) for criterion in route.match},
        "models": tuple(model.name for model in route.models),
        "destinations": route.destinations,
        "priority": route.priority.value,
        "select": "best" if route.best else "each",
        "minimum_instances": route.minimum_instances,
    }
    return keys | ({"prefer": route.prefer} if route.best else {})


def _criterion(criterion: Criterion) -> object:
    bounds = {
        "pattern": criterion.pattern,
        "min": criterion.minimum,
        "max": criterion.maximum,
    }
    stated = {key: value for key, value in bounds.items() if value is not None}
    return stated or criterion.values


def _table(head: str, values: Mapping[str, Any]) -> str:
    return "\n".join((head, *(_line(key, value) for key, value in values.items())))


def _line(key: str, value: object) -> str:
    return f"# {key} is not set" if value is None else f"{key} = {_value(value)}"


def _value(value: object) -> str:
    match value:
        case bool() | int() | float():
            return json.dumps(value)
        case Mapping():
            stated = {key: each for key, each in value.items() if each is not None}
            return f"{{ {', '.join(f'{key} = {_value(v)}' for key, v in stated.items())} }}"
        case tuple() | list():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
