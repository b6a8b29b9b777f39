"""No line of the log identifies a patient: only listed fields pass, text of libraries never does.

One JSON object a line. `event` writes one of `service.events`; `failure` writes one about an
exception: its class and where it was raised, never its text: libraries quote data sets in theirs.
"""

import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog

from service.events import EVENTS

LONGEST_TEXT = 1000  # characters of one field
HOME = Path(__file__).parents[1]  # of our packages
FRAMES = 12  # of a traceback, innermost last

Value = str | int | float | bool | None | datetime | Path | tuple[str, ...] | list[str]


def event(name: str, /, **fields: Value) -> None:
    """Write one line. What the event does not list is left out, and a line of its own says so."""
    known = EVENTS[name]
    extra = sorted(set(fields) - set(known.fields))
    passed = {key: _plain(value) for key, value in fields.items() if key not in extra}
    _write(known.level, name, passed)
    if extra:
        _write("warning", "log.dropped", {"detail": name, "fields": extra})


def failure(name: str, error: BaseException, /, **fields: Value) -> None:
    """Write one line about an exception: its class and the frames it passed, without its text."""
    event(name, error_type=type(error).__name__, where=frames(error), **fields)


def frames(error: BaseException) -> list[str]:
    """File, line and function of each frame that `error` passed, innermost last."""
    summary = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in summary]


def place(error: BaseException) -> str:
    """Where `error` was raised, as "inference/volume.py:12 read"; "nowhere" if it was not."""
    passed = frames(error)
    return passed[-1] if passed else "nowhere"


def configure(*, role: str, level: str = "info", file: Path | None = None) -> None:
    """Write lines of at least `level` to `file` (processes may share it) or to stderr.

    Warnings and messages of libraries become events without text.
    """
    global _logger  # noqa: PLW0603  (the log of a process is one)
    descriptor = sys.stderr.fileno() if file is None else _open(file)
    _logger = _make(descriptor, role=role, level=level)
    warnings.showwarning = _show_warning
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Bridge)]
    root.addHandler(_Bridge(level=logging.WARNING))


class _Lines:
    """Whole lines to a file descriptor, each by one write, so that processes can share a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def msg(self, line: bytes) -> None:
        """Append `line`; a full or broken disk never stops the node for the sake of its log."""
        try:
            os.write(self._descriptor, line + b"\n")
        except OSError:  # nowhere left to say so
            return

    debug = info = warning = error = critical = msg


class _Bridge(logging.Handler):
    """Messages of libraries as events without text."""

    def emit(self, record: logging.LogRecord) -> None:
        where = [f"{_short(record.pathname)}:{record.lineno} {record.funcName}"]
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        event(
            "library",
            library=record.name,
            library_level=record.levelname.lower(),
            error_type=kind,
            where=where,
        )


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001  (the signature that `warnings` calls)
    line: str | None = None,  # noqa: ARG001
) -> None:
    del message  # may quote a patient's name
    event("warning", category=category.__name__, where=[f"{_short(filename)}:{lineno}"])


def _uncaught(
    _category: type[BaseException], error: BaseException, _trace: TracebackType | None
) -> None:
    failure("failure", error, detail="uncaught")


def _uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        failure("failure", ended.exc_value, detail="uncaught in a thread")


def _make(descriptor: int, *, role: str, level: str) -> Any:
    def stamp(
        _logger: object, method: str, fields: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        name = fields.pop("event")
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = {
            "time": moment,
            "level": method,
            "event": name,
            "role": role,
            "process": os.getpid(),
        }
        return {**head, **fields}

    return structlog.wrap_logger(
        _Lines(descriptor),
        processors=[stamp, _render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


_JSON = structlog.processors.JSONRenderer(ensure_ascii=False)


def _render(logger: object, method: str, fields: MutableMapping[str, Any]) -> bytes:
    line = _JSON(logger, method, fields)
    return line.encode("utf-8", "replace") if isinstance(line, str) else line


def _write(level: str, name: str, fields: Mapping[str, object]) -> None:
    getattr(_logger, level)(name, **fields)


def _plain(value: Value) -> object:
    if isinstance(value, str):
        return value[:LONGEST_TEXT]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [str(each)[:LONGEST_TEXT] for each in value]
    return value


def _open(file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _short(filename: str) -> str:
    """The end of a path: enough to find the line, nothing of the machine."""
    path = Path(filename)
    ours = path.is_relative_to(HOME) and "site-packages" not in path.relative_to(HOME).parts
    return path.relative_to(HOME).as_posix() if ours else "/".join(path.parts[-3:])


_logger = _make(2, role="command", level="warning")
