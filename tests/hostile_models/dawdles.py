"""Takes two seconds, in which nothing is computed, then finds whatever is dense."""

import time
from collections.abc import Mapping

from inference import coding
from inference.findings import Findings, Image, Segment, SegmentDefinition, Verdict
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"
SECONDS = 2.0
DENSE_HU = -300
DENSE = SegmentDefinition(
    label="Dense", category=coding.ANATOMICAL_STRUCTURE, type=coding.ANATOMICAL_STRUCTURE
)


class Dawdles:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        time.sleep(SECONDS)
        dense = image.volume.with_array(image.volume.array > DENSE_HU)
        return Findings(
            verdict=Verdict.WITHHELD,
            reason=f"{image.volume.spatial_shape[0]} slices",
            segments=(Segment(definition=DENSE, mask=dense),),
        )


def load(settings: Mapping[str, object]) -> Model:
    return Dawdles()
