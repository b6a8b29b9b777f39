"""How a nnU-Net model runs here, as the `[options]` of its sidecar say; a wrong one is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.engine.precision import BOUND
from inference.errors import ModelRefused

OPPOSITES = ("RL", "AP", "SI")  # directions of axes in nibabel's letters
HEAD_AND_FOOT = {"S": "H", "I": "F"}  # in DICOM's letters
KNOWN = (
    "configuration", "ensemble", "folds", "mirroring", "step", "orientation", "postprocessing",
    "agreement", "trainers",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`configuration`: None: the only one, or the preferred. `folds`: names; () for all.

    `ensemble`: configurations or folders of results whose probabilities are averaged, instead of
    one. `orientation`: where the axes (x, y, z) of the training images led, as "RAS"; None: what
    the plans say, or as the images come. `postprocessing`: the file in the model's folder that says
    what follows. `agreement`: of half precision with float32, below which it is not used; above 1:
    never. `trainers`: those that a person vouches for.
    """

    configuration: str | None = None
    ensemble: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    mirroring: bool = True
    step: float = 0.5
    orientation: str | None = None
    postprocessing: str | None = None
    agreement: float = BOUND
    trainers: tuple[str, ...] = ()


def parse(raw: Mapping[str, Any]) -> Options:
    """The options in a sidecar's table; raises ModelRefused, naming the key."""
    for key in raw:
        if key not in KNOWN:
            raise _refused(key, ", ".join(KNOWN), what="is not known")
    ensemble = _list(raw, "ensemble", str, 'names as ["2d", "3d_fullres"]')
    if "ensemble" in raw and (len({*ensemble}) < 2 or "configuration" in raw):
        raise _refused("ensemble", "two or more different names, and no options.configuration")
    mirroring = raw.get("mirroring", True)
    if not isinstance(mirroring, bool):
        raise _refused("mirroring", "true or false")
    return Options(
        configuration=_text(raw, "configuration", 'a name as "3d_fullres"'),
        ensemble=tuple(ensemble),
        folds=tuple(map(str, _list(raw, "folds", int | str, "a list as [0, 1, 2]"))),
        mirroring=mirroring,
        step=_step(raw.get("step", 0.5)),
        orientation=_orientation(raw.get("orientation")),
        postprocessing=_text(raw, "postprocessing", "the path of a file in the model's folder"),
        agreement=_agreement(raw.get("agreement", BOUND)),
        trainers=tuple(_list(raw, "trainers", str, "a list of names of trainers")),
    )


def _text(raw: Mapping[str, Any], key: str, allowed: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise _refused(key, allowed)
    return value


def _agreement(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise _refused("agreement", "a number from 0; above 1: never in half precision")
    return float(value)


def _list(raw: Mapping[str, Any], key: str, kind: Any, allowed: str) -> list[Any]:
    values = raw.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise _refused(key, allowed)
    return values


def _step(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise _refused("step", "a share of the patch above 0, at most 1")
    return float(value)


def _orientation(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _leads_somewhere(value):
        raise _refused("orientation", 'three directions of x, y, z as "RAS"')
    return value


def _leads_somewhere(letters: str) -> bool:
    """Whether each letter is of another pair of opposites."""
    found = sorted(pair for letter in letters for pair in OPPOSITES if letter in pair)
    return len(letters) == len(OPPOSITES) and found == sorted(OPPOSITES)


def _refused(key: str, allowed: str, *, what: str = "is not right") -> ModelRefused:
    return ModelRefused(f"options.{key} {what}; allowed: {allowed}")


def patient_orientation(letters: str) -> str:
    """DICOM's letters of the axes (slice, row, column) for nibabel's of (x, y, z)."""
    return "".join(HEAD_AND_FOOT.get(letter, letter) for letter in reversed(letters))
