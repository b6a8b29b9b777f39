"""The reference of the configuration keys, written from the same declarations that check them.

`python -m service.reference FILE` renews the parts of a document between their marks: the keys of
the configuration, and those of a model's sidecar.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic.fields import FieldInfo

from service import kinds, sidecar
from service.config import DEFINING, DESTINATIONS, MODELS, TRIGGERS, keys_of
from service.header import INDEXED
from service.preferences import PREFERENCES
from service.sections import (
    LISTS,
    SECTIONS,
    CompletionKeys,
    DestinationKeys,
    ModelKeys,
)
from service.validation import Section, allowed_words

BEGIN = "<!-- keys: written by python -m service.reference -->"
END = "<!-- end of keys -->"
SIDECAR_BEGIN = "<!-- sidecar: written by python -m service.reference -->"
SIDECAR_END = "<!-- end of sidecar -->"
PACKAGES: Mapping[type[Section], str] = {
    CompletionKeys: TRIGGERS,
    DestinationKeys: DESTINATIONS,
    ModelKeys: MODELS,
}


def reference() -> str:
    """Every key with its default, what is allowed and what it means, as Markdown."""
    return "\n\n".join(_parts())


def sidecar_reference() -> str:
    """Every key of a sidecar, as Markdown."""
    return "\n\n".join(
        f"### {title}\n\n{_about(section)}\n\n{_table(section.model_fields, {})}"
        for title, section in sidecar.TABLES_BY_TITLE.items()
    )


def renewed(document: str) -> str:
    """A document with the text between each pair of marks replaced by what belongs there."""
    with_keys = _between(document, BEGIN, END, reference)
    return _between(with_keys, SIDECAR_BEGIN, SIDECAR_END, sidecar_reference)


def _between(document: str, begin: str, end: str, text: Callable[[], str]) -> str:
    before, mark, rest = document.partition(begin)
    if not mark:
        return document
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{text()}\n\n{end}{after}"


def _parts() -> Iterator[str]:
    for name, section in SECTIONS.items():
        yield f"### `[{name}]`\n\n{_about(section)}"
        yield from _tables(section)
    for name, section in LISTS.items():
        yield f"### `[[{name}]]`\n\n{_about(section)}"
        yield from _tables(section)
    yield f"### Preferences\n\n{_preferences()}"
    yield f"### Elements that routes can match\n\n{', '.join(f'`{each}`' for each in INDEXED)}"


def _tables(section: type[Section]) -> Iterator[str]:
    """The keys of a section, then those that only one kind has."""
    choices = existing(section)
    fields = section.model_fields
    words = {"kind": ", ".join(choices)} if choices else {}
    yield _table(fields, words)
    for kind in choices:
        whole = keys_of(section, package=PACKAGES[section], kind=kind).model_fields
        own = {key: field for key, field in whole.items() if key not in fields}
        if own:
            yield f'With `kind = "{kind}"` also:\n\n{_table(own, {})}'


def existing(section: type[Section]) -> tuple[str, ...]:
    """The kinds of a section; none when it has no kinds."""
    if section not in PACKAGES:
        return ()
    return kinds.kinds(PACKAGES[section], defining=DEFINING[PACKAGES[section]])


def _about(section: type[Section]) -> str:
    return (section.__doc__ or "").strip()


def _table(fields: Mapping[str, FieldInfo], words: Mapping[str, str]) -> str:
    rows = [_row(key, field, words.get(key)) for key, field in fields.items()]
    return "\n".join(("| key | default | allowed | meaning |", "|---|---|---|---|", *rows))


def _row(key: str, field: FieldInfo, words: str | None) -> str:
    allowed = words or allowed_words(field)
    return f"| `{key}` | {_default(field)} | {allowed} | {field.description or ''} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default()
    return "not set" if default is None else f"`{_toml(default)}`"


def _toml(value: object) -> str:
    match value:
        case float():
            return f"{value:g}"
        case tuple():
            return json.dumps(list(value))
        case bool() | int() | dict():
            return json.dumps(value)
        case _:
            return json.dumps(str(value))


def _preferences() -> str:
    return "\n".join(f"- `{name}`: {each.about}" for name, each in PREFERENCES.items())


def main(path: Path) -> None:
    """Renew a document."""
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
