"""What a sidecar's `[options]` say of a bare network: checked whole, every default written out.

`DEFAULTS` are the tables that `--add` writes. A key or value that is not allowed is a ModelRefused
that names it and what is allowed. Lists of numbers follow the axes of the array that the network
sees; an empty list is "not so".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.arrays.rules import RULES, TEXT, checked, table
from inference.calibration import Calibration, Interval, refused
from inference.description import Description, Task
from inference.engine.precision import BOUND
from inference.errors import ModelRefused

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate:
    """A first, coarse network that says where to look.

    `size`: voxels that the whole image is resampled to; `channel`: of its output, a probability
    from `threshold` on; the box of its largest component, without the outer planes of which no more
    than the fraction `filled` belongs to it, grows by `margin` times its size on each side.
    """

    file: str
    size: tuple[int, ...]
    channel: int = 1
    threshold: float = 0.5
    margin: float = 0.1
    filled: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """From the image's grid and values to those of the network, in this order.

    `orientation`: "source", or three letters as in "RAS", towards which each index grows; oblique
    stacks are turned to the nearest, never resampled. `spacing` (mm) or `size` (voxels): of the
    grid that the network sees; field of view kept. `clip`: values; `clip_percentiles`: of the whole
    image. `scale`: "unit" (clipped range to 0..1, or the image's own range), "zscore" (mean 0,
    deviation 1), "zscore_nonzero" (of what is not 0, the rest stays 0). Then times `multiply` plus
    `add`, one number or one a channel. `channels`: 3 repeats grey, 1 is the luma of colour.
    `multiple`: padded with `pad_value` at the end of each axis to a multiple of so many voxels.
    `slicewise`: a network for images is given each plane along the first axis. `mirror`: axes of
    what it is given; it sees the image mirrored along each set of them too, and its answers, before
    the activation, are averaged.
    """

    orientation: str = "source"
    spacing: Numbers = ()
    size: tuple[int, ...] = ()
    interpolation: str = "linear"
    clip: Numbers = ()
    clip_percentiles: Numbers = ()
    scale: str = "none"
    multiply: Numbers = (1.0,)
    add: Numbers = (0.0,)
    channels: int = 1
    multiple: int = 1
    pad_value: float = 0.0
    slicewise: bool = False
    mirror: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window: `size` in voxels of the network's grid; empty: all at once.

    `agreement`: of bfloat16 with float32, from which on it is used; above 1: never.
    """

    size: tuple[int, ...] = ()
    overlap: float = 0.5
    weight: str = "gaussian"
    agreement: float = BOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """From what the network returns to an answer.

    `take`: index or name of the output that is meant, of several. `form`: "channels" or "label_map"
    (segmentation). `calibration`: of the channels, before the `activation`. `components`: "largest"
    keeps the largest of each label; `fill_holes`: enclosed ones. A number is times `multiply` plus
    `add`; `intervals`: name of a label -> how its 95 % prediction interval is known.
    """

    take: int | str = 0
    form: str = "channels"
    activation: str = "none"
    calibration: Calibration = field(default_factory=Calibration)
    components: str = "all"
    fill_holes: bool = False
    multiply: float = 1.0
    add: float = 0.0
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The whole of `[options]`. `file`: the network's, in a folder; empty for a single file."""

    file: str = ""
    input: Input = Input()
    window: Window = Window()
    output: Output = Output()
    locate: Locate | None = None


DEFAULTS: Mapping[str, Any] = {
    "input": {
        "orientation": "source",
        "spacing": [],
        "size": [],
        "interpolation": "linear",
        "clip": [],
        "clip_percentiles": [],
        "scale": "none",
        "multiply": 1.0,
        "add": 0.0,
        "channels": 1,
        "multiple": 1,
        "pad_value": 0.0,
        "slicewise": False,
        "mirror": [],
    },
    "window": {"size": [], "overlap": 0.5, "weight": "gaussian", "agreement": BOUND},
    "output": {
        "take": 0,
        "form": "channels",
        "activation": "none",
        "components": "all",
        "fill_holes": False,
        "multiply": 1.0,
        "add": 0.0,
        "intervals": {},
    },
    "calibration": {"temperature": 1.0, "platt": {}},
}


def check(description: Description) -> None:
    """Raise ModelRefused unless the options are allowed and name files that were added."""
    options = parse(description)
    needed = [] if options.locate is None else [("locate.file", options.locate.file)]
    refuse_unpinned(description, [("file", options.file), *needed])


def refuse_unpinned(description: Description, named: Sequence[tuple[str, str]]) -> None:
    """Raise ModelRefused for an option (key, file) whose file was not added; "": the only one."""
    allowed = ", ".join(sorted(description.files))
    for key, name in named:
        if name == "" and len(description.files) != 1:
            raise ModelRefused(f"options.{key}: is missing; allowed: {allowed}")
        if name != "" and name not in description.files:
            wrong = f"{name!r} is not among the files that were added"
            raise ModelRefused(f"options.{key}: {wrong}; allowed: {allowed}")


def parse(description: Description) -> Options:
    """The options of a description; raises ModelRefused for the first that is not allowed."""
    raw = description.options
    for key in raw:
        if key not in ("file", *RULES):
            raise ModelRefused(f"options.{key}: unknown; allowed: file, {', '.join(RULES)}")
    file = checked("file", raw["file"], TEXT) if raw.get("file") else ""
    options = Options(
        file=file,
        input=Input(**table(raw, "input", RULES)),
        window=Window(**table(raw, "window", RULES)),
        output=Output(
            **table(raw, "output", RULES),
            calibration=Calibration(**table(raw, "calibration", RULES)),
        ),
        locate=_locate(raw),
    )
    _check_together(options, description)
    return options


def _locate(raw: Mapping[str, Any]) -> Locate | None:
    if "locate" not in raw:
        return None
    values = table(raw, "locate", RULES)
    for key in ("file", "size"):
        if not values.get(key):
            raise ModelRefused(f"options.locate.{key}: is missing")
    return Locate(**values)


def _check_together(options: Options, description: Description) -> None:
    for wrong, words in (
        *_axes(options, description.dimensions),
        *_combinations(options, description),
        *_labels(description),
    ):
        if wrong:
            raise ModelRefused(words)


def _axes(options: Options, axes: int) -> Sequence[tuple[bool, str]]:
    lists = {
        "input.spacing": options.input.spacing,
        "input.size": options.input.size,
        "window.size": options.window.size,
        "locate.size": options.locate.size if options.locate else (),
    }
    window = axes - 1 if options.input.slicewise else axes
    return [
        *(
            (
                len(values) not in (0, window if key == "window.size" else axes),
                f"options.{key}: {len(values)} numbers; allowed: one an axis",
            )
            for key, values in lists.items()
        ),
        (
            bool({*options.input.mirror} - {*range(window)})
            or len({*options.input.mirror}) < len(options.input.mirror),
            f"options.input.mirror: allowed: axes from 0 to {window - 1}, each once",
        ),
        (
            axes != 3 and options.input.orientation != "source",
            "options.input.orientation: planar images have none; allowed: source",
        ),
        (
            axes != 3 and options.input.slicewise,
            "options.input.slicewise: planar images have no slices; allowed: false",
        ),
    ]


def _combinations(options: Options, description: Description) -> Sequence[tuple[bool, str]]:
    task, output, labels = description.task, options.output, description.labels
    places = (Task.SEGMENTATION, Task.KEYPOINTS)
    wrong = refused(output.calibration, {}, output.activation, description.labels)
    return [
        (
            bool(options.input.spacing and options.input.size),
            "options.input.size: is given together with spacing; allowed: one of them",
        ),
        (
            bool(options.input.clip and options.input.clip_percentiles),
            "options.input.clip: is given together with clip_percentiles; allowed: one of them",
        ),
        (
            task is Task.DETECTION,
            "a bare network answers no boxes; allowed: kind python or monai_bundle",
        ),
        (
            task not in places and bool(options.window.size or options.input.slicewise),
            f"options.window.size: a {task.value} has one answer; allowed: []",
        ),
        (
            bool(options.input.mirror) and (task not in places or output.form == "label_map"),
            "options.input.mirror: only masks and points of channels are averaged; allowed: []",
        ),
        (
            output.form == "label_map"
            and (task is not Task.SEGMENTATION or description.overlapping),
            "options.output.form: a label map is a segmentation without overlap; allowed: channels",
        ),
        (
            output.form == "label_map" and any(one.threshold is not None for one in labels),
            "labels: a label map says nothing of probabilities; allowed: no threshold",
        ),
        (
            output.form == "label_map" and bool(options.window.size),
            "options.window.size: label maps cannot be averaged; allowed: []",
        ),
        (
            bool(set(output.intervals) - {one.definition.label for one in description.labels}),
            "options.output.intervals: names no label; allowed: names of labels",
        ),
        (
            bool(output.calibration.platt) and task is not Task.CLASSIFICATION,
            f"options.calibration.platt: is of classes, not of a {task.value}; allowed: {{}}",
        ),
        (wrong is not None, f"options.calibration: {wrong}"),
    ]


def _labels(description: Description) -> Sequence[tuple[bool, str]]:
    wants = {Task.CLASSIFICATION: "question", Task.REGRESSION: "unit"}.get(description.task)
    missing = [
        label.definition.label
        for label in description.labels
        if wants is not None and getattr(label, wants) is None
    ]
    return [
        (not description.labels, "labels: none; allowed: one or more"),
        (bool(missing), f"labels: {', '.join(missing)}: {wants} is missing"),
    ]
