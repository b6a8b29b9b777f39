"""README.md: its configuration is valid, its commands exist, its links lead somewhere.

Not covered: that the numbers and the sample output are today's; that links to the outside work.
"""

import argparse
import re
import textwrap
from pathlib import Path

import pytest

from service import config
from service.cli import parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
SPAN = re.compile(r"`([^`\n]+)`")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, without the indentation of their list."""
    return [textwrap.dedent(body) for _, name, body in BLOCK.findall(README) if name == language]


def commands(program: str) -> set[str]:
    """What follows a program's name at the start of a line of shell or of words in backticks."""
    said = [line for block in blocks("sh") for line in block.splitlines()]
    said += SPAN.findall(BLOCK.sub("", README))
    found = (line.split() for line in said)
    return {words[1] for words in found if words[0] == program and len(words) > 1}


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (actions,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(actions.choices)


def test_its_configuration_is_valid() -> None:
    (shown,) = blocks("toml")
    found = config.parse(shown, file=ROOT / "README.toml")
    assert found.destinations
    assert found.models
    assert found.routes


def test_the_commands_that_it_names_exist() -> None:
    named = commands("hounsfield")
    assert named >= {"run", "check", "status", "explain"}
    assert named <= set(subcommands())


def test_the_options_that_it_names_exist() -> None:
    lines = [line for line in README.splitlines() if "`hounsfield " in line]
    for line in lines:
        words = [word for span in SPAN.findall(line) for word in span.split()]
        known = subcommands()[words[words.index("hounsfield") + 1]].format_help()
        for option in (word for word in words if word.startswith("--")):
            assert option in known, line


def test_the_targets_of_make_that_it_names_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = commands("make")
    assert named >= {"demo", "test", "check"}
    assert named <= targets


@pytest.mark.parametrize("link", sorted(set(LINK.findall(README))))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_document_is_linked_from_it() -> None:
    documents = {str(path.relative_to(ROOT)) for path in (ROOT / "deploy" / "docs").glob("*.md")}
    assert documents - set(LINK.findall(README)) == set()
