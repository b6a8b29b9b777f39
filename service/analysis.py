"""The child of a worker: every task gets one answer, which quotes no data set.

With `service.runs` the only module of the service that imports the science while the node runs.
"""

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import cast

import pydicom
from pydicom import Dataset

from inference import decoding, description, pipeline, rehearsal
from inference.decoding import Watch
from inference.encoding import Provenance, Reference
from inference.encoding.common import to_bytes
from inference.engine import device
from inference.engine.residency import Residents
from inference.errors import InferenceError, ModelRefused, OutOfMemory
from inference.model_files import ModelFiles
from inference.models import Artifact, FileModelModule, Model, ModelModule
from inference.pipeline import Analysis, Companions, Given
from service import answers, approvals, kinds, log
from service.model_folder import OutOfReachError
from service.read_ahead import Held, ReadAhead, Reading
from service.runs import Admitted, Watched
from service.tasks import (
    Analysed,
    Answer,
    Failed,
    FeatureVector,
    ModelSetup,
    Predecessor,
    Question,
    ReadNext,
    Ready,
    ResultObject,
    Setup,
    Task,
    Unreadable,
)

DEFER_BYTES = 64 << 10
YOUNG_OBJECTS = 50_000  # between two looks for cycles: data sets are many objects and few cycles

Asked = tuple[Question, Reading[Given] | None]
"""What is to be done, and its study if that was begun before."""


class UnreadableFileError(Exception):
    """A stored instance is no DICOM file; the text says which and why."""


def serve(pipe: Connection, setup: Setup, watch: Watch, token: bytes) -> None:
    """Load the models, say Ready, answer tasks until the worker closes its end.

    `watch` is told of every instance that is decoded; `token` is that of Ready.
    """
    decoding.watch(watch)
    analyst = Analyst(setup)
    ready = Ready(unavailable=analyst.preload() if setup.preload else {})
    pipe.send_bytes(answers.written(ready, token))
    _rehearse()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.enable()
    asked: SimpleQueue[Asked | None] = SimpleQueue()
    Thread(target=_listen, args=(pipe, asked, analyst.ahead), name="tasks", daemon=True).start()
    while (next_one := asked.get()) is not None:
        question, reading = next_one
        del next_one
        answer = analyst.answer(question.task, reading)
        del reading  # a study that was read ahead is not kept until another task comes
        pipe.send_bytes(answers.written(answer, question.token))
        if isinstance(answer, Failed) and answer.exhausted:
            return
        del answer
        device.give_back_host()


class Analyst:
    """The configured models and what they are told about the node."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._models = {model.name: model for model in setup.models}
        self._looks: dict[str, tuple[object, ...] | None] = {}
        self.ahead = ReadAhead(self._read_ahead)

    def preload(self) -> dict[str, str]:
        """Load every model; name -> reason of each that cannot be."""
        failed = {}
        for name in self._models:
            try:
                self._model(name)
            except Exception as error:  # noqa: BLE001  (rim: a broken model is not the others' fault)
                failed[name] = f"the model cannot be loaded: {described(error)}"
        return failed

    def answer(self, task: Task, reading: Reading[Given] | None = None) -> Answer:
        """Analyse; whatever happens is an answer. `reading`: of the study, begun before."""
        try:
            return self._analyse(task, reading)
        except UnreadableFileError as error:
            return Unreadable(reason=str(error))
        except ModelRefused as refusal:
            return Failed(reason=str(refusal), final=True)
        except OutOfReachError as replaced:
            words = f"{replaced} of the model {task.model} was replaced: another process reads it"
            return Failed(reason=words, exhausted=True)
        except Exception as error:  # noqa: BLE001  (rim: the worker records it and tries again)
            if device.is_exhausted(error):
                return Failed(reason=out_of_memory(error), exhausted=True)
            return Failed(reason=described(error))

    def _analyse(self, task: Task, reading: Reading[Given] | None) -> Analysed:
        loaded, began = self._model(task.model), time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as beside:
            admitted = Admitted(task.model, loaded, self._residents, self.ahead)
            model = Watched(admitted, beside)
            held = None if reading is None else reading.result()
            analysis = pipeline.analyse_given(
                _given(task, loaded.requirements.dimensions, held),
                model,
                self._provenance(task),
                pipeline.Options(report_not_analysed=self._setup.report_not_analysed),
            )
            objects = tuple(_object(kind, dataset) for kind, dataset in analysis.objects)
            encoded = time.monotonic()
            vectors = _vectors(analysis, model)
        return Analysed(
            verdict=analysis.findings.verdict.value,
            reason=analysis.reason,
            objects=objects,
            vectors=vectors,
            durations=replace(
                model.durations(began=began, encoded=encoded),
                read_ahead=None if held is None else held.seconds,
            ),
            computed=admitted.computed,
        )

    def _read_ahead(self, task: Task, room: int) -> Held[Given] | None:
        """The study of a task whose model is loaded, if it takes no more than `room` bytes."""
        began, model = time.monotonic(), self._residents.loaded(task.model)
        if model is None:
            return None
        datasets, companions = _files(task)
        size = pipeline.most_bytes(datasets, companions)
        if size > room:
            return None
        dimensions = model.requirements.dimensions
        given = pipeline.read(datasets, dimensions=dimensions, companions=companions)
        return Held(value=given, size=size, seconds=time.monotonic() - began)

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

    def _provenance(self, task: Task) -> Provenance:
        model: ModelSetup = self._models[task.model]
        plain = None if model.artifact is None else model.artifact.sidecar
        return Provenance(
            model_name=model.title,
            model_version=model.version,
            configuration=model.configuration,
            fingerprint=task.fingerprint,
            generation=task.generation,
            predecessor=_reference(task.predecessor),
            node_name=self._setup.node_name,
            device_serial=self._setup.device_serial,
            software_version=self._setup.software_version,
            not_for_diagnosis=self._setup.not_for_diagnosis,
            model_digest=None if plain is None else approvals.digest_of(plain["files"]),
            model_licence=None if plain is None else plain["licence"],
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


def out_of_memory(error: Exception) -> str:
    """What to tell a person of memory that ran out."""
    return str(error) if isinstance(error, OutOfMemory) else "ran out of memory"


def _given(task: Task, dimensions: int, held: Held[Given] | None) -> Given:
    """The study of a task as it was read ahead for such a model, or read now."""
    if held is not None and held.value.dimensions == dimensions:
        return held.value
    datasets, companions = _files(task)
    return pipeline.read(datasets, dimensions=dimensions, companions=companions)


def _files(task: Task) -> tuple[list[Dataset], Companions | None]:
    """Parsed; their pixel data stay in them."""
    datasets = [read(path) for path in task.paths]
    if not task.others:
        return datasets, None
    others = {role: [read(path) for path in paths] for role, paths in task.others.items()}
    return datasets, Companions(role=task.role, others=others)


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


def _listen(pipe: Connection, asked: "SimpleQueue[Asked | None]", ahead: ReadAhead[Given]) -> None:
    """Until the worker closes its end: None then comes last."""
    try:
        while True:
            match pipe.recv():
                case ReadNext(task=task):
                    ahead.want(task)
                case question:
                    asked.put((question, ahead.take(question.task)))
    except (EOFError, OSError):
        return
    finally:
        asked.put(None)


def _vectors(analysis: Analysis, model: Watched) -> tuple[FeatureVector, ...]:
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
