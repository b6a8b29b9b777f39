"""A line of the log has a listed event and listed fields, and no text of a library.

Not covered: rotation of the file (it is appended to, so `copytruncate` works), journald.
"""

import ast
import json
import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service import log
from service.events import EVENTS, FIELDS
from tests.logs import events, logging_to

ROOT = Path(__file__).parents[2]
NAME = "Zwiebelmann^Ottilie"
IDENTIFYING = ("patient", "birth", "accession", "sex", "age", "physician", "institution", "name")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    with logging_to(tmp_path / "log" / "node.log") as written:
        yield written


def test_a_line_is_one_json_object_that_begins_with_time_level_event_role_process(
    file: Path,
) -> None:
    log.event("job", job_id=3, outcome="done", seconds=1.23456)
    (line,) = file.read_text().splitlines()
    read = json.loads(line)
    assert list(read)[:5] == ["time", "level", "event", "role", "process"]
    assert datetime.fromisoformat(read["time"]).tzinfo is not None
    assert (read["event"], read["role"], read["process"]) == ("job", "test", os.getpid())
    assert read["seconds"] == 1.235


def test_a_field_that_the_event_does_not_list_is_left_out_and_named(file: Path) -> None:
    log.event("job", job_id=3, patient_name=NAME)
    assert NAME not in file.read_text()
    job, dropped = events(file)
    assert "patient_name" not in job
    assert (dropped["event"], dropped["fields"]) == ("log.dropped", ["patient_name"])


def test_an_unknown_event_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        log.event("jobb")


def test_the_text_of_an_exception_is_not_written_but_where_it_was_raised_is(file: Path) -> None:
    try:
        int(NAME)
    except ValueError as error:
        log.failure("failure", error, detail="a test")
    (line,) = events(file)
    assert line["error_type"] == "ValueError"
    assert line["where"][-1].startswith("tests/unit/test_log.py:")
    assert NAME not in file.read_text()


def test_warnings_loggers_and_threads_of_libraries_are_written_without_their_text(
    file: Path,
) -> None:
    warnings.showwarning(UserWarning(NAME), UserWarning, "/x/site-packages/pydicom/valuerep.py", 7)
    logging.getLogger("pynetdicom.assoc").warning("from %s", NAME)
    try:
        int(NAME)
    except ValueError:
        logging.getLogger("highdicom").exception(NAME)
    thread = threading.Thread(target=lambda: {}[NAME])
    thread.start()
    thread.join()
    assert NAME not in file.read_text()
    warned, logged, raised, uncaught = events(file)
    assert (warned["category"], warned["where"]) == (
        "UserWarning",
        ["site-packages/pydicom/valuerep.py:7"],
    )
    assert (logged["library"], logged["library_level"]) == ("pynetdicom.assoc", "warning")
    assert raised["error_type"] == "ValueError"
    assert uncaught["error_type"] == "KeyError"


def test_values_are_written_as_plain_json(file: Path) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    log.event("job", retry_at=at, reason="x" * 5000, verdict=None)
    (line,) = events(file)
    assert line["retry_at"] == "2026-01-02T03:04:05.000+00:00"
    assert len(line["reason"]) == log.LONGEST_TEXT
    assert line["verdict"] is None


def test_a_line_break_in_a_value_does_not_break_the_line(file: Path) -> None:
    log.event("association", calling_ae_title='A\n{"event": "job"}')
    assert len(file.read_text().splitlines()) == 1


def test_the_level_decides_what_is_written(tmp_path: Path) -> None:
    with logging_to(tmp_path / "log", level="warning") as written:
        log.event("job", job_id=1)
        log.event("job.rescued", job_id=1)
    assert [line["event"] for line in events(written)] == ["job.rescued"]


def test_a_full_disk_does_not_stop_who_logs() -> None:
    with logging_to(Path("/dev/full")):
        log.event("job", job_id=1)


def _write(file: Path, number: int) -> None:
    log.configure(role=str(number), file=file)
    for _ in range(300):
        log.event("job", reason="y" * 900, job_id=number)


def test_processes_share_a_file_and_no_line_is_torn(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    file = tmp_path / "node.log"
    writers = [context.Process(target=_write, args=(file, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = events(file)
    assert len(lines) == 900
    assert {len(line["reason"]) for line in lines} == {900}


def test_every_field_has_a_meaning_and_none_identifies_a_patient() -> None:
    used = {name for event in EVENTS.values() for name in event.fields}
    assert used == set(FIELDS)
    allowed = {"role_name"}
    assert not [
        name for name in used - allowed if any(word in name.split("_") for word in IDENTIFYING)
    ]


def test_every_call_in_the_service_names_a_listed_event_and_listed_fields() -> None:
    wrong = []
    for file in sorted((ROOT / "service").rglob("*.py")):
        for name, fields, line in _calls(ast.parse(file.read_text())):
            known = EVENTS[name].fields if name in EVENTS else ()
            unknown = [field for field in fields if field not in known]
            if name not in EVENTS or unknown:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {name} {unknown}")
    assert not wrong


def test_every_event_is_written_somewhere() -> None:
    trees = [ast.parse(file.read_text()) for file in (ROOT / "service").rglob("*.py")]
    written = {name for tree in trees for name, _, _ in _calls(tree)} | {"log.dropped"}
    assert written >= set(EVENTS)


def test_the_documentation_has_every_event_and_every_field() -> None:
    text = (ROOT / "deploy" / "docs" / "LOGS.md").read_text()
    for name, event in EVENTS.items():
        assert f"| `{name}` | {event.level} | {event.meaning} | {_listed(event.fields)} |" in text
    for name, meaning in FIELDS.items():
        assert f"| `{name}` | {meaning} |" in text


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _calls(tree: ast.Module) -> Iterator[tuple[str, list[str], int]]:
    """(event, keyword fields, line) of every `log.event` and `log.failure` with a literal name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in (
            "log.event",
            "log.failure",
            "event",
        ):
            continue
        if node.args and isinstance(node.args[0], ast.Constant):
            fields = [word.arg for word in node.keywords if word.arg]
            yield str(node.args[0].value), fields, node.lineno
