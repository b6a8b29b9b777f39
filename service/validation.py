"""Every error of a configuration is one line: the file, the key, what is wrong, what is allowed.

The types of the settings are here, each with what it allows in words: the words go into the error
messages and into the reference of the keys alike.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

S = TypeVar("S", bound=BaseModel)
SHORTEST_HINT = 4  # letters of a word that a known name may contain


class ConfigurationError(Exception):
    """`FILE: key: what is wrong; allowed: ...`, on one line."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a type of setting allows, in words."""

    words: str


@dataclass(frozen=True, slots=True)
class Secret:
    """Marks a setting whose value is never shown."""


Text = Annotated[str, Field(strict=True, min_length=1), Allowed("a text")]
Name = Annotated[
    str,
    Field(strict=True, pattern=r"\A[^\x00-\x1f\\/]{1,64}\z"),
    Allowed("a name of 1 to 64 characters without / and \\"),
]
AETitle = Annotated[
    str,
    Field(strict=True, pattern=r"\A[ -\[\]-~]{0,15}[!-\[\]-~]\z"),
    Allowed("an AE title: 1 to 16 ASCII characters, no backslash, not blank"),
]
Host = Annotated[
    str,
    Field(strict=True, pattern=r"\A[0-9A-Za-z.:_-]{1,253}\z"),
    Allowed("a host name or address"),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535), Allowed("a port from 1 to 65535")]
Switch = Annotated[bool, Field(strict=True), Allowed("true or false")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), Allowed("a number")]
Amount = Annotated[
    float, Field(strict=True, ge=0, allow_inf_nan=False), Allowed("a number, 0 or more")
]
Seconds = Annotated[
    float, Field(strict=True, gt=0, le=31_536_000), Allowed("a number above 0, at most 31536000")
]
Count = Annotated[int, Field(strict=True, ge=1, le=100_000), Allowed("a whole number from 1")]
Whole = Annotated[int, Field(strict=True, ge=0), Allowed("a whole number, 0 or more")]
Folder = Annotated[
    Path, Field(), Allowed("a path; a relative one starts at the configuration's folder")
]
Hidden = Annotated[str, Field(strict=True, min_length=1), Allowed("a text, never shown"), Secret()]


class Section(BaseModel):
    """A table of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in which file a value stands."""

    file: Path
    key: str = ""

    def at(self, *keys: str | int) -> "Place":
        """A place below this one."""
        path = self.key
        for key in keys:
            path += f"[{key + 1}]" if isinstance(key, int) else f".{key}" if path else key
        return Place(file=self.file, key=path)

    def item(self, value: object, index: int) -> "Place":
        """The place of an element of a list of tables: by its name, else by its number from 1."""
        name = value.get("name") if isinstance(value, dict) else None
        return Place(file=self.file, key=f"{self.key}[{name or index + 1}]")

    def error(self, wrong: str, *, allowed: str) -> ConfigurationError:
        """The error of this place."""
        where = f"{self.file}: {self.key}" if self.key else f"{self.file}"
        return ConfigurationError(" ".join(f"{where}: {wrong}; allowed: {allowed}".splitlines()))


def validated(section: type[S], raw: object, place: Place) -> S:
    """A table as its section, or the ConfigurationError of its first fault."""
    if not isinstance(raw, dict):
        raise place.error(f"{raw!r} is not a table", allowed=f"a table of {listed(section)}")
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        raise _translated(section, error, place) from None


def listed(section: type[BaseModel]) -> str:
    """The keys of a section in words."""
    return ", ".join(section.model_fields)


def suggestion(word: object, known: Iterable[str]) -> str:
    """' (did you mean X?)' for a word close to a known one, else ''."""
    asked, names = str(word), sorted(known)
    longer = [name for name in names if len(asked) >= SHORTEST_HINT and asked in name]
    close = difflib.get_close_matches(asked, names, n=3, cutoff=0.6) or longer[:3]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def allowed_words(field: FieldInfo) -> str:
    """What a field allows, in words."""
    for note in _metadata(field):
        if isinstance(note, Allowed):
            return note.words
    return "see the reference of the keys"


def is_secret(field: FieldInfo) -> bool:
    """Whether a field's value is never shown."""
    return any(isinstance(note, Secret) for note in _metadata(field))


def _metadata(field: FieldInfo) -> Sequence[object]:
    return field.metadata


def _translated(
    section: type[BaseModel], error: ValidationError, place: Place
) -> ConfigurationError:
    first = error.errors(include_url=False)[0]
    key, *rest = first["loc"]
    where = place.at(key, *rest)
    if first["type"] == "extra_forbidden":
        hint = suggestion(key, section.model_fields)
        return where.error(f"unknown key{hint}", allowed=listed(section))
    field = section.model_fields[str(key)]
    allowed = allowed_words(field)
    if first["type"] == "missing":
        return where.error("is missing", allowed=allowed)
    shown = "the value" if is_secret(field) else repr(first["input"])
    return where.error(f"{shown} is not allowed", allowed=allowed)
