"""The reference of the configuration keys, written from the same declarations that check them.

`python -m service.reference FILE` renews the part of a document between its two marks.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from service import kinds
from service.config import DESTINATIONS, MODELS, TRIGGERS, keys_of
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
PACKAGES: tuple[tuple[str, str, type[Section]], ...] = (
    ("completion", TRIGGERS, CompletionKeys),
    ("destinations", DESTINATIONS, DestinationKeys),
    ("models", MODELS, ModelKeys),
)


def reference() -> str:
    """Every key with its default, what is allowed and what it means, as Markdown."""
    return "\n\n".join(_parts())


def renewed(document: str) -> str:
    """A document with the text between its marks replaced by the reference."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _parts() -> Iterator[str]:
    for name, section in SECTIONS.items():
        yield f"### `[{name}]`\n\n{_about(section)}\n\n{_table(section)}"
        yield from _kinds(name)
    for name, section in LISTS.items():
        yield f"### `[[{name}]]`\n\n{_about(section)}\n\n{_table(section)}"
        yield from _kinds(name)
    yield f"### Preferences\n\n{_preferences()}"
    yield f"### Elements that routes can match\n\n{', '.join(f'`{each}`' for each in INDEXED)}"


def _kinds(name: str) -> Iterator[str]:
    for table, package, base in PACKAGES:
        for kind in kinds.kinds(package) if table == name else ():
            section = keys_of(base, package=package, kind=kind)
            own = [key for key in section.model_fields if key not in base.model_fields]
            if own:
                yield f'With `kind = "{kind}"` also:\n\n{_rows(section, own)}'


def _about(section: type[Section]) -> str:
    return (section.__doc__ or "").strip()


def _table(section: type[Section]) -> str:
    return _rows(section, list(section.model_fields))


def _rows(section: type[Section], keys: list[str]) -> str:
    rows = [_row(key, section.model_fields[key]) for key in keys]
    return "\n".join(("| key | default | allowed | meaning |", "|---|---|---|---|", *rows))


def _row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", _default(field), allowed_words(field), field.description or "")
    return f"| {' | '.join(cells)} |"


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
