"""deploy/docs/STATES.md is drawn from storage/states.py and storage/records.py; a difference fails.

Not covered here: that the code follows the table (tests/contracts/test_storage_states.py).
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from storage import states

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "deploy" / "docs" / "STATES.md"
MACHINES = {"Series": states.SERIES, "Jobs": states.JOBS, "Deliveries": states.DELIVERIES}


def diagram(machine: states.Machine[Any]) -> str:
    """A Mermaid state diagram: one line an arrow, in the order of the table."""
    arrows = (f"    {_name(a.source)} --> {a.target.name}: {a.verb}" for a in machine.arrows)
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"])


def meanings(kind: type[StrEnum]) -> str:
    """A table of the states with the comment that each has in storage/records.py."""
    return "\n".join(["| state | meaning |", "|---|---|", *_rows(kind)])


def section(title: str) -> str:
    """The wanted text under a heading: meanings, then diagram."""
    machine = MACHINES[title]
    return f"## {title}\n\n{meanings(machine.states)}\n\n{diagram(machine)}\n"


def _name(state: StrEnum | None) -> str:
    return "[*]" if state is None else state.name


def _rows(kind: type[StrEnum]) -> Iterator[str]:
    source = (ROOT / "storage" / "records.py").read_text()
    for state in kind:
        comment = re.search(
            rf'class {kind.__name__}\(.*?{state.name} = "\w+"  # (.*?)\n', source, re.S
        )
        assert comment is not None, f"{state!r} has no comment that says what it means"
        yield f"| `{state.value}` | {comment[1]} |"


@pytest.mark.parametrize("title", MACHINES)
def test_the_document_is_what_the_table_draws(title: str) -> None:
    assert section(title) in DOCUMENT.read_text(), f"put this into {DOCUMENT}:\n{section(title)}"
