"""A Python file of the hospital's own: one function from arrays to findings, run only if trusted.

A `.py` file, or a folder with `model.py` and what it reads. The code that runs is the bytes whose
digest the sidecar pins. The file offers `predict`, or `load(files)` that returns it; what it is
given and may return: inference/arrays/returned.py, with an example in deploy/models/README.md.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from inference import dependencies
from inference.arrays import proposals, returned
from inference.arrays.inputs import seen
from inference.description import Description
from inference.errors import ModelRefused
from inference.findings import Findings, Image, PlanarImage
from inference.model_files import ModelFiles
from inference.models import Artifact, Model
from inference.requirements import Requirements

VERSION = "1.0.0"
SUFFIXES = (".py",)
ENTRY = "model.py"
UNTRUSTED = (
    '{name} is Python code and runs only with trust = "trusted", after an administrator has '
    "approved its files"
)

Predict = Callable[..., object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """See the module."""

    requirements: Requirements
    description: Description
    function: Predict

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the function finds."""
        return returned.findings(self._ask(image), image, self.description)

    def _ask(self, image: Image | PlanarImage) -> object:
        """The function's answer; random numbers start at the same place each time."""
        arrays = seen(image, self.description.roles)
        roles = self.description.roles
        given: Any = np.array(arrays.channels[0])
        if roles:
            given = {role: np.array(one) for role, one in zip(roles, arrays.channels, strict=True)}
        elif isinstance(image, PlanarImage):
            given = np.array(image.pixels)
        affine = None if arrays.affine is None else arrays.affine.copy()
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            return self.function(
                array=given,
                affine=affine,
                spacing=arrays.spacing,
                modality=image.acquisition.modality,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What `load` of a model's file is given: its own pinned files and nothing else."""

    files: ModelFiles

    def read(self, name: str) -> bytes:
        """The bytes of a file of the model."""
        return self.files.read(name)

    def weights(self, name: str) -> Any:
        """A file of torch.save, as tensors and containers, on the CPU; no code in it runs."""
        return self.files.weights(name)

    def module(self, name: str) -> ModuleType:
        """Another Python file of the model, run; not importable by name."""
        return _module(self.files, name)


def propose(path: Path) -> Mapping[str, Any] | None:
    """The sidecar's tables for a Python file, or a folder with model.py."""
    name = proposals.file_in(path, SUFFIXES, lambda one: path.is_file() or one.name == ENTRY)
    return None if name is None else {**proposals.described(path, "Python"), "options": {}}


def check(artifact: Artifact) -> None:
    """Raise ModelRefused for any option, and for a folder without model.py."""
    if artifact.description.options:
        unknown = next(iter(artifact.description.options))
        raise ModelRefused(f"options.{unknown}: unknown; allowed: none")
    if _entry(artifact) not in artifact.description.files:
        raise ModelRefused(f"files: {_entry(artifact)} is not among those that were added")


def lacking(artifact: Artifact) -> tuple[str, ...]:
    """The packages that it imports and that are not installed."""
    absent = dependencies.missing(artifact.files, (), entry=_entry(artifact))
    return (dependencies.words(absent),) if absent else ()


def load(settings: Mapping[str, object], artifact: Artifact) -> Model:
    """Run the file, once; raises ModelRefused unless it is trusted and offers a function."""
    del settings
    name = artifact.files.path.name
    if not artifact.trusted:
        raise ModelRefused(UNTRUSTED.format(name=name))
    check(artifact)
    entry = _entry(artifact)
    module = _module(artifact.files, entry)
    function = getattr(module, "predict", None)
    if hasattr(module, "load"):
        function = module.load(Files(files=artifact.files))
    if not callable(function):
        raise ModelRefused(f"{name}: {entry} has no function predict, and no load that returns one")
    return Python(
        requirements=artifact.requirements,
        description=artifact.description,
        function=function,
    )


def _entry(artifact: Artifact) -> str:
    """The file of the function."""
    return ENTRY if artifact.files.path.is_dir() else artifact.files.path.name


def _module(files: ModelFiles, name: str) -> ModuleType:
    """A Python file, compiled from the bytes that were checked and run."""
    content = files.read(name)
    module = ModuleType(Path(name).stem)
    try:
        code = compile(content, f"{files.path.name}/{name}", "exec")
        exec(code, module.__dict__)  # noqa: S102  (trusted by an administrator: the kind's purpose)
    except SyntaxError as error:
        raise ModelRefused(f"{files.path.name}: {name} line {error.lineno}: {error.msg}") from error
    except ImportError as error:
        wrong = f"{files.path.name}: {name} needs {error.name}, which is not installed"
        raise ModelRefused(wrong) from error
    return module
