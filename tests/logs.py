"""The log of a test's own process, in a file as a node writes it; all hooks are put back after."""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service import log


@contextmanager
def logging_to(file: Path, *, role: str = "test", level: str = "debug") -> Iterator[Path]:
    """Events go to `file` inside."""
    hooks = sys.excepthook, threading.excepthook, warnings.showwarning, log._logger
    handlers = list(logging.getLogger().handlers)
    log.configure(role=role, level=level, file=file)
    try:
        yield file
    finally:
        sys.excepthook, threading.excepthook, warnings.showwarning, log._logger = hooks
        logging.getLogger().handlers = handlers


def events(file: Path, name: str | None = None) -> list[dict[str, Any]]:
    """The lines of a log, all or those of one event."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if name in (None, line["event"])]
