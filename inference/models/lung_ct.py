"""Lungs, trachea and main bronchi on chest CT: measured, withheld with the reason, or not analysed.

What cannot be trusted is never given as a number: a lung that the stack cuts has no volume, thick
slices or a bone kernel give no emphysema indices. The same image gives the same findings, bit
for bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes

from inference.coding import (
    LUNGS_ATTENUATION_PERCENTILE_15,
    LUNGS_LOW_ATTENUATION_AREA_950,
    LUNGS_VOLUME,
)
from inference.findings import (
    Findings,
    Image,
    Measurement,
    Segment,
    SegmentDefinition,
    Verdict,
    Withheld,
)
from inference.lungs.coverage import Coverage, coverage, enhanced, filled, noise
from inference.lungs.densitometry import Densitometry, judge
from inference.lungs.segmentation import AIRWAY, Anatomy, segment
from inference.lungs.separation import LEFT, RIGHT, Labels
from inference.measurement import densities, laa950, mean_density, perc15, volume
from inference.models import Model, ModelCard
from inference.requirements import Requirements

VERSION = "1.0.0"

REQUIREMENTS = Requirements(modalities=("CT",), axial=True, min_slices=20, max_spacing_mm=10.0)

RIGHT_LUNG = SegmentDefinition(
    label="Right lung",
    category=codes.SCT.AnatomicalStructure,
    type=codes.SCT.Lung,
    modifier=codes.SCT.Right,
    colour=(224, 97, 76),
)
LEFT_LUNG = SegmentDefinition(
    label="Left lung",
    category=codes.SCT.AnatomicalStructure,
    type=codes.SCT.Lung,
    modifier=codes.SCT.Left,
    colour=(76, 148, 224),
)
TRACHEA = SegmentDefinition(
    label="Trachea and main bronchi",
    category=codes.SCT.AnatomicalStructure,
    type=codes.SCT.TracheaAndBronchus,
    colour=(92, 196, 108),
)
SEGMENTS = (RIGHT_LUNG, LEFT_LUNG, TRACHEA)
DEFINITIONS = {RIGHT: RIGHT_LUNG, LEFT: LEFT_LUNG, AIRWAY: TRACHEA}

NAMES = {RIGHT: "right lung", LEFT: "left lung"}
PARTS = {"lowest": "lowest recesses are", "highest": "apex is"}
QUANTITIES = ("Volume", "Mean density", "LAA-950", "Perc15")
BOTH = ("Volume", "LAA-950", "Perc15")
LUNGS = (DEFINITIONS[RIGHT].label, DEFINITIONS[LEFT].label)
LUNGS_INDICES = (LUNGS_LOW_ATTENUATION_AREA_950, LUNGS_ATTENUATION_PERCENTILE_15)
Covered = Mapping[int, Coverage]

CUT_SHARE = 0.25  # of a lung's largest cross-section, in the first or last slice
FRAGMENT_SHARE = 0.75  # above which, without a trachea, only a fragment of the lungs is there
LARGEST_OPEN_MM3 = 50_000.0  # of lung that lies open to the edge of the field of view
LARGEST_LUNG_CM3 = 8_000
BRONCHI_CUT = "The airway reaches the lowest slice: its volume is of the part in the stack only."
SMALLER_SHARE = 0.25  # of both lungs, below which two that touch may be one

CARD = ModelCard(
    name="Hounsfield lung CT",
    version=VERSION,
    summary="Segments both lungs, trachea and main bronchi; measures volume and density.",
    intended_use="Adult chest CT, axial, at full inspiration. Not for diagnosis.",
    method=(
        "No training and no weights: body mask, airway growth that stops before it leaks, "
        "threshold at -400 HU on a 2 mm grid, bowel gas removed, lungs parted by erosion and "
        "watershed, closing by 6 mm, refinement at full resolution."
    ),
    references=(
        "Hu, Hoffman, Reinhardt. IEEE Trans Med Imaging 2001;20:490-498.",
        "Mori et al. Proc 13th ICPR 1996;C:528-532.",
        "Sun, Bauer, Beichel. IEEE Trans Med Imaging 2012;31:449-460.",
        "Gevenois et al. Am J Respir Crit Care Med 1996;154:187-192.",
        "Dirksen et al. Am J Respir Crit Care Med 1999;160:1468-1472.",
    ),
    limits=(
        "Dense lung (consolidation, large masses at the pleura, effusion) is left out of the lung.",
        "Where vessels enter the lung, the border is geometric.",
        "Not validated in children, after lung surgery, or with pneumothorax.",
    ),
)


class LungCT:
    """See the module; holds nothing between images."""

    requirements = REQUIREMENTS

    def predict(self, image: Image) -> Findings:
        """Segment and measure one chest; a refusal is an answer with its reason."""
        upright = image.volume.to_patient_orientation("HPL")  # towards head, back, left
        steps = upright.spacing
        spacing = (float(steps[0]), float(steps[1]), float(steps[2]))
        anatomy = segment(upright.array, spacing)
        scanned = anatomy.labels[filled(upright.array)]
        covered = {side: coverage(scanned, side) for side in (RIGHT, LEFT) if side in anatomy.found}
        refusal = _refusal(covered, anatomy, float(np.prod(spacing)))
        if refusal is not None:
            return _not_analysed(refusal)
        airway = anatomy.labels == AIRWAY
        density = judge(image.acquisition, spacing[0], noise(upright.array, airway, spacing))
        contrast = image.acquisition.contrast_agent or (
            AIRWAY in anatomy.found and enhanced(upright.array, airway, spacing)
        )
        bronchi_cut = AIRWAY in anatomy.found and coverage(scanned, AIRWAY).lowest > 0
        limits = (
            *_limitations(covered, density, anatomy, contrast=contrast),
            *((BRONCHI_CUT,) if bronchi_cut else ()),
        )
        return _findings(
            image, _segments(anatomy.labels, upright, image.volume), covered, density, limits
        )


def _not_analysed(reason: str) -> Findings:
    return Findings(verdict=Verdict.NOT_ANALYSED, reason=reason)


def _refusal(covered: Covered, anatomy: Anatomy, voxel_mm3: float) -> str | None:
    """No lungs, or what is no lung of a person, or so small a part that a mask would mislead."""
    if anatomy.open_mm3 > LARGEST_OPEN_MM3:
        return (
            "the field of view cuts the lungs at their sides: "
            f"{anatomy.open_mm3 / 1000:.0f} cm3 of lung lie open to its edge"
        )
    if not covered:
        return "no lungs were found"
    return (
        _too_large(covered, anatomy.labels, voxel_mm3)
        or _one_piece(anatomy)
        or _fragment(covered, anatomy.found)
    )


def _too_large(covered: Covered, labels: Labels, voxel_mm3: float) -> str | None:
    for side in covered:
        cubic_centimetres = int(np.count_nonzero(labels == side)) * voxel_mm3 / 1000
        if cubic_centimetres > LARGEST_LUNG_CM3:
            return (
                f"a {NAMES[side]} of {cubic_centimetres:.0f} cm3 is none of a person (at most "
                f"{LARGEST_LUNG_CM3} cm3): Pixel Spacing or the slices' positions are wrong"
            )
    return None


def _one_piece(anatomy: Anatomy) -> str | None:
    if AIRWAY in anatomy.found or not anatomy.astride:
        return None
    return (
        "one piece of lung lies astride the midline and no trachea was found: nothing tells right "
        "from left"
    )


def _smaller(labels: Labels) -> float:
    """The smaller lung's share of both."""
    sizes = [int(np.count_nonzero(labels == side)) for side in NAMES]
    return min(sizes) / sum(sizes)


def _fragment(covered: Covered, found: frozenset[int]) -> str | None:
    if AIRWAY in found or any(side.cut <= FRAGMENT_SHARE for side in covered.values()):
        return None
    cuts = ", ".join(_cut(side, cover) for side, cover in covered.items())
    return f"only a part of the lungs lies in the stack and no trachea: {cuts}"


def _cut(side: int, cover: Coverage) -> str:
    return (
        f"the {NAMES[side]} is cut by the {cover.where} slice at {cover.cut:.0%} of its largest "
        "cross-section"
    )


def _segments(labels: Labels, upright: hd.Volume, original: hd.Volume) -> dict[int, Segment]:
    """Masks on the image's own grid, whichever way its axes run."""
    order = original.get_closest_patient_orientation()
    segments = {}
    for label, definition in DEFINITIONS.items():
        mask = labels == label
        if mask.any():
            turned = upright.with_array(mask).to_patient_orientation(order)
            segments[label] = Segment(definition=definition, mask=original.with_array(turned.array))
    return segments


def _findings(
    image: Image,
    segments: dict[int, Segment],
    covered: Covered,
    density: Densitometry,
    limitations: tuple[str, ...],
) -> Findings:
    withheld = (*_incomplete(covered), *_indices(covered, density))
    return Findings(
        verdict=Verdict.WITHHELD if withheld else Verdict.MEASURED,
        reason="; ".join(item.reason for item in withheld) or None,
        segments=tuple(segments.values()),
        measurements=tuple(_measurements(image, segments, _whole(covered), density)),
        withheld=withheld,
        limitations=limitations,
    )


def _whole(covered: Covered) -> tuple[int, ...]:
    return tuple(side for side, cover in covered.items() if cover.cut <= CUT_SHARE)


def _incomplete(covered: Covered) -> Iterator[Withheld]:
    """What a missing or cut lung takes away, with the numbers of both lungs."""
    for side, name in NAMES.items():
        of_lung = tuple(f"{quantity} of the {name}" for quantity in QUANTITIES)
        both = tuple(f"{quantity} of both lungs" for quantity in BOTH)
        if side not in covered:
            yield Withheld(names=(*of_lung, *both), reason=f"no {name} was found")
        elif covered[side].cut > CUT_SHARE:
            reason = f"{_cut(side, covered[side])} (at most {CUT_SHARE:.0%} is allowed)"
            yield Withheld(names=(*of_lung, *both), reason=reason)


def _indices(covered: Covered, density: Densitometry) -> Iterator[Withheld]:
    if density.refusal is not None and _whole(covered):
        yield Withheld(names=("LAA-950", "Perc15"), reason=density.refusal)


def _measurements(
    image: Image, segments: dict[int, Segment], whole: tuple[int, ...], density: Densitometry
) -> Iterator[Measurement]:
    values = {side: densities(segments[side], image) for side in whole}
    indices = (laa950, perc15) if density.refusal is None else ()
    volumes = {side: volume(segments[side]) for side in whole}
    for side in whole:
        label = DEFINITIONS[side].label
        yield volumes[side]
        yield mean_density(values[side], label)
        yield from (index(values[side], label) for index in indices)
    if AIRWAY in segments:
        yield volume(segments[AIRWAY])
    if len(whole) == len(NAMES):
        yield replace(
            volumes[RIGHT],
            name=LUNGS_VOLUME,
            value=volumes[RIGHT].value + volumes[LEFT].value,
            segment=None,
            together=LUNGS,
        )
        together = np.concatenate(list(values.values()))
        for index, name in zip(indices, LUNGS_INDICES, strict=False):
            yield replace(index(together, None), name=name, together=LUNGS)


def _limitations(
    covered: Covered, density: Densitometry, anatomy: Anatomy, *, contrast: bool
) -> tuple[str, ...]:
    touched = [
        f"The {NAMES[side]} reaches the {cover.where} slice ({cover.cut:.0%} of its largest "
        f"cross-section): its {PARTS[cover.where]} missing, and its volume is too small by that."
        for side, cover in covered.items()
        if 0 < cover.cut <= CUT_SHARE
    ]
    others = [
        "Contrast agent is in the vessels: it raises lung density, so mean density and Perc15 are "
        "higher and LAA-950 is lower than without."
        if contrast
        else None,
        None
        if AIRWAY in anatomy.found
        else "No trachea was found: the main bronchi are counted as lung.",
        "One piece of lung lies astride the midline, most of it on one side: right and left may be "
        "wrong, as after the removal of a lung."
        if anatomy.astride and _smaller(anatomy.labels) < SMALLER_SHARE
        else None,
    ]
    return (*touched, *density.limitations, *(text for text in others if text is not None))


def load(settings: Mapping[str, object]) -> Model:
    """The model has no settings: its thresholds are its method."""
    if settings:
        raise ValueError(f"lung_ct has no settings; got {', '.join(sorted(settings))}")
    return LungCT()
