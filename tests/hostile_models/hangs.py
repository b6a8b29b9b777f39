"""Never answers."""

import time
from collections.abc import Mapping

from inference.findings import Findings, Image
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"


class Hangs:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        while True:
            time.sleep(60)


def load(settings: Mapping[str, object]) -> Model:
    return Hangs()
