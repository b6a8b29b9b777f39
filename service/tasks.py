"""What passes between a worker and its child: files to read in, results or a reason out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSetup:
    """A model as the child loads it. `kind` is a module of the package `package` of the setup.

    `title`: what results call it; `artifact`: its files, if it comes as files.
    """

    name: str
    kind: str
    title: str
    version: str
    configuration: str  # digest of the settings
    settings: Mapping[str, object]
    artifact: "ArtifactSetup | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSetup:
    """A model's files and its sidecar's plain values."""

    path: Path
    sidecar: Mapping[str, Any]
    trusted: bool
    approval: Path | None = None  # the file with it, if it was approved


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the child is told once, when it starts."""

    models: tuple[ModelSetup, ...]
    node_name: str
    device_serial: str
    software_version: str
    not_for_diagnosis: bool
    report_not_analysed: bool
    package: str = "inference.models"
    preload: bool = True  # load the models before the first task
    memory_bytes: int | None = None
    device: str = "auto"  # where models run: auto, cpu, cuda or cuda:N
    models_bytes: int | None = None  # of loaded models and a run; None: all that the device has
    log_level: str = "info"
    log_file: Path | None = None
    readable: tuple[Path, ...] = ()  # beside the program and pinned files: received instances
    unconfined: str | None = None  # what the child could not be kept from, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The report that the new one supersedes."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One job, as files to read.

    `others`: for a model that wants several series, the files of the further ones by their role,
    `role` being that of the first.
    """

    model: str  # name in the configuration
    paths: tuple[Path, ...]
    fingerprint: str
    generation: int
    predecessor: Predecessor | None
    role: str = ""
    others: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A task to do now. `token`: what the answer begins with, new for each; never told before."""

    token: bytes
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadNext:
    """Beside what is computed, the study of this task may be read: it probably comes next.

    None: what was read so is not wanted any more.
    """

    task: Task | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The child can be asked. `unavailable`: model name -> why it cannot be loaded."""

    unavailable: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """A result object as the bytes of its file (PS3.10)."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureVector:
    """A feature vector: float32, little endian."""

    kind: str
    version: str
    dimensions: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Seconds of the steps of one analysis, one after the other.

    `read`: files to a volume, or the rest of it; `read_ahead`: what of it was done while another
    task ran; `model`: the model itself; `encode`: findings to checked result objects as bytes;
    `describe`: what the feature vectors took beyond the model's own time. None when the analysis
    did not get there, or nothing was read ahead.
    """

    read: float | None = None
    read_ahead: float | None = None
    model: float | None = None
    encode: float | None = None
    describe: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """Where a model ran and what it took; None where it did not run or does not say."""

    device: str | None = None
    arithmetic: str | None = None  # float32, bfloat16 or float16
    peak_bytes: int | None = None  # of the device, models that are loaded included


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysed:
    """The model has answered, be it that it does not analyse this series."""

    verdict: str
    reason: str | None
    objects: tuple[ResultObject, ...]
    vectors: tuple[FeatureVector, ...]
    durations: Durations
    computed: Computed = field(default_factory=Computed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """The files cannot be read as DICOM: a person has to look."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It did not work this time. After `exhausted` the child is of no more use.

    `final`: it will not work another time either.
    """

    reason: str
    exhausted: bool = False
    final: bool = False


Answer = Analysed | Unreadable | Failed
