"""Every byte of a model that is used has the digest that its sidecar pins; nothing else is read."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from inference.errors import ModelRefused

CACHE = "__pycache__"


def is_part(name: str) -> bool:
    """Whether a path inside a model is of a file of it: hidden ones and Python's caches are not."""
    return not any(step.startswith(".") or step == CACHE for step in PurePosixPath(name).parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The files of a model: a folder, or one file. `digests`: path inside -> SHA-256."""

    path: Path
    digests: Mapping[str, str]

    def place(self, name: str) -> Path:
        """Where a pinned file lies; raises ModelRefused when it is none."""
        if name not in self.digests:
            raise ModelRefused(f"{self.path.name}: {name} is not among the files that were added")
        return self.path / name if self.path.is_dir() else self.path

    def read(self, name: str) -> bytes:
        """The content of a pinned file; raises ModelRefused when it is missing or changed."""
        try:
            content = self.place(name).read_bytes()
        except OSError as error:
            raise ModelRefused(f"{self.path.name}: {name}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.digests[name]:
            raise ModelRefused(f"{self.path.name}: {name} changed since the model was added")
        return content

    def weights(self, name: str, *, safe: Sequence[Any] = ()) -> Any:
        """What torch saved in a file, on the CPU, as plain tensors and containers and no code.

        `safe`: further types and constructors of plain values that the file may hold, as
        `torch.serialization.safe_globals` takes them. Raises ModelRefused for a file that is not
        such, missing or changed.
        """
        content = self.read(name)
        try:
            with torch.serialization.safe_globals(list(safe)):
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # (whatever an unpickler meets in bytes that are not trusted)
            words = f"{self.path.name}: {name} does not load as weights: {type(error).__name__}"
            raise ModelRefused(words) from error

    def check(self) -> None:
        """Read and compare every file; raises ModelRefused for the first that differs."""
        for name in self.digests:
            self.read(name)
