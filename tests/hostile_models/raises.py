"""Raises with a text that names a patient, as libraries do."""

from collections.abc import Mapping

from inference.findings import Findings, Image
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"


class Raises:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        raise ValueError("cannot convert 'Zwiebelmann^Ottilie'")


def load(settings: Mapping[str, object]) -> Model:
    return Raises()
