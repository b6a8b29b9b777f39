"""Answers for itself, and once more for whoever is asked next: with the token that it finds."""

import sys
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from types import FrameType

from inference.findings import Findings, Image, Verdict
from inference.models import Model
from inference.requirements import Requirements
from service import answers
from service.tasks import Analysed, Durations, Question

VERSION = "1.0.0"
FORGED = "forged"


def forge(*, stolen: bool, times: int) -> None:
    """Write answers of our own into the pipe of the process that runs us."""
    pipe, question = found()
    lie = Analysed(verdict="withheld", reason=FORGED, objects=(), vectors=(), durations=Durations())
    token = question.token if stolen else bytes(answers.TOKEN)
    for _ in range(times):
        pipe.send_bytes(answers.written(lie, token))


def found() -> tuple[Connection, Question]:
    """Nothing of a process is out of reach of what runs in it."""
    held = [value for frame in frames(sys._getframe()) for value in frame.f_locals.values()]
    (pipe,) = {id(one): one for one in held if isinstance(one, Connection)}.values()
    return pipe, next(one for one in held if isinstance(one, Question))


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


class AnswersTwice:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        forge(stolen=True, times=2)
        return Findings(verdict=Verdict.MEASURED)


def load(settings: Mapping[str, object]) -> Model:
    return AnswersTwice()
