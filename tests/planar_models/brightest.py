"""Finds what is brightest in a picture: its outline, box, brightest point, mean and a verdict.

A picture without contrast is not analysed. Colours are seen as their mean.
"""

from collections.abc import Mapping

import numpy as np
from pydicom.sr.coding import Code
from scipy import ndimage

from inference import coding, regions
from inference.findings import (
    Box,
    Classification,
    Detection,
    Findings,
    Keypoint,
    Measurement,
    PlanarImage,
    Segment,
    SegmentDefinition,
    Verdict,
)
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"
REQUIREMENTS = Requirements(modalities=("CR", "DX", "MG", "US", "XC", "OT"), dimensions=2)
SPOT = SegmentDefinition(
    label="Bright spot",
    category=coding.ANATOMICAL_STRUCTURE,
    type=Code("52988006", "SCT", "Lesion"),
    colour=(255, 200, 0),
)
QUESTION = Code("BRIGHT", "99TEST", "Brightness of the picture")
ANSWER = Code("UNEVEN", "99TEST", "Uneven")
AREA = Code("42798000", "SCT", "Area")
PIXELS = Code("{pixels}", "UCUM", "pixels")


class Brightest:
    requirements = REQUIREMENTS

    def predict(self, image: PlanarImage) -> Findings:
        grey = image.pixels.mean(axis=-1) if image.pixels.ndim == 3 else image.pixels
        if grey.min() == grey.max():
            return Findings(verdict=Verdict.NOT_ANALYSED, reason="no contrast")
        row, column = (int(at) for at in np.unravel_index(int(grey.argmax()), grey.shape))
        labels, _ = ndimage.label(grey >= (float(grey.min()) + float(grey.max())) / 2)
        mask = labels == labels[row, column]
        rows, columns = np.nonzero(mask)
        box = Box(
            centre=((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2),
            edges=((float(np.ptp(columns)) + 1, 0.0), (0.0, float(np.ptp(rows)) + 1)),
        )
        return Findings(
            verdict=Verdict.MEASURED,
            segments=(Segment(definition=SPOT, mask=regions.of_mask(mask), probability=0.9),),
            detections=(Detection(definition=SPOT, box=box, probability=0.75),),
            keypoints=(Keypoint(definition=SPOT, position=(float(column), float(row))),),
            classifications=(Classification(question=QUESTION, answer=ANSWER, probability=0.5),),
            measurements=(
                Measurement(name=AREA, value=float(mask.sum()), unit=PIXELS, segment=SPOT.label),
            ),
            limitations=("a test's model",),
        )


def load(settings: Mapping[str, object]) -> Model:
    return Brightest()
