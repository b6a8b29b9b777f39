"""A criterion compares one DICOM element of a series with what a route asks for, in words.

Text compares without regard to case and surrounding blanks; numbers compare as numbers. An element
with several values (Image Type) satisfies a criterion when one of its values does. An absent
element satisfies none.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.header import INDEXED
from service.validation import Place, suggestion

ALLOWED = "a value, a list of values, or a table of pattern, min, max"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What a route asks of one element.

    `values`: one of these; `pattern`: a regular expression found anywhere in the value, without
    regard to case; `minimum` and `maximum`: inclusive bounds of a number. At least one is given;
    all that are given must hold for the same value.
    """

    keyword: str
    values: tuple[str, ...] = ()
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None

    def matches(self, found: Iterable[str]) -> bool:
        """Whether one of the values found satisfies it."""
        return any(self._accepts(value.strip()) for value in found)

    def _accepts(self, value: str) -> bool:
        return (
            (not self.values or any(_equal(value, wanted) for wanted in self.values))
            and (self.pattern is None or re.search(self.pattern, value, re.IGNORECASE) is not None)
            and self._within(value)
        )

    def _within(self, value: str) -> bool:
        if self.minimum is None and self.maximum is None:
            return True
        number = as_number(value)
        if number is None:
            return False
        return (self.minimum is None or number >= self.minimum) and (
            self.maximum is None or number <= self.maximum
        )

    def __str__(self) -> str:
        wanted = []
        if self.values:
            wanted.append(" or ".join(self.values))
        if self.pattern is not None:
            wanted.append(f"a text like {self.pattern!r}")
        if self.minimum is not None:
            wanted.append(f"at least {self.minimum:g}")
        if self.maximum is not None:
            wanted.append(f"at most {self.maximum:g}")
        return " and ".join(wanted)


def parse(keyword: str, wanted: object) -> Criterion:
    """A criterion from its TOML value; ValueError says what is wrong with it."""
    if isinstance(wanted, Mapping):
        return _from_table(keyword, wanted)
    values = wanted if isinstance(wanted, list | tuple) else (wanted,)
    if not values or not all(_is_plain(value) for value in values):
        raise ValueError(f"{wanted!r}")
    return Criterion(keyword=keyword, values=tuple(str(value).strip() for value in values))


def match(raw: Mapping[str, object], place: Place) -> tuple[Criterion, ...]:
    """The criteria of a table KEYWORD = what is wanted; ConfigurationError for the first fault."""
    return tuple(_placed(keyword, wanted, place) for keyword, wanted in raw.items())


def _placed(keyword: str, wanted: object, place: Place) -> Criterion:
    if keyword not in INDEXED:
        wrong = f"not an element that can be matched{suggestion(keyword, INDEXED)}"
        raise place.at(keyword).error(wrong, allowed=", ".join(sorted(INDEXED)))
    try:
        return parse(keyword, wanted)
    except ValueError as error:
        raise place.at(keyword).error(str(error), allowed=ALLOWED) from error


def as_number(text: str) -> float | None:
    """The number a text holds, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def _from_table(keyword: str, table: Mapping[str, object]) -> Criterion:
    unknown = sorted(set(table) - {"pattern", "min", "max"})
    if unknown or not table:
        raise ValueError(f"unknown key {unknown[0]!r}" if unknown else "an empty table")
    pattern = table.get("pattern")
    if pattern is not None and not isinstance(pattern, str):
        raise ValueError(f"pattern {pattern!r} is not text")
    return Criterion(
        keyword=keyword,
        pattern=_compiled(pattern),
        minimum=_bound(table, "min"),
        maximum=_bound(table, "max"),
    )


def _compiled(pattern: str | None) -> str | None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error
    return pattern


def _bound(table: Mapping[str, object], key: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} {value!r} is not a number")  # noqa: TRY004  (one error of this parser)
    return float(value)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _equal(value: str, wanted: str) -> bool:
    if value.casefold() == wanted.casefold():
        return True
    one, other = as_number(value), as_number(wanted)
    return one is not None and one == other
