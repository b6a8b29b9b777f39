"""May this image's density be read as emphysema? The rule and its reasons, pure.

LAA-950 and Perc15 count single voxels, so they depend on noise: thin slices and a smooth kernel are
the condition (Boedeker et al., Radiology 2004;232:295-301; Madani et al., Radiology
2007;243:250-257). A lung kernel, moderately edge-enhancing, shifts them, and the findings say so.
A bone or ultra-high resolution kernel makes them meaningless, and they are withheld.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from inference.findings import SEVERAL, Acquisition

THICKEST_MM = 3.0
NOISIEST_HU = 60.0  # in the air of the trachea: such noise alone puts 5 % of a lung below -950 HU
SMOOTH_UP_TO = 45  # the number in a Siemens kernel's name: B31f, Br40d, I44f
LUNG_UP_TO = 65  # B50f, B60f, Bl57d, Bl64d


class Sharpness(StrEnum):
    """How much a reconstruction kernel enhances edges."""

    SMOOTH = "smooth"  # body and mediastinum
    LUNG = "edge-enhancing"  # lung: given, with the limitation
    ULTRA = "too sharp"  # bone, high resolution: withheld
    UNKNOWN = "unknown"  # a name that is in no list of ours


WORST_LAST = (Sharpness.SMOOTH, Sharpness.LUNG, Sharpness.UNKNOWN, Sharpness.ULTRA)

NAMES = {
    Sharpness.SMOOTH: r"STANDARD|STND|SOFT|CHEST|DETAIL|A|B|UA|UB|FC[01]\d(\W.*)?",
    Sharpness.LUNG: r"LUNG|L|C|YA|YB|FC5\d(\W.*)?",
    Sharpness.ULTRA: r".*(BONE|EDGE|ULTRA|SHARP).*|D|E|YC|YD|FC[38]\d(\W.*)?",
}
NUMBERED = re.compile(r"[BHIJQDTU][A-Z]?(\d\d)[A-Z]?\b.*")


def sharpness(kernel: str | None) -> Sharpness:
    """The class of a Convolution Kernel (0018,1210), by the names that the vendors use.

    Of several the worst counts.
    """
    classes = [_sharpness(name) for name in (kernel or "").split(SEVERAL)]
    return max(classes, key=WORST_LAST.index)


def _sharpness(kernel: str) -> Sharpness:
    name = re.split(r"[\\,;/]", kernel.strip().upper())[0].strip(" []'\"")
    numbered = NUMBERED.fullmatch(name)
    if numbered is not None:
        return _by_number(int(numbered[1]))
    return next(
        (kind for kind, names in NAMES.items() if re.fullmatch(names, name)), Sharpness.UNKNOWN
    )


def _by_number(number: int) -> Sharpness:
    if number <= SMOOTH_UP_TO:
        return Sharpness.SMOOTH
    return Sharpness.LUNG if number <= LUNG_UP_TO else Sharpness.ULTRA


@dataclass(frozen=True, slots=True, kw_only=True)
class Densitometry:
    """`refusal`: why the emphysema indices are withheld; None when they may be given."""

    refusal: str | None
    limitations: tuple[str, ...] = ()


def judge(
    acquisition: Acquisition, spacing_mm: float, noise_hu: float | None = None
) -> Densitometry:
    """Decide by slice thickness (the spacing where it is not stated), kernel and noise."""
    thickness = acquisition.slice_thickness_mm or spacing_mm
    kernel = acquisition.convolution_kernel
    kind = sharpness(kernel)
    if thickness > THICKEST_MM:
        return Densitometry(
            refusal=f"slices of {thickness:.1f} mm are too thick for densitometry "
            f"(at most {THICKEST_MM:.1f} mm)"
        )
    if kind is Sharpness.ULTRA:
        return Densitometry(refusal=f"the kernel {kernel} is too sharp for densitometry")
    if noise_hu is not None and noise_hu > NOISIEST_HU:
        return Densitometry(
            refusal=f"noise of {noise_hu:.0f} HU in the trachea is too much for densitometry "
            f"(at most {NOISIEST_HU:.0f} HU)"
        )
    if kind is Sharpness.LUNG:
        limit = (
            f"The kernel {kernel} enhances edges and noise: LAA-950 is too high and Perc15 too "
            "low; compare only with scans of the same kernel."
        )
        return Densitometry(refusal=None, limitations=(limit,))
    if kind is Sharpness.UNKNOWN:
        limit = f"The kernel {kernel or '(not stated)'} is unknown: LAA-950 and Perc15 may be off."
        return Densitometry(refusal=None, limitations=(limit,))
    return Densitometry(refusal=None)
