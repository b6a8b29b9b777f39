"""Preferences between series of a study: each a pure measure, the smaller the better, in words."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from service import attributes
from storage.records import SeriesArrival


class Kernel(IntEnum):
    """How sharp a reconstruction kernel is."""

    SOFT = 0  # soft tissue, standard body
    MEDIUM = 1  # between, or not known
    SHARP = 2  # lung, bone, edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """`measure`: the smaller is preferred; `words`: what it saw; `about`: for the reference."""

    measure: Callable[[SeriesArrival], float]
    words: Callable[[SeriesArrival], str]
    about: str


UNKNOWN = float("inf")
SHARP_NAMES = re.compile(r"LUNG|BONE|EDGE|SHARP|ULTRA|DETAIL\+", re.IGNORECASE)
SOFT_NAMES = re.compile(r"SOFT|STAND|STND|SMOOTH|BODY", re.IGNORECASE)
NUMBERED = re.compile(r"[A-Z][a-z]?(\d\d)[a-z]?(?:[/\\ ].*)?")  # B31f, I70f, Br40d, Bl57
CANON = re.compile(r"FC(\d\d)", re.IGNORECASE)
PHILIPS: Mapping[str, Kernel] = {
    "A": Kernel.SOFT,
    "B": Kernel.SOFT,
    "C": Kernel.MEDIUM,
    "D": Kernel.SHARP,
    "L": Kernel.SHARP,
    "YA": Kernel.SHARP,
    "YB": Kernel.SHARP,
    "YC": Kernel.SHARP,
    "YD": Kernel.SHARP,
}
SOFTEST_NUMBER, SHARPEST_NUMBER = 44, 50  # Siemens: up to 44 soft tissue, from 50 lung and bone
CANON_SOFT, CANON_SHARP = range(1, 20), (*range(30, 40), *range(50, 60), *range(80, 90))


def kernel(name: str) -> Kernel:
    """How sharp a Convolution Kernel (0018,1210) of the common manufacturers is, by its name."""
    if (canon := CANON.match(name)) is not None:
        return _canon(int(canon[1]))
    if SHARP_NAMES.search(name):
        return Kernel.SHARP
    if SOFT_NAMES.search(name):
        return Kernel.SOFT
    if (siemens := NUMBERED.fullmatch(name)) is not None:
        return _numbered(int(siemens[1]))
    return PHILIPS.get(name.upper(), Kernel.MEDIUM)


def _canon(number: int) -> Kernel:
    if number in CANON_SOFT:
        return Kernel.SOFT
    return Kernel.SHARP if number in CANON_SHARP else Kernel.MEDIUM


def _numbered(number: int) -> Kernel:
    if number <= SOFTEST_NUMBER:
        return Kernel.SOFT
    return Kernel.SHARP if number >= SHARPEST_NUMBER else Kernel.MEDIUM


def _sharpness(arrival: SeriesArrival) -> Kernel:
    name = attributes.text(arrival, "ConvolutionKernel")
    return Kernel.MEDIUM if name is None else kernel(name)


def _kernel_words(arrival: SeriesArrival) -> str:
    name = attributes.text(arrival, "ConvolutionKernel")
    if name is None:
        return "a kernel that is not stated"
    return f"{_sharpness(arrival).name.lower()} kernel {name}"


def _thickness(arrival: SeriesArrival) -> float:
    stated = attributes.number(arrival, "SliceThickness")
    return UNKNOWN if stated is None else round(stated, 1)


def _thickness_words(arrival: SeriesArrival) -> str:
    thickness = _thickness(arrival)
    return "slices of no stated thickness" if thickness == UNKNOWN else f"{thickness:.1f} mm slices"


def _negative_thickness(arrival: SeriesArrival) -> float:
    thickness = _thickness(arrival)
    return UNKNOWN if thickness == UNKNOWN else -thickness


def _is_original(arrival: SeriesArrival) -> bool:
    return (attributes.text(arrival, "ImageType") or "").upper() == "ORIGINAL"


def _has_contrast(arrival: SeriesArrival) -> bool:
    return attributes.text(arrival, "ContrastBolusAgent") is not None


PREFERENCES: Mapping[str, Preference] = {
    "original": Preference(
        measure=lambda arrival: 0 if _is_original(arrival) else 1,
        words=lambda arrival: f"{'' if _is_original(arrival) else 'not '}original images",
        about="images whose Image Type begins with ORIGINAL",
    ),
    "thin_slices": Preference(
        measure=_thickness,
        words=_thickness_words,
        about="the smaller Slice Thickness, compared to a tenth of a millimetre",
    ),
    "thick_slices": Preference(
        measure=_negative_thickness,
        words=_thickness_words,
        about="the larger Slice Thickness, compared to a tenth of a millimetre",
    ),
    "soft_kernel": Preference(
        measure=_sharpness,
        words=_kernel_words,
        about="soft tissue before medium (or unknown) before sharp, by the Convolution Kernel",
    ),
    "sharp_kernel": Preference(
        measure=lambda arrival: -_sharpness(arrival),
        words=_kernel_words,
        about="sharp before medium (or unknown) before soft tissue, by the Convolution Kernel",
    ),
    "most_instances": Preference(
        measure=lambda arrival: -attributes.images(arrival),
        words=attributes.counted,
        about="more images (frames count)",
    ),
    "contrast": Preference(
        measure=lambda arrival: 0 if _has_contrast(arrival) else 1,
        words=lambda arrival: f"{'with' if _has_contrast(arrival) else 'without'} contrast agent",
        about="a Contrast/Bolus Agent is stated",
    ),
    "no_contrast": Preference(
        measure=lambda arrival: 1 if _has_contrast(arrival) else 0,
        words=lambda arrival: f"{'with' if _has_contrast(arrival) else 'without'} contrast agent",
        about="no Contrast/Bolus Agent is stated",
    ),
}

DEFAULT: tuple[str, ...] = ("original", "thin_slices", "soft_kernel", "most_instances")
