"""A bare network's first sidecar, with every option and its default, for a person to complete."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from inference.arrays.options import DEFAULTS
from inference.errors import ModelRefused
from inference.model_files import ModelFiles, is_part

PRIVATE_SCHEME = "99LOCAL"
LONG_STRING = 64


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


def tables(path: Path, name: str, *, what: str) -> Mapping[str, Any]:
    """A sidecar's tables without its files: what cannot be known is there to be edited."""
    options = deepcopy(dict(DEFAULTS))
    if path.is_dir():
        options = {"file": name, **options}
    return {**described(path, what), "options": options}


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
        "labels": [
            {
                "value": 1,
                "name": "Label 1",
                "type": ["LABEL1", PRIVATE_SCHEME, "Label 1"],
                "colour": [255, 0, 0],
            }
        ],
    }
