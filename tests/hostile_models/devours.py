"""Takes all memory there is."""

from collections.abc import Mapping

from inference.findings import Findings, Image
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"


class Devours:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        taken = []
        while True:
            taken.append(bytearray(64 << 20))


def load(settings: Mapping[str, object]) -> Model:
    return Devours()
