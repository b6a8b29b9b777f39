"""The child of a worker: every task gets one answer, which quotes no data set.

The only module of the service that imports the science while the node runs.
"""

import gc
import hashlib
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import pydicom
from pydicom import Dataset

from inference import decoding, description, features, pipeline, rehearsal
from inference.decoding import Watch
from inference.encoding import Provenance, Reference
from inference.encoding.common import to_bytes
from inference.engine import device
from inference.engine.device import Device
from inference.engine.residency import Residents
from inference.errors import InferenceError, ModelRefused
from inference.features import Mask, View
from inference.findings import Findings, Image, PlanarImage
from inference.model_files import ModelFiles
from inference.models import Artifact, FileModelModule, Model, ModelModule
from inference.pipeline import Analysis, Companions
from inference.requirements import Requirements
from service import approvals, kinds, log
from service.model_folder import OutOfReachError
from service.tasks import (
    Analysed,
    Answer,
    Computed,
    Durations,
    Failed,
    FeatureVector,
    ModelSetup,
    Predecessor,
    Ready,
    ResultObject,
    Setup,
    Task,
    Unreadable,
)

REFERENCE = "float32 on cpu"
DEFER_BYTES = 64 << 10
YOUNG_OBJECTS = 50_000  # between two looks for cycles: data sets are many objects and few cycles


class UnreadableFileError(Exception):
    """A stored instance is no DICOM file; the text says which and why."""


def serve(pipe: Connection, setup: Setup, watch: Watch) -> None:
    """Load the models, say Ready, answer tasks until the worker closes its end.

    `watch` is told of every instance that is decoded.
    """
    decoding.watch(watch)
    analyst = Analyst(setup)
    pipe.send(Ready(unavailable=analyst.preload() if setup.preload else {}))
    _rehearse()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    while (task := _next(pipe)) is not None:
        answer = analyst.answer(task)
        pipe.send(answer)
        if isinstance(answer, Failed) and answer.exhausted:
            return


class Analyst:
    """The configured models and what they are told about the node."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._models = {model.name: model for model in setup.models}
        self._looks: dict[str, tuple[object, ...] | None] = {}

    def preload(self) -> dict[str, str]:
        """Load every model; name -> reason of each that cannot be."""
        failed = {}
        for name in self._models:
            try:
                self._model(name)
            except Exception as error:  # noqa: BLE001  (rim: a broken model is not the others' fault)
                failed[name] = f"the model cannot be loaded: {described(error)}"
        return failed

    def answer(self, task: Task) -> Answer:
        """Analyse; whatever happens is an answer."""
        try:
            return self._analyse(task)
        except UnreadableFileError as error:
            return Unreadable(reason=str(error))
        except MemoryError:
            return Failed(reason="ran out of memory", exhausted=True)
        except ModelRefused as refusal:
            return Failed(reason=str(refusal), final=True)
        except OutOfReachError as replaced:
            words = f"{replaced} of the model {task.model} was replaced: another process reads it"
            return Failed(reason=words, exhausted=True)
        except Exception as error:  # noqa: BLE001  (rim: the worker records it and tries again)
            return Failed(reason=described(error))

    def _analyse(self, task: Task) -> Analysed:
        loaded, began = self._model(task.model), time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as beside:
            admitted = _Admitted(task.model, loaded, self._residents)
            model = _Watched(admitted, beside)
            analysis = pipeline.analyse(
                [read(path) for path in task.paths],
                model,
                self._provenance(task, computed_in(loaded, self._residents.device)),
                pipeline.Options(report_not_analysed=self._setup.report_not_analysed),
                _companions(task),
            )
            objects = tuple(_object(kind, dataset) for kind, dataset in analysis.objects)
            encoded = time.monotonic()
            vectors = _vectors(analysis, model)
        return Analysed(
            verdict=analysis.findings.verdict.value,
            reason=analysis.reason,
            objects=objects,
            vectors=vectors,
            durations=model.durations(began=began, encoded=encoded),
            computed=admitted.computed,
        )

    def _model(self, name: str) -> Model:
        """The model, loaded; one whose files look otherwise than when it was is checked again."""
        setup = self._models[name]
        files = None
        if setup.artifact is not None:
            files = approvals.appearance(setup.artifact.path, setup.artifact.approval)
        if name not in self._looks or self._looks[name] != files:
            self._residents.forget(name)
            self._refuse(setup)
        loaded = self._residents.model(name, lambda: _load(setup, self._setup))
        self._looks[name] = files
        return loaded

    @cached_property
    def _residents(self) -> Residents[Model]:
        return Residents(device.choose(self._setup.device), self._setup.models_bytes)

    def _refuse(self, setup: ModelSetup) -> None:
        """ModelRefused for a model that must not run here, or not with these files."""
        artifact, unconfined = setup.artifact, self._setup.unconfined
        if artifact is None:
            return
        if unconfined is not None and artifact.trusted:
            raise ModelRefused(
                f"trusted code does not run: nothing would keep it from {unconfined}"
            )
        reason = approvals.stopped(
            artifact.path,
            artifact.sidecar["files"],
            trusted=artifact.trusted,
            approval=None if artifact.approval is None else approvals.read(artifact.approval),
        )
        if reason is not None:
            raise ModelRefused(f"the model {setup.name} is stopped: {reason}")

    def _provenance(self, task: Task, arithmetic: str | None) -> Provenance:
        model: ModelSetup = self._models[task.model]
        plain = None if model.artifact is None else model.artifact.sidecar
        return Provenance(
            model_name=model.title,
            model_version=model.version,
            configuration=configured(model.configuration, arithmetic),
            fingerprint=task.fingerprint,
            generation=task.generation,
            predecessor=_reference(task.predecessor),
            node_name=self._setup.node_name,
            device_serial=self._setup.device_serial,
            software_version=self._setup.software_version,
            not_for_diagnosis=self._setup.not_for_diagnosis,
            model_digest=None if plain is None else approvals.digest_of(plain["files"]),
            model_licence=None if plain is None else plain["licence"],
            model_arithmetic=arithmetic,
        )


def computed_in(model: Model, place: Device) -> str | None:
    """ "bfloat16 on cpu": of a network; None of a model that computes alike everywhere."""
    arithmetic = getattr(model, "arithmetic", None)
    return None if arithmetic is None else f"{arithmetic} on {place.name.partition(':')[0]}"


def configured(configuration: str, arithmetic: str | None) -> str:
    """The digest from which UIDs derive: another arithmetic gives other bits, hence other UIDs."""
    if arithmetic is None or arithmetic == REFERENCE:
        return configuration
    return hashlib.sha256(f"{configuration} {arithmetic}".encode()).hexdigest()


class _Admitted:
    """A loaded model on its device: a run that will not fit is refused, what one took is kept."""

    def __init__(self, name: str, model: Model, residents: Residents[Model]) -> None:
        self._name = name
        self._model = model
        self._residents = residents
        self.computed = Computed()

    @property
    def requirements(self) -> Requirements:
        """The model's."""
        return self._model.requirements

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the model says; raises ModelRefused for an image that memory will not hold."""
        values = image.pixels if isinstance(image, PlanarImage) else image.volume.array
        place = self._residents.device
        self._residents.admit(self._name, values.size)
        place.begin()
        findings = self._model.predict(image)
        peak = place.peak_bytes()
        self._residents.ran(self._name, values.size, peak)
        self.computed = Computed(
            device=place.name,
            arithmetic=getattr(self._model, "arithmetic", None),
            peak_bytes=peak,
        )
        return findings


class _Watched:
    """A model whose time is taken; beside it and after it goes what the feature vectors need."""

    def __init__(self, model: Model, beside: Executor) -> None:
        self._model = model
        self._beside = beside
        self._asked: tuple[float, float] | None = None  # from, until
        self._view: Future[View] | None = None
        self._outlines: Future[tuple[Mask, ...]] | None = None

    @property
    def requirements(self) -> Requirements:
        """The model's."""
        return self._model.requirements

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the model says; of planar images it is asked once for each."""
        began = time.monotonic()
        if isinstance(image, PlanarImage):
            findings = self._model.predict(image)
            self._asked = (self._asked[0] if self._asked else began, time.monotonic())
            return findings
        self._view = self._beside.submit(features.look, image)
        findings = self._model.predict(image)
        self._asked = (began, time.monotonic())
        self._outlines = self._beside.submit(features.outlines, findings, image.volume)
        return findings

    def describe(self, analysis: Analysis) -> tuple[features.FeatureVector, ...]:
        """The feature vectors: of a stack, and of planar images if the model was asked of any."""
        if analysis.views is not None and self._asked is not None:
            return pipeline.describe_views(analysis.views)
        if analysis.stack is None:
            return ()
        if self._view is None or self._outlines is None:  # (not what the model requires)
            view = features.look(analysis.stack.image)
            return pipeline.describe(analysis.stack, analysis.findings, view, ())
        return pipeline.describe(
            analysis.stack, analysis.findings, self._view.result(), self._outlines.result()
        )

    def durations(self, *, began: float, encoded: float) -> Durations:
        """Of an analysis that began and had its objects then, and its feature vectors now."""
        if self._asked is None:
            return Durations(read=encoded - began)
        asked, answered = self._asked
        return Durations(
            read=asked - began,
            model=answered - asked,
            encode=encoded - answered,
            describe=time.monotonic() - encoded,
        )


def read(path: Path) -> Dataset:
    """A file as a data set, large values read when wanted; UnreadableFileError if it is none."""
    try:
        return pydicom.dcmread(path, defer_size=DEFER_BYTES)
    except MemoryError:
        raise
    except Exception as error:  # (whatever a parser meets in a file that is none)
        raise UnreadableFileError(f"instance {path.stem[:12]}: {described(error)}") from error


def described(error: Exception) -> str:
    """What went wrong, in words that quote no data set: our own text, or else kind and place."""
    if isinstance(error, InferenceError):
        return str(error)
    return f"{type(error).__name__} at {log.place(error)}"


def _companions(task: Task) -> Companions | None:
    if not task.others:
        return None
    others = {role: [read(path) for path in paths] for role, paths in task.others.items()}
    return Companions(role=task.role, others=others)


def _load(setup: ModelSetup, node: Setup) -> Model:
    module = kinds.load_kind(node.package, setup.kind)
    if setup.artifact is None:
        return cast("ModelModule", module).load(setup.settings)
    described = description.parse(setup.artifact.sidecar)
    files = ModelFiles(path=setup.artifact.path, digests=described.files)
    artifact = Artifact(
        description=described, files=files, trusted=setup.artifact.trusted, device=node.device
    )
    return cast("FileModelModule", module).load(setup.settings, artifact)


def _reference(predecessor: Predecessor | None) -> Reference | None:
    if predecessor is None:
        return None
    return Reference(
        sop_class_uid=predecessor.sop_class_uid,
        sop_instance_uid=predecessor.sop_instance_uid,
        series_instance_uid=predecessor.series_instance_uid,
    )


def _rehearse() -> None:
    """After Ready, since a task that comes meanwhile would wait for the same anyway."""
    try:
        rehearsal.rehearse()
    except Exception as error:  # noqa: BLE001  (rim: only the first analysis is slower)
        log.failure("failure", error, detail="the rehearsal of an analysis raised")


def _next(pipe: Connection) -> Task | None:
    try:
        task: Task = pipe.recv()
    except EOFError:
        return None
    return task


def _vectors(analysis: Analysis, model: _Watched) -> tuple[FeatureVector, ...]:
    """The feature vectors; an image that cannot be described is delivered all the same."""
    try:
        vectors = model.describe(analysis)
    except Exception as error:  # noqa: BLE001  (rim: results matter more than being found by them)
        log.failure("failure", error, detail="no feature vectors")
        return ()
    return tuple(
        FeatureVector(
            kind=vector.kind,
            version=vector.version,
            dimensions=vector.values.size,
            data=vector.values.astype("<f4").tobytes(),
        )
        for vector in vectors
    )


def _object(kind: str, dataset: Dataset) -> ResultObject:
    return ResultObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        data=to_bytes(dataset),
    )
