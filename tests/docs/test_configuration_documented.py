"""Every key is in the reference configuration and in its document, with the default that it has.

Not covered: whether the prose is right.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from service import kinds, reference, resolved, sidecar
from service.config import DESTINATIONS, MODELS, comes_as_files, keys_of, load, parse
from service.preferences import PREFERENCES
from service.sections import LISTS, SECTIONS, DestinationKeys, ModelKeys
from service.validation import Section, allowed_words

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EXAMPLE = DEPLOY / "hounsfield.toml"
DOCUMENT = DEPLOY / "docs" / "CONFIGURATION.md"
SIDECARS = DEPLOY / "docs" / "MODELS.md"
FROM_FILES = re.compile(r"^#   (\S.*)$", re.MULTILINE)
COMMENTED = re.compile(r"^# (\w+ = \S.*)$", re.MULTILINE)


def every_key() -> list[tuple[str, type[Section]]]:
    """(where the example has them, the keys) of every table and of every kind."""
    found: list[tuple[str, type[Section]]] = [*SECTIONS.items(), *LISTS.items()]
    for kind in reference.existing(DestinationKeys):
        found.append((f"destinations {kind}", _keys(DestinationKeys, DESTINATIONS, kind)))
    for kind in reference.existing(ModelKeys):
        found.append((f"models {kind}", _keys(ModelKeys, MODELS, kind)))
    return found


def _keys(base: type[Section], package: str, kind: str) -> type[Section]:
    return keys_of(base, package=package, kind=kind)


def example() -> dict[str, Any]:
    """The example with its commented keys in force."""
    return tomllib.loads(COMMENTED.sub(r"\1", EXAMPLE.read_text(encoding="utf-8")))


def written(place: str) -> dict[str, Any]:
    """The keys that the example writes at a place."""
    name, _, kind = place.partition(" ")
    if kind and name == "models" and comes_as_files(kind):
        return from_files(kind)
    table = example().get(name, {})
    entries = table if isinstance(table, list) else [table]
    merged: dict[str, Any] = {}
    for entry in entries:
        if not kind or entry.get("kind") == kind:
            merged |= entry
    return merged


def from_files(kind: str) -> dict[str, Any]:
    """The keys of the example's one model that comes as files, which names all such kinds."""
    text = EXAMPLE.read_text(encoding="utf-8")
    (entry,) = tomllib.loads("\n".join(FROM_FILES.findall(text)))["models"]
    (named,) = re.findall(r"comes as files\. Kinds: (.*)\. `hounsfield", text)
    assert kind in named.split(", ")
    found: dict[str, Any] = entry
    return found


def test_the_example_is_valid() -> None:
    resolved.toml(load(EXAMPLE))


def test_the_example_is_valid_with_its_commented_keys() -> None:
    text = COMMENTED.sub(r"\1", EXAMPLE.read_text(encoding="utf-8"))
    whole = parse(text, file=EXAMPLE)
    assert whole.storage.database is not None
    assert whole.log.file is not None


@pytest.mark.parametrize(("place", "section"), every_key(), ids=str)
def test_every_key_is_in_the_example(place: str, section: type[Section]) -> None:
    shown = written(place)
    own = set(section.model_fields)
    if " " in place:
        own -= set(LISTS[place.split()[0]].model_fields)
    assert own <= set(shown)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_shows_the_defaults(name: str) -> None:
    shown = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))[name]
    for key, value in shown.items():
        default = SECTIONS[name].model_fields[key].get_default()
        expected = list(default) if isinstance(default, tuple) else default
        assert value == (f"./{expected}" if isinstance(expected, Path) else expected), key


def test_the_example_shows_the_defaults_of_the_kinds() -> None:
    pacs = written("destinations dicom")
    settings = kinds.table(DESTINATIONS, "dicom", "SETTINGS")
    for key, setting in settings.items():
        default = setting.get("default") if isinstance(setting, dict) else None
        assert default is None or pacs[key] == default, key


@pytest.mark.parametrize(
    ("path", "mark"), [(DOCUMENT, reference.BEGIN), (SIDECARS, reference.SIDECAR_BEGIN)]
)
def test_the_document_has_the_keys_as_they_are(path: Path, mark: str) -> None:
    document = path.read_text(encoding="utf-8")
    assert mark in document
    assert reference.renewed(document) == document, f"run: python -m service.reference {path}"


@pytest.mark.parametrize("section", sidecar.TABLES_BY_TITLE.values())
def test_every_key_of_a_sidecar_says_what_it_means(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, name
        assert "reference" not in allowed_words(field), name


@pytest.mark.parametrize(("place", "section"), every_key(), ids=str)
def test_every_key_says_what_it_means(place: str, section: type[Section]) -> None:
    silent = [key for key, field in section.model_fields.items() if not field.description]
    assert silent == []


def test_every_preference_is_documented() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in PREFERENCES if f"- `{name}`: " not in document] == []


def test_the_errors_that_the_document_shows_are_real() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    shown = re.findall(r"^    node\.toml: (.*)$", document, re.MULTILINE)
    assert len(shown) == 2
    for toml, line in zip(
        (
            "[[destinations]]\nname='pacs'\nkind='dicom'\nae_title='P'\nhost='h'\nport=70000",
            "[web]\nprot=1",
        ),
        shown,
        strict=True,
    ):
        with pytest.raises(Exception, match="allowed") as refused:
            parse(toml, file=Path("node.toml"))
        assert str(refused.value) == f"node.toml: {line}"
