"""The patient's outline on an axial CT, without the table: the smallest useful model, one file.

The largest connected region above -300 HU with its holes filled slice by slice.
"""

from collections.abc import Mapping

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from scipy import ndimage

from inference.findings import Findings, Image, Segment, SegmentDefinition, Verdict
from inference.measurement import densities, mean_density, volume
from inference.models import Model, ModelCard
from inference.requirements import Requirements

VERSION = "1.0.0"

REQUIREMENTS = Requirements(modalities=("CT",), axial=True, min_slices=3)

BODY = SegmentDefinition(
    label="Body",
    category=codes.SCT.AnatomicalStructure,
    type=codes.SCT.EntireBody,
    colour=(196, 164, 132),
)
SEGMENTS = (BODY,)

CARD = ModelCard(
    name="Hounsfield body outline",
    version=VERSION,
    summary="The patient's outline on an axial CT: a mask, its volume and its mean density.",
    intended_use="A check of the path from scanner to archive; not a measurement for a patient.",
    method=(
        "Threshold at -300 HU, opening by 6 mm in the slice plane, largest component, "
        "holes filled slice by slice."
    ),
    references=("Threshold and largest component: Hu et al., IEEE TMI 2001;20:490-498.",),
    limits=("A table or clothing that touches the skin broadly is counted as body.",),
)

SOFT_TISSUE_HU = -300
SMALLEST_BODY_CM3 = 50.0
OPENING_MM = 6.0


class BodyOutline:
    """See the module."""

    requirements = REQUIREMENTS

    def predict(self, image: Image) -> Findings:
        """Outline the body; refused when there is none."""
        mask = outline(image.volume)
        if mask.sum() * image.volume.voxel_volume < SMALLEST_BODY_CM3 * 1000:
            return Findings(verdict=Verdict.NOT_ANALYSED, reason="no body found in the image")
        segment = Segment(definition=BODY, mask=image.volume.with_array(mask))
        return Findings(
            verdict=Verdict.MEASURED,
            segments=(segment,),
            measurements=(
                volume(segment),
                mean_density(densities(segment, image), BODY.label),
            ),
        )


def outline(image: hd.Volume) -> NDArray[np.bool_]:
    """The body on the image's grid, axes (slice, row, column)."""
    tissue = image.array > SOFT_TISSUE_HU
    radius = max(1, round(OPENING_MM / 2 / float(image.spacing[1])))
    for plane in tissue:  # the table's thin shells vanish
        plane[:] = ndimage.binary_opening(plane, iterations=radius)
    labels, count = ndimage.label(tissue)
    if count == 0:
        return np.zeros(tissue.shape, dtype=np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body: NDArray[np.bool_] = labels == int(sizes.argmax())
    for plane in body:
        plane[:] = ndimage.binary_fill_holes(plane)
    return body


def load(settings: Mapping[str, object]) -> Model:
    """The model has no settings."""
    if settings:
        raise ValueError(f"body_outline has no settings; got {', '.join(sorted(settings))}")
    return BodyOutline()
