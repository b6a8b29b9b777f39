"""Whether a bundle is of the common kind: which engine steps give exactly what its parts would.

Orientation to RAS, Spacing, changes of intensity, sliding windows, softmax or sigmoid, inversion
and decision, in that order or with the last two exchanged. Every class is compared by identity
and every setting by value: what is not known is not recognised, and runs as the bundle has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.inferers.inferer import SlidingWindowInferer
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    NormalizeIntensityd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    ShiftIntensityd,
    ThresholdIntensityd,
)
from monai.transforms.post.dictionary import Activationsd, AsDiscreted, Invertd
from monai.transforms.spatial.dictionary import Orientationd, Spacingd
from monai.transforms.utility.dictionary import EnsureChannelFirstd, EnsureTyped
from monai.utils.misc import ensure_tuple_rep

from inference.bundles.recipe import PREDICTION, Recipe
from inference.engine.labelling import Rule
from inference.engine.sliding_window import Windows

Intensity = Callable[[dict[str, Any]], dict[str, Any]]
INTENSITY = (
    ScaleIntensityRanged,
    ScaleIntensityd,
    NormalizeIntensityd,
    ThresholdIntensityd,
    ShiftIntensityd,
    ScaleIntensityRangePercentilesd,
)
DIMENSIONS = 3
ALONG = "RAS"


class _Unknown(Exception):  # noqa: N818  (a property of a bundle)
    """Something that the engine has no equal of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a bundle of the common kind does.

    `before` and `after`: changes of intensity on the source's and on the network's grid;
    `spacing`: of the latter, mm towards right, front and head; None keeps the source's.
    """

    image_key: str
    before: tuple[Intensity, ...]
    spacing: tuple[float, ...] | None
    after: tuple[Intensity, ...]
    windows: Windows
    rule: Rule


def recognised(recipe: Recipe) -> Chain | None:
    """The chain that a bundle's parts amount to, or None."""
    try:
        before, spacing, after = _preprocessing(recipe)
        return Chain(
            image_key=recipe.image_key,
            before=before,
            spacing=spacing,
            after=after,
            windows=_windows(recipe.inferer),
            rule=_rule(recipe),
        )
    except _Unknown:
        return None


def windows(inferer: Any) -> Windows | None:
    """The engine's windows that are an inferer's, None for one that it has no equal of."""
    try:
        return _windows(inferer)
    except _Unknown:
        return None


def _known(condition: object) -> None:
    if not condition:
        raise _Unknown


def _steps(composed: object) -> list[Any]:
    _known(type(composed) is Compose)
    flat: list[Any] = composed.flatten().transforms  # type: ignore[attr-defined]
    return flat


def _keys(step: object) -> object:
    """Of a sample's entries that a step changes; None for a step of the bundle's own making."""
    return getattr(step, "keys", None)


def _preprocessing(
    recipe: Recipe,
) -> tuple[tuple[Intensity, ...], tuple[float, ...] | None, tuple[Intensity, ...]]:
    steps = [
        step
        for step in _steps(recipe.preprocessing)
        if type(step) is not EnsureChannelFirstd  # the engine's arrays have it first
        and type(step) is not EnsureTyped  # and they are tensors of float32
    ]
    _known(all(_keys(step) == (recipe.image_key,) for step in steps))
    kinds = [type(step) for step in steps]
    _known(kinds.count(Orientationd) == 1)
    turn = kinds.index(Orientationd)
    _known(steps[turn].ornt_transform.axcodes == ALONG)
    _known(not steps[turn].ornt_transform.as_closest_canonical)
    before, rest = steps[:turn], steps[turn + 1 :]
    spacing = None
    if rest and type(rest[0]) is Spacingd:
        spacing, rest = _spacing(rest[0]), rest[1:]
    _known(all(type(step) in INTENSITY for step in (*before, *rest)))
    return tuple(before), spacing, tuple(rest)


def _spacing(step: Any) -> tuple[float, ...]:
    spacing, resample = step.spacing_transform, step.spacing_transform.sp_resample
    _known(spacing.pixdim.size in (1, DIMENSIONS) and (spacing.pixdim > 0).all())
    _known(np.isnan(spacing.min_pixdim).all() and np.isnan(spacing.max_pixdim).all())
    _known(not (spacing.diagonal or spacing.scale_extent or spacing.recompute_affine))
    _known(step.mode == ("bilinear",) and step.padding_mode == ("border",))
    _known(not any(step.align_corners) and not any(step.scale_extent))
    _known(not resample.align_corners)
    found = np.broadcast_to(spacing.pixdim, (DIMENSIONS,))
    return tuple(float(one) for one in found)


def _windows(inferer: Any) -> Windows:
    _known(type(inferer) is SlidingWindowInferer and not inferer.with_coord)
    size = ensure_tuple_rep(inferer.roi_size, DIMENSIONS)
    return Windows(
        size=tuple(-1 if one is None else int(one) for one in size),
        overlap=tuple(map(float, ensure_tuple_rep(inferer.overlap, DIMENSIONS))),
        gaussian=inferer.mode == "gaussian",
        sigma_scale=tuple(map(float, ensure_tuple_rep(inferer.sigma_scale, DIMENSIONS))),
        padding=str(getattr(inferer.padding_mode, "value", inferer.padding_mode)),
        padding_value=float(inferer.cval),
    )


def _rule(recipe: Recipe) -> Rule:
    """The order of the last steps says on which grid is decided."""
    steps = [step for step in _steps(recipe.postprocessing) if _keys(step) == (PREDICTION,)]
    _known(len(steps) == len(_steps(recipe.postprocessing)))
    kinds = [type(step) for step in steps]
    activation = None
    if kinds and kinds[0] is Activationsd:
        activation, steps, kinds = _activation(steps[0]), steps[1:], kinds[1:]
    if kinds == [Invertd, AsDiscreted]:
        inversion, decision = steps
    else:
        _known(kinds == [AsDiscreted, Invertd])
        decision, inversion = steps
    nearest = _nearest(inversion, recipe)
    first = kinds[0] is AsDiscreted
    _known(nearest or not first)  # (labels between labels)
    threshold = _threshold(decision)
    _known(threshold is None or activation != "softmax")
    return Rule(activation=activation, threshold=threshold, interpolated=not nearest)


def _activation(step: Any) -> str | None:
    (softmax,), (sigmoid,), (other,) = step.softmax, step.sigmoid, step.other
    _known(other is None and not (softmax and sigmoid) and not step.converter.kwargs)
    return "softmax" if softmax else "sigmoid" if sigmoid else None


def _nearest(step: Any, recipe: Recipe) -> bool:
    _known(step.transform is recipe.preprocessing)
    _known(tuple(step.orig_keys) == (recipe.image_key,))
    _known(all(_is_nothing(one) for one in step.post_func))
    return bool(step.nearest_interp[0])


def _is_nothing(function: object) -> bool:
    return function is None


def _threshold(step: Any) -> float | None:
    """None: the largest; otherwise the threshold."""
    settings: Sequence[Any] = (*step.to_onehot, *step.rounding)
    _known(all(one is None for one in settings) and not step.converter.kwargs)
    (argmax,), (threshold,) = step.argmax, step.threshold
    _known(bool(argmax) != (threshold is not None))
    return None if argmax else float(threshold)
