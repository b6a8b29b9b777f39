"""The keys that a kind declares in its literal `SETTINGS`, read without importing its module.

A kind (a destination, a model, a trigger) states its own configuration keys in its module:

    SETTINGS = {"port": {"type": "port", "default": 104, "about": "where it listens"}}

`type` is one of TYPES, or `choices` lists the allowed values; a key without a default is required,
and one whose default is None may stay unset. The values arrive with the defaults filled in, paths
absolute and as text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from service.validation import (
    AETitle,
    Allowed,
    Amount,
    Count,
    Folder,
    Hidden,
    Host,
    Number,
    Port,
    Seconds,
    Section,
    Switch,
    Text,
    Whole,
)

Values = Mapping[str, Any]
"""A kind's own keys -> values: text, number, bool, list of texts, or None."""

TYPES: Mapping[str, Any] = {
    "text": Text,
    "texts": Annotated[tuple[Text, ...], Allowed("a list of texts")],
    "boolean": Switch,
    "number": Number,
    "amount": Amount,
    "count": Count,
    "whole": Whole,
    "seconds": Seconds,
    "path": Folder,
    "host": Host,
    "port": Port,
    "ae_title": AETitle,
    "secret": Hidden,
}


def extended(base: type[Section], settings: Mapping[str, Any]) -> type[Section]:
    """`base` with the keys that a kind's `SETTINGS` declares."""
    own: dict[str, Any] = {key: _field(setting) for key, setting in settings.items()}
    return create_model(base.__name__, __base__=base, **own)


def own_values(section: Section, keys: Mapping[str, object], *, folder: Path) -> Values:
    """The values of those keys of a validated section; relative paths start at `folder`."""
    return {key: _plain(getattr(section, key), folder) for key in keys}


def _field(setting: Mapping[str, Any]) -> tuple[Any, Any]:
    about = setting.get("about", "")
    if "default" not in setting:
        return _type(setting), Field(description=about)
    if setting["default"] is None:
        return _optional(_type(setting)), Field(None, description=about)
    return _type(setting), Field(setting["default"], description=about)


def _type(setting: Mapping[str, Any]) -> Any:
    if "choices" not in setting:
        return TYPES[setting["type"]]
    choices = tuple(setting["choices"])
    return Annotated[Literal[choices], Allowed(", ".join(map(str, choices)))]


def _optional(type_: Any) -> Any:
    """The type or None, with the words and marks of the type."""
    return Annotated[type_ | None, *type_.__metadata__[1:]]


def _plain(value: object, folder: Path) -> object:
    return str(folder / value) if isinstance(value, Path) else value
