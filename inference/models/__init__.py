"""A model is one module file in this package: what such a module offers, and nothing else.

The module's name is the model's `kind` in the configuration. A built-in model offers:

    VERSION: a literal string (read without importing the module)
    REQUIREMENTS: Requirements
    SEGMENTS: tuple[SegmentDefinition, ...]
    CARD: ModelCard
    load(settings: Mapping[str, object]) -> Model

A family of models that come as files, each described by its sidecar, offers:

    VERSION: a literal string, of the code that runs them
    propose(path: Path) -> Mapping | None
    check(artifact: Artifact) -> None
    lacking(artifact: Artifact) -> tuple[str, ...]
    load(settings: Mapping[str, object], artifact: Artifact) -> Model

Both may have a literal SETTINGS, the configuration keys of their own (service/declared.py). A model
sees an `Image` (arrays, an affine, a few facts of the acquisition), never DICOM.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inference.description import Description
from inference.findings import Findings, SegmentDefinition
from inference.model_files import ModelFiles
from inference.requirements import Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a person must know before trusting a model; the full card lies in deploy/docs/models."""

    name: str  # goes into the result objects (LO, at most 64 characters)
    version: str
    summary: str
    intended_use: str
    method: str
    references: tuple[str, ...]
    limits: tuple[str, ...]


class Model(Protocol):
    """A loaded model: the same image gives the same findings, bit for bit."""

    @property
    def requirements(self) -> Requirements:
        """What it wants; `dimensions` decides what images it is given."""
        ...

    def predict(self, image: Any) -> Findings:
        """Look at one `Image` or, of 2 dimensions, at one `PlanarImage`, that meets `requirements`.

        A refusal is an answer (`Verdict.NOT_ANALYSED`), not an exception.
        """
        ...


class ModelModule(Protocol):
    """What a module of this package looks like from outside."""

    VERSION: str
    REQUIREMENTS: Requirements
    SEGMENTS: tuple[SegmentDefinition, ...]
    CARD: ModelCard

    def load(self, settings: Mapping[str, object]) -> Model:
        """Build the model; unknown or wrong settings raise ValueError naming the key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model's files with what its sidecar says of them. `trusted`: its code may run.

    `device`: where it runs, see `engine.device.choose`.
    """

    description: Description
    files: ModelFiles
    trusted: bool = False
    device: str = "auto"

    @property
    def requirements(self) -> Requirements:
        """As the sidecar has them."""
        return Requirements(
            modalities=self.description.modalities,
            dimensions=self.description.dimensions,
            axial=self.description.axial,
            min_slices=self.description.min_slices,
            max_spacing_mm=self.description.max_spacing_mm,
        )


class FileModelModule(Protocol):
    """What the module of a family of models that come as files looks like from outside."""

    VERSION: str

    def propose(self, path: Path) -> Mapping[str, Any] | None:
        """A sidecar's tables for the files at `path`, without `files`; None: not of this family.

        `comments` among them: lines for the person who completes it. Reads text, runs nothing.
        Raises ModelRefused for files of the family that cannot run here.
        """
        ...

    def check(self, artifact: Artifact) -> None:
        """Raise ModelRefused for what the sidecar says that `load` would refuse, as its text shows.

        The files themselves are not read.
        """
        ...

    def lacking(self, artifact: Artifact) -> tuple[str, ...]:
        """What it needs that is not here, a line each: packages, trust in code of its own.

        Reads texts, no weights, and runs nothing. Raises ModelRefused as `check` does, and for
        files that changed.
        """
        ...

    def load(self, settings: Mapping[str, object], artifact: Artifact) -> Model:
        """Build the model; raises ModelRefused with the one line that says why it cannot run."""
        ...
