"""Blood vessels on contrast CT: segmented and measured, withheld with the reason, or not analysed.

Only what the image itself shows to hold contrast agent is analysed, whatever its header says.
The same image gives the same findings, bit for bit.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from pydicom.sr.codedict import codes

from inference.findings import (
    Acquisition,
    Findings,
    Image,
    Segment,
    SegmentDefinition,
    Verdict,
    Withheld,
)
from inference.measurement import densities, mean_density, volume
from inference.models import Model, ModelCard
from inference.requirements import Requirements
from inference.vessels.blood import Signs
from inference.vessels.segmentation import segment

VERSION = "1.0.0"

REQUIREMENTS = Requirements(
    modalities=("CT",), axial=True, min_slices=20, max_spacing_mm=3.0, min_extent_mm=60.0
)

VESSELS = SegmentDefinition(
    label="Vessels",
    category=codes.SCT.AnatomicalStructure,
    type=codes.SCT.BloodVessel,
    colour=(216, 58, 58),
)
SEGMENTS = (VESSELS,)

THICKEST_MM = 3.0  # slices that overlap may be thicker than they lie apart
ENDS = "The first and the last slice cut vessels: the volume is of the part in the stack only."
SEVERAL = "Arteries, veins and the heart's chambers are one segment; no vessel has a name."
UNSTATED = "The header names no contrast agent; the image shows it: {sign}."
STATED = "The image shows contrast agent: {sign}."

CARD = ModelCard(
    name="Hounsfield vessels CT",
    version=VERSION,
    summary="Segments the vessels that contrast agent makes bright; measures their volume.",
    intended_use="Adult contrast CT of chest or abdomen, axial, slices to 3 mm. Not for diagnosis.",
    method=(
        "No training and no weights: large vessels as evenly bright tissue, bone grown from dense "
        "seeds and left out, Sato's line filter at 1.25, 2.25 and 4 mm on a grid of 1 mm, "
        "hysteresis threshold, small components removed."
    ),
    references=(
        "Sato et al. Med Image Anal 1998;2:143-168.",
        "Frangi et al. MICCAI 1998, LNCS 1496:130-137.",
    ),
    limits=(
        "Arteries, veins and heart chambers are not told apart and have no names.",
        "Vessels beside or inside bone are missing; so are vessels less than half as enhanced.",
        "Enhancing organs, calcification, stents and bowel contrast may be counted as vessel.",
    ),
)


class VesselsCT:
    """See the module; holds nothing between images."""

    requirements = REQUIREMENTS

    def predict(self, image: Image) -> Findings:
        """Segment and measure; a refusal is an answer with its reason."""
        upright = image.volume.to_patient_orientation("HPL")  # towards head, back, left
        steps = upright.spacing
        found = segment(upright.array, (float(steps[0]), float(steps[1]), float(steps[2])))
        if found.mask is None or not found.mask.any():
            return Findings(
                verdict=Verdict.NOT_ANALYSED, reason=_without_contrast(image.acquisition)
            )
        order = image.volume.get_closest_patient_orientation()
        turned = upright.with_array(found.mask).to_patient_orientation(order)
        vessels = Segment(definition=VESSELS, mask=image.volume.with_array(turned.array))
        return _findings(image, vessels, found.signs)


def _without_contrast(acquisition: Acquisition) -> str:
    seen = "no long, evenly bright vessel of 100 HU or more near the body's middle"
    if acquisition.contrast_agent:
        return f"the header names a contrast agent, but the image shows {seen}"
    return f"no contrast agent: the header names none and the image shows {seen}"


def _findings(image: Image, vessels: Segment, seen: Signs) -> Findings:
    withheld = tuple(_withheld(image.acquisition))
    measurements = (volume(vessels), mean_density(densities(vessels, image), VESSELS.label))
    return Findings(
        verdict=Verdict.WITHHELD if withheld else Verdict.MEASURED,
        reason="; ".join(item.reason for item in withheld) or None,
        segments=(vessels,),
        measurements=() if withheld else measurements,
        withheld=withheld,
        limitations=tuple(_limitations(image.acquisition, vessels, seen)),
    )


def _withheld(acquisition: Acquisition) -> Iterator[Withheld]:
    thickness = acquisition.slice_thickness_mm
    if thickness is not None and thickness > THICKEST_MM:
        yield Withheld(
            names=(f"{VESSELS.label}: Volume", f"{VESSELS.label}: Mean density"),
            reason=f"slices of {thickness:.1f} mm blur small vessels",
        )


def _limitations(acquisition: Acquisition, vessels: Segment, seen: Signs) -> Iterator[str]:
    sign = (
        f"{seen.evidence_cm3:.0f} cm3 of evenly bright blood of {seen.level_hu or 0:.0f} HU "
        "along the body's middle"
    )
    yield (STATED if acquisition.contrast_agent else UNSTATED).format(sign=sign)
    yield SEVERAL
    ends = vessels.mask.array[[0, -1]]
    if np.any(ends):
        yield ENDS


def load(settings: Mapping[str, object]) -> Model:
    """The model has no settings."""
    if settings:
        raise ValueError(f"vessels has no settings; got {', '.join(sorted(settings))}")
    return VesselsCT()
