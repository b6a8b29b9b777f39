"""There is a child with its models loaded whenever it is asked for, or the node stops."""

import time
from dataclasses import replace

from service import log, processes
from service.child import Child, ChildEnded
from service.stopping import Stop
from service.tasks import Ready, Setup

LOOK_SECONDS = 0.2  # between two looks at stop


class WarmChild:
    """The child of a worker; one that ended is buried, and another started when it is wanted."""

    def __init__(self, setup: Setup, stop: Stop) -> None:
        self._setup = setup
        self._stop = stop
        self._child: Child | None = None

    @property
    def process_id(self) -> int | None:
        """Of the child, None while there is none."""
        return None if self._child is None else self._child.process_id

    def warm(self) -> Child | None:
        """The child, its models loaded; None when told to stop meanwhile.

        When it ends while it loads the models it is started once more without: then the job
        that wants the broken one pays for it, and not the node. Raises ChildEnded when it
        ends again.
        """
        if self._child is not None and self._child.exit_code is not None:
            self.bury("ended while it had nothing to do")
        if self._child is not None and self._child.speaks_unasked:
            self.bury("said something that it was not asked for")
        if self._child is None:
            try:
                self._start()
            except ChildEnded as end:
                self.bury(str(end))
                if not self._setup.preload:
                    raise
                self._setup = replace(self._setup, preload=False)
                self._start()
        return self._child

    def bury(self, reason: str) -> None:
        """End it, if there is one, and say why."""
        if self._child is None:
            return
        child, self._child = self._child, None
        exit_code = child.exit_code
        child.kill()
        log.event(
            "child.ended",
            process_id=child.process_id,
            exit_code=exit_code,
            signal=processes.signal_name(exit_code),
            reason=reason,
        )

    def close(self) -> None:
        """End it, as the worker does."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def _start(self) -> None:
        began = time.monotonic()
        self._child = child = Child(self._setup)
        while (answer := child.answer(seconds=LOOK_SECONDS)) is None:
            if self._stop.asked:
                self.close()
                return
        if isinstance(answer, Ready):
            for model, reason in answer.unavailable.items():
                log.event("model.unavailable", model=model, reason=reason)
        log.event(
            "child.started",
            process_id=child.process_id,
            count=len(self._setup.models),
            seconds=time.monotonic() - began,
        )
