"""nnU-Net's JSON files as plain objects; whatever else they hold is refused in a line."""

import json
from typing import Any

from inference.errors import ModelRefused


def document(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object; raises ModelRefused when it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{name} is not JSON") from error
    if not isinstance(found, dict):
        raise ModelRefused(f"{name} is no JSON object")
    return found
