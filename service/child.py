"""Whatever the science does, the worker gets an answer or a reason: it runs where it can be killed.

This module is the worker's end of the pipe and the first step of the child; neither imports the
science, which the child then loads as `service.analysis`, confined (service/sandbox.py). Nothing
that the child sends becomes code here.
"""

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from service import answers, log, model_folder, processes, sandbox
from service.decoding_notes import DecodingNotes
from service.exits import FAILURE
from service.scratch import Scratch
from service.tasks import Answer, Question, ReadNext, Ready, Setup, Task

START_SECONDS = 300.0  # to import the science and load the models


class ChildEnded(Exception):  # noqa: N818  (an end, which is not always an error)
    """The child ended before it answered; the text says how."""


class Child:
    """A process with the models loaded, asked one task at a time, killed at a deadline."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._context = multiprocessing.get_context("spawn")
        ours, theirs = self._context.Pipe()
        self._pipe: Connection = ours
        self._scratch = Scratch()
        self._decoding = DecodingNotes(self._scratch.path)
        self._token = answers.new_token()  # of what it may say next
        self._process = self._context.Process(
            target=run,
            args=(theirs, setup, os.getpid(), self._scratch.path, self._decoding, self._token),
            name="analysis",
            daemon=True,
        )
        limited = setup.memory_bytes is not None
        with sandbox.bare_environment(self._scratch.path, limited=limited):
            self._process.start()
        theirs.close()
        self._timer = self._alarm(START_SECONDS)
        self._sending = ThreadPoolExecutor(max_workers=1, thread_name_prefix="to-child")

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._process.pid or 0  # started in the constructor, hence never 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.exitcode

    @property
    def speaks_unasked(self) -> bool:
        """Of a child that has answered: whether it has said more."""
        return self._pipe.poll()

    def ask(self, task: Task, *, deadline_seconds: float) -> None:
        """Hand over a task; a child that has not answered within the deadline is killed."""
        self._timer = self._alarm(deadline_seconds)
        try:
            question = Question(token=self._token, task=task)
            self._sending.submit(self._pipe.send, question).result()
        except OSError as error:
            raise self._ended() from error

    def read_next(self, task: Task | None) -> None:
        """Say what comes next, if anything; waits for nobody: a child may be deep in its work."""
        self._sending.submit(self._pipe.send, ReadNext(task=task))

    def answer(self, *, seconds: float) -> Answer | Ready | None:
        """What the child says within `seconds`, None when it says nothing yet.

        Raises ChildEnded when it will say nothing more.
        """
        if self._pipe not in wait([self._pipe, self._process.sentinel], timeout=seconds):
            overflown = self._scratch.overflown()
            if overflown is not None:
                self.kill()
                raise ChildEnded(overflown)
            if self._process.exitcode is None or self._pipe.poll():
                return None
            raise self._ended()
        try:
            message = answers.read(self._pipe.recv_bytes(answers.LARGEST), self._token)
        except (EOFError, OSError) as error:
            raise self._ended() from error
        except answers.UnaskedError as error:
            self.kill()
            raise ChildEnded("said something that it was not asked for") from error
        except answers.NoAnswerError as error:
            self.kill()
            raise ChildEnded("said something that is no answer") from error
        self._timer.cancel()
        self._token = answers.new_token()
        return message

    def kill(self) -> None:
        """End it now, whatever it does; returns when it is gone."""
        self._timer.cancel()
        self._process.kill()
        self._process.join()
        self._sending.shutdown()  # what is being sent fails, as nobody reads it
        self._pipe.close()
        self._scratch.remove()

    def _alarm(self, seconds: float) -> "_Alarm":
        alarm = _Alarm(seconds, self._process)
        alarm.start()
        return alarm

    def _ended(self) -> ChildEnded:
        """How the child ended; it is gone when this returns."""
        rang = self._timer.rang
        self._timer.cancel()
        self._process.join(timeout=1.0)
        self._process.kill()
        self._process.join()
        doing = self._decoding.words()
        if rang:
            return ChildEnded(f"exceeded its deadline of {self._timer.seconds:g} s{doing}")
        return ChildEnded(f"its process {processes.how_it_ended(self._process.exitcode)}{doing}")


class _Alarm(threading.Thread):
    """Kills once, after `seconds`, from a thread of its own: also while the pipe is blocked."""

    def __init__(self, seconds: float, process: SpawnProcess) -> None:
        super().__init__(name="deadline", daemon=True)
        self.seconds = seconds
        self.rang = False
        self._process = process
        self._cancelled = threading.Event()

    def run(self) -> None:
        if not self._cancelled.wait(self.seconds):
            self.rang = True
            self._process.kill()

    def cancel(self) -> None:
        """Let it not ring any more."""
        self._cancelled.set()


def run(
    pipe: Connection,
    setup: Setup,
    parent: int,
    scratch: Path,
    decoding: DecodingNotes,
    token: bytes,
) -> None:
    """The child's whole life: arranged so that it dies first and alone, confined, the science.

    `token`: what it says Ready with.
    """
    processes.end_with_parent(parent, signal.SIGKILL)
    processes.be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the worker decides when it ends
    if setup.memory_bytes is not None:
        processes.limit_memory(setup.memory_bytes)
    log.configure(role="analysis", level=setup.log_level, file=setup.log_file)
    try:
        confined = replace(setup, unconfined=_confine(setup, scratch))
        gc.disable()  # (the modules stay; `serve` looks for cycles again)
        science = importlib.import_module("service.analysis")  # only here is it wanted
        science.serve(pipe, confined, decoding.writer(), token)
    except Exception as error:  # noqa: BLE001  (rim: the worker sees the end and starts another)
        log.failure("failure", error, detail="the child of the worker raised")
        sys.exit(FAILURE)


def _confine(setup: Setup, scratch: Path) -> str | None:
    artifacts = [model.artifact for model in setup.models if model.artifact is not None]
    pinned = (model_folder.pinned(one.path, one.sidecar["files"]) for one in artifacts)
    lacking = sandbox.confine(
        sandbox.Bounds(
            readable=setup.readable,
            files=tuple(chain.from_iterable(pinned)),
            listed=tuple(one.path for one in artifacts),
            writable=scratch,
            package=setup.package,
        )
    )
    if lacking is not None:
        log.event("child.unconfined", reason=lacking)
    return lacking
