"""What a bundle cuts off an image before its network looks is said in its result.

Cutting to the foreground is not: there the image itself says where nothing is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

FOREGROUND = "CropForeground"
WHOLE = 100  # percent


def limits(prepared: Any) -> tuple[str, ...]:
    """A sentence when a part of the image was left out.

    `prepared`: the image after preprocessing; what was done to it is in its history.
    """
    kept = 1.0
    for operation in getattr(prepared, "applied_operations", ()):
        kept *= _kept(operation)
    if kept >= 1:
        return ()
    percent = min(max(round(WHOLE * kept), 1), WHOLE - 1)
    said = f"The model looked at a part of the image only, {percent} % of it"
    return (f"{said}: what lies outside was not analysed.",)


def _kept(operation: Mapping[str, Any]) -> float:
    """The fraction of the image that an operation leaves."""
    kept = 1.0
    for crop in _crops(operation):
        cut = crop["extra_info"]["cropped"]
        for axis, size in enumerate(crop["orig_size"]):
            before, after = cut[2 * axis : 2 * axis + 2]
            kept *= (size - max(before, 0) - max(after, 0)) / size
    return kept


def _crops(operation: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The operation if it crops, or the one inside that does (`ResizeWithPadOrCrop`)."""
    extra = operation.get("extra_info", {})
    if "cropped" in extra and operation.get("class") != FOREGROUND:
        yield operation
    if isinstance(extra.get("crop_info"), Mapping):
        yield from _crops(extra["crop_info"])
