"""Behaves: measures nothing but says so honestly."""

from collections.abc import Mapping

from inference.findings import Findings, Image, Verdict
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"
REQUIREMENTS = Requirements(modalities=("CT",))


class Good:
    requirements = REQUIREMENTS

    def predict(self, image: Image) -> Findings:
        del image
        return Findings(verdict=Verdict.MEASURED)


def load(settings: Mapping[str, object]) -> Model:
    return Good()
