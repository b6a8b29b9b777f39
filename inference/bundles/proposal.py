"""What a bundle's own files say of it, as the beginning of a sidecar; nothing of them is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def propose(path: Path) -> Mapping[str, Any] | None:
    """A sidecar's tables without `files`; None: no bundle."""
    return None
