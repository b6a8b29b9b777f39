"""Answers once more after its own answer, without the token of any question."""

import threading
import time
from collections.abc import Mapping

from inference.findings import Findings, Image, Verdict
from inference.models import Model
from inference.requirements import Requirements
from service import answers
from service.tasks import Analysed, Durations
from tests.hostile_models.answers_twice import FORGED, found

VERSION = "1.0.0"
LATER_SECONDS = 1.0


class AnswersAhead:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        pipe, question = found()
        lie = Analysed(
            verdict="withheld", reason=FORGED, objects=(), vectors=(), durations=Durations()
        )

        def later() -> None:
            time.sleep(LATER_SECONDS)
            pipe.send_bytes(answers.written(lie, question.token))

        threading.Thread(target=later).start()
        return Findings(verdict=Verdict.MEASURED)


def load(settings: Mapping[str, object]) -> Model:
    return AnswersAhead()
