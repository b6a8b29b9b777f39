"""Answers before it is done, without the token of the question."""

from collections.abc import Mapping

from inference.findings import Findings, Image, Verdict
from inference.models import Model
from inference.requirements import Requirements
from tests.hostile_models.answers_twice import forge

VERSION = "1.0.0"


class AnswersUnasked:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        forge(stolen=False, times=1)
        return Findings(verdict=Verdict.MEASURED)


def load(settings: Mapping[str, object]) -> Model:
    return AnswersUnasked()
