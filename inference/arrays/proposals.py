"""A bare network's first sidecar, with every option and its default, for a person to complete."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from inference import label_codes
from inference.arrays.options import DEFAULTS
from inference.errors import ModelRefused
from inference.model_files import ModelFiles, is_part

PRIVATE_SCHEME = "99LOCAL"
LONG_STRING = 64
MOST_LABELS = 1000
COLOURS = (1, 3)
QUESTION = ("QUESTION", PRIVATE_SCHEME, "Question")
PLANAR_INPUT = {"modalities": ["CR", "DX"], "dimensions": 2}
UNKNOWN = (
    "How many channels the network gives is not known before it runs: write [[labels]] for each "
    "that is meant, value = its index from 0."
)
ONE = (
    "The network gives one channel: what is at or above the label's threshold (0.5) after "
    "options.output.activation belongs to it."
)
SEVERAL = (
    "The network gives {} channels: say what each is. Channel 0 was taken for the background; if "
    "it is none, write a label for it and output.overlapping = true."
)
VECTOR = (
    "The network gives {} numbers: say what each class is, and to which question; or "
    'task = "regression", with a unit for each.'
)
SLICEWISE = (
    "It takes planar images. If they are the slices of stacks: input.dimensions = 3, "
    "input.modalities, and options.input.slicewise = true."
)
OPTIONS = (
    "What it was trained on (input.modalities, options.input, options.window) and the activation "
    "are not in its file: fill them in, see deploy/models/README.md."
)

Shape = Sequence[int | None]


def file_in(
    path: Path, suffixes: Sequence[str], belongs: Callable[[Path], bool] = Path.is_file
) -> str | None:
    """The name of the network's file at `path`: the file itself or one in the folder.

    Of several in a folder `model.*`, else the first by name; None when there is none.
    """
    inside = path.iterdir() if path.is_dir() else [path]
    places = sorted(one for one in inside if one == path or is_part(one.name))
    found = [one for one in places if one.suffix in suffixes and one.is_file() and belongs(one)]
    found.sort(key=lambda one: one.stem != "model")
    return found[0].name if found else None


def named(files: ModelFiles, name: str) -> str:
    """The network's file: as the options name it, or the only one there is."""
    if name:
        return name
    if len(files.digests) != 1:
        raise ModelRefused(f"options.file: is missing; allowed: {', '.join(sorted(files.digests))}")
    return next(iter(files.digests))


def tables(
    path: Path, name: str, *, what: str, takes: Shape = (), gives: Shape = ()
) -> Mapping[str, Any]:
    """A sidecar's tables without its files: what cannot be known is there to be edited.

    `takes`, `gives`: what the network's file states of its input and its answer, axes (batch,
    channel, *space), None an axis of any length; () when it states nothing. `comments`: lines for
    the person who completes them.
    """
    options = deepcopy(dict(DEFAULTS))
    if len(takes) > 1 and takes[1] in COLOURS:
        options["input"]["channels"] = takes[1]
    if path.is_dir():
        options = {"file": name, **options}
    answer, comments = _answer(gives)
    planar = len(takes or gives) == len(("batch", "channel", "row", "column"))
    return {
        **described(path, what),
        **({"input": PLANAR_INPUT} if planar else {}),
        **answer,
        "options": options,
        "comments": [*comments, *([SLICEWISE] if planar else []), OPTIONS],
    }


def _answer(gives: Shape) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Task and labels by the shape of what a network gives, and what to look at."""
    count = gives[1] if len(gives) > 1 else None
    if count is None or not 1 <= count <= MOST_LABELS:
        return {}, [UNKNOWN]
    answer: dict[str, Any] = {"output": {"overlapping": count == 1}}
    if len(gives) == len(("batch", "class")):
        classes = [_label(value) | {"question": QUESTION} for value in range(count)]
        return {**answer, "task": "classification", "labels": classes}, [VECTOR.format(count)]
    if count == 1:
        return {**answer, "labels": [_label(0)]}, [ONE]
    return {**answer, "labels": list(map(_label, range(1, count)))}, [SEVERAL.format(count)]


def _label(value: int) -> dict[str, Any]:
    return {
        "value": value,
        "name": f"Label {value}",
        "type": [f"LABEL{value}", PRIVATE_SCHEME, f"Label {value}"],
        "colour": list(label_codes.colour(value)),
    }


def described(path: Path, what: str) -> Mapping[str, Any]:
    """What any such model has to be told of itself."""
    title = path.stem[:LONG_STRING]
    return {
        "name": title,
        "version": "1",
        "licence": "unknown",
        "summary": f"{what}: say here what it does.",
        "task": "segmentation",
        "limits": [],
        "input": {"modalities": ["CT"], "dimensions": 3, "axial": False, "min_slices": 1},
        "output": {"overlapping": False},
        "labels": [_label(1)],
    }
