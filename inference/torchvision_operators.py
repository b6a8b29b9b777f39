"""torchvision with its operators, or one line that says why it cannot be used; it is optional.

Its operators are compiled for one build of torch: one from another index loads none, and says so
when it is imported or only when an operator is first called. Hence the call here.
"""

import importlib
from typing import Any

import torch

from inference.errors import ModelRefused

HOW = "install it from the index that torch came from: deploy/docs/MODELS.md, Options of mask_rcnn"


def lacking(what: str) -> str | None:
    """The line that `required` refuses with on this processor; None where it would not."""
    try:
        required(what)
    except ModelRefused as refusal:
        return str(refusal)
    return None


def required(what: str, device: torch.device | str = "cpu") -> Any:
    """The package, whose operators run on a device; raises ModelRefused: `what` needs torchvision.

    `what`: "kind mask_rcnn", "this bundle", ...
    """
    try:
        package = importlib.import_module("torchvision")
        boxes = torch.zeros((0, 4), device=device)
        package.ops.nms(boxes, boxes[:, 0], 0.5)
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ModelRefused(f"{what} needs torchvision: it is not installed; {HOW}") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        does_not_fit = f"the one that is installed does not fit torch {torch.__version__} ({said})"
        raise ModelRefused(f"{what} needs torchvision: {does_not_fit}; {HOW}") from error
    return package
