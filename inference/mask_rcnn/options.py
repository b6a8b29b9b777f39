"""What a sidecar's `[options]` say of a Mask R-CNN: checked whole, every default written out.

`[options.network]` has torchvision's own names and defaults; what the weights themselves tell
(which of the two architectures, how many classes) is no option. `[options.input]` is the part of a
bare network's options that a grey image needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inference.arrays import rules
from inference.arrays.options import Input
from inference.arrays.rules import Rule
from inference.description import Description, Task
from inference.errors import ModelRefused

Numbers = tuple[float, ...]
LEVELS = 5  # of the feature pyramid, from stride 4 to stride 64
COLOURS = 3
PLANAR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How torchvision builds and runs the network; lengths in pixels of the resized image.

    `anchor_sizes`: of each level of the pyramid, finest first; `aspect_ratios`: height to width, at
    every level; `image_mean`, `image_std`: of values from 0 to 1, red, green, blue; `norm_eps`: of
    the backbone's batch normalisation.
    """

    min_size: int = 800
    max_size: int = 1333
    image_mean: Numbers = (0.485, 0.456, 0.406)
    image_std: Numbers = (0.229, 0.224, 0.225)
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: Numbers = (0.5, 1.0, 2.0)
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_thresh: float = 0.7
    rpn_score_thresh: float = 0.0
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The whole of `[options]`. `file`: of the weights, in a folder with several.

    `mask_threshold`: probability above which a pixel belongs to an object.
    """

    file: str = ""
    network: Network = Network()
    input: Input = field(default_factory=lambda: Input(scale="unit"))
    mask_threshold: float = 0.5


DEFAULTS: Mapping[str, Any] = {
    "mask_threshold": 0.5,
    "network": {
        "min_size": 800,
        "max_size": 1333,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "anchor_sizes": [[32], [64], [128], [256], [512]],
        "aspect_ratios": [0.5, 1.0, 2.0],
        "rpn_pre_nms_top_n_test": 1000,
        "rpn_post_nms_top_n_test": 1000,
        "rpn_nms_thresh": 0.7,
        "rpn_score_thresh": 0.0,
        "box_score_thresh": 0.05,
        "box_nms_thresh": 0.5,
        "box_detections_per_img": 100,
        "norm_eps": 1e-5,
    },
    "input": {"clip": [], "clip_percentiles": [], "scale": "unit"},
}


def _count(most: int) -> Rule:
    allowed = f"a whole number from 1 to {most}"

    def value(given: Any) -> int:
        if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
            raise ValueError(allowed)
        return given

    return Rule(allowed, value)


def _listed(item: Rule, fits: Callable[[int], bool], allowed: str) -> Rule:
    def value(given: Any) -> tuple[Any, ...]:
        if not isinstance(given, list) or not fits(len(given)):
            raise ValueError(allowed)
        return tuple(item.value(one) for one in given)

    return Rule(allowed, value)


def _levels(given: Any) -> tuple[tuple[float, ...], ...]:
    levels: tuple[tuple[float, ...], ...] = LISTS_OF_SIZES.value(given)
    if len({len(level) for level in levels}) != 1:
        raise ValueError(ANCHORS)
    return levels


MOST_ANCHORS = 16  # at one place
ANCHORS = f"{LEVELS} lists, finest level first, each of as many sizes in pixels"
PER_COLOUR = f"{COLOURS} numbers: red, green, blue"
SIZES = _listed(rules.POSITIVE, lambda count: 1 <= count <= MOST_ANCHORS, ANCHORS)
LISTS_OF_SIZES = _listed(SIZES, lambda count: count == LEVELS, ANCHORS)
PROPOSALS = _count(10_000)

RULES: Mapping[str, Mapping[str, Rule]] = {
    "network": {
        "min_size": _count(4096),
        "max_size": _count(8192),
        "image_mean": _listed(rules.ANY_NUMBER, lambda count: count == COLOURS, PER_COLOUR),
        "image_std": _listed(rules.POSITIVE, lambda count: count == COLOURS, PER_COLOUR),
        "anchor_sizes": Rule(ANCHORS, _levels),
        "aspect_ratios": _listed(
            rules.POSITIVE, lambda count: 1 <= count <= MOST_ANCHORS, "a list of numbers above 0"
        ),
        "rpn_pre_nms_top_n_test": PROPOSALS,
        "rpn_post_nms_top_n_test": PROPOSALS,
        "rpn_nms_thresh": rules.FRACTION,
        "rpn_score_thresh": rules.FRACTION,
        "box_score_thresh": rules.FRACTION,
        "box_nms_thresh": rules.FRACTION,
        "box_detections_per_img": _count(1000),
        "norm_eps": rules.number(0.0, 0.1, "a number from 0 to 0.1"),
    },
    "input": {key: rules.RULES["input"][key] for key in ("clip", "clip_percentiles", "scale")},
}
SINGLE: Mapping[str, Rule] = {"file": rules.TEXT, "mask_threshold": rules.FRACTION}


def parse(description: Description) -> Options:
    """The options of a description; raises ModelRefused for the first that is not allowed."""
    _check_together(description)
    raw = description.options
    allowed = (*SINGLE, *RULES)
    for key in raw:
        if key not in allowed:
            raise ModelRefused(f"options.{key}: unknown; allowed: {', '.join(allowed)}")
    single = {key: rules.checked(key, raw[key], rule) for key, rule in SINGLE.items() if key in raw}
    tables = {name: rules.table(raw, name, RULES) for name in RULES}
    clips = tables["input"]
    if clips.get("clip") and clips.get("clip_percentiles"):
        raise ModelRefused(
            "options.input.clip: is given together with clip_percentiles; allowed: one of them"
        )
    return Options(
        network=Network(**tables["network"]), input=Input(**{"scale": "unit"} | clips), **single
    )


def _check_together(description: Description) -> None:
    if description.task is not Task.DETECTION:
        wrong = f"a Mask R-CNN answers no {description.task.value}; allowed: detection"
        raise ModelRefused(f"task: {wrong}")
    if description.dimensions != PLANAR or description.roles:
        raise ModelRefused(
            "input.dimensions: a Mask R-CNN looks at one planar image at a time; allowed: 2"
        )
    if not description.labels:
        raise ModelRefused("labels: none; allowed: one or more")
