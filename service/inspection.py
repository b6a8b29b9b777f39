"""What a model would run is looked at where a hostile file can do nothing: confined, and ended.

The look itself is `service.model_contents`, loaded in a process of its own after that has given up
what service/sandbox.py says. It answers with lines of text and nothing else.
"""

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path

from service import log, model_folder, processes, sandbox
from service.exits import FAILURE
from service.scratch import Scratch

SECONDS = 300.0
LOOK_SECONDS = 0.2  # between two looks at what it wrote
MOST_ANSWERED = 4 << 20  # bytes
MOST_LINES = 200
LONGEST = 300  # characters


class InspectionError(Exception):
    """A model whose contents cannot be shown; the text says how the attempt ended."""


def beyond_strict(
    path: Path, files: Mapping[str, str], *, memory_bytes: int | None = None
) -> tuple[str, ...]:
    """What a model's files (path inside -> SHA-256) could do beyond the strict policy, in words.

    Raises InspectionError when that cannot be found out, for whatever reason.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    scratch = Scratch()
    process = context.Process(
        target=run,
        args=(theirs, os.getpid(), scratch.path, path, dict(files), memory_bytes),
        name="inspection",
        daemon=True,
    )
    late = threading.Timer(SECONDS + 1, process.kill)  # while half an answer is waited for
    late.daemon = True
    try:
        with sandbox.bare_environment(scratch.path, limited=memory_bytes is not None):
            process.start()
        theirs.close()
        late.start()
        return _lines(_answer(ours, process, scratch))
    finally:
        late.cancel()
        process.kill()
        process.join()
        ours.close()
        scratch.remove()


def _answer(
    ours: Connection, process: multiprocessing.process.BaseProcess, scratch: Scratch
) -> bytes:
    until = time.monotonic() + SECONDS
    while ours not in wait([ours, process.sentinel], timeout=LOOK_SECONDS):
        overflown = scratch.overflown()
        if overflown is not None:
            raise InspectionError(f"it {overflown}")
        if time.monotonic() > until:
            raise InspectionError(f"it took more than {SECONDS:g} s")
        if process.exitcode is not None and not ours.poll():
            raise InspectionError(f"its process {processes.how_it_ended(process.exitcode)}")
    try:
        return ours.recv_bytes(MOST_ANSWERED)
    except (EOFError, OSError) as error:
        process.join(timeout=1.0)
        if time.monotonic() > until:
            raise InspectionError(f"it took more than {SECONDS:g} s") from error
        ended = processes.how_it_ended(process.exitcode)
        raise InspectionError(f"its process {ended}") from error


def _lines(answer: bytes) -> tuple[str, ...]:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise InspectionError("its process said something that is no answer") from error
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise InspectionError("its process said something that is no answer")
    more = [f"and {len(found) - MOST_LINES} more"] if len(found) > MOST_LINES else []
    return (*(line[:LONGEST] for line in found[:MOST_LINES]), *more)


def run(
    pipe: Connection,
    parent: int,
    scratch: Path,
    path: Path,
    files: Mapping[str, str],
    memory_bytes: int | None,
) -> None:
    """The life of the process: confined before anything of the model, or of torch, is loaded."""
    processes.end_with_parent(parent, signal.SIGKILL)
    processes.be_killed_first()
    if memory_bytes is not None:
        processes.limit_memory(memory_bytes)
    log.configure(role="inspection", level="error")
    bounds = sandbox.Bounds(
        readable=(),
        files=tuple(model_folder.pinned(path, files)),
        listed=(path,),
        writable=scratch,
    )
    if sandbox.confine(bounds) is not None:
        sys.exit(FAILURE)
    contents = importlib.import_module("service.model_contents")
    pipe.send_bytes(json.dumps(list(contents.beyond_strict(path, files))).encode())
