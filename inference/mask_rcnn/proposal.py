"""A Mask R-CNN's first sidecar, from the names in its file of weights; nothing of it is loaded.

A file of torch.save is an archive whose `data.pkl` names every tensor. Its opcodes are read one by
one and none is carried out, so that `--add`, which no sandbox confines, runs nothing.
"""

import pickletools
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from inference import archives
from inference.arrays import proposals
from inference.mask_rcnn.options import DEFAULTS

SUFFIXES = (".pt", ".pth")
LAST_BIAS = "roi_heads.mask_predictor.mask_fcn_logits.bias"  # (class,)
COUNTS_BATCHES = "backbone.body.bn1.num_batches_tracked"
MOST_CLASSES = 1000
TEXTS = ("BINUNICODE", "SHORT_BINUNICODE")
INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1")  # (others count objects of the pickle)


def propose(path: Path) -> Mapping[str, Any] | None:
    """The sidecar's tables for a file of weights, or a folder with one; None: of something else."""
    name = proposals.file_in(path, SUFFIXES, lambda one: LAST_BIAS in names(one))
    if name is None:
        return None
    found = names(path / name if path.is_dir() else path)
    options = deepcopy(dict(DEFAULTS))
    if COUNTS_BATCHES not in found:  # frozen: torchvision's own weights, or tuned from them
        options["network"]["norm_eps"] = 0.0
    if path.is_dir():
        options = {"file": name, **options}
    return {
        **proposals.described(path, "Mask R-CNN"),
        "task": "detection",
        "input": {"modalities": ["CR", "DX"], "dimensions": 2},
        "labels": [_label(value) for value in range(1, min(found[LAST_BIAS], MOST_CLASSES))],
        "options": options,
    }


def names(path: Path) -> Mapping[str, int]:
    """The tensors in a file of torch.save, each with the length of what it is stored in.

    A tensor's name and its storage's length come before its persistent id, in that order. Empty
    for a file that is none.
    """
    try:
        return dict(_tensors(archives.record(path, "/data.pkl")))
    except ValueError:  # (no pickle)
        return {}


def _tensors(content: bytes) -> Iterator[tuple[str, int]]:
    name, length = "", 0
    for opcode, argument, _ in pickletools.genops(content):
        if isinstance(argument, str) and "." in argument and opcode.name in TEXTS:
            name = argument
        elif isinstance(argument, int) and opcode.name in INTEGERS:
            length = argument
        elif opcode.name == "BINPERSID":
            yield name, length


def _label(value: int) -> Mapping[str, Any]:
    return {
        "value": value,
        "name": f"Class {value}",
        "type": [f"CLASS{value}", proposals.PRIVATE_SCHEME, f"Class {value}"],
        "threshold": 0.5,
    }
