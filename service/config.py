"""A configuration that was loaded is whole: checked, resolved, paths absolute, nothing unknown.

Keys that only one kind of destination, model or trigger has are declared by the kind itself
(service/declared.py) and arrive in `settings`, with defaults filled in and paths absolute.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service import criteria, declared, kinds, sidecar
from service.criteria import Criterion
from service.declared import Values
from service.preferences import PREFERENCES
from service.sections import (
    LISTS,
    SECTIONS,
    ApplicationEntity,
    CompletionKeys,
    Deliveries,
    DestinationKeys,
    FileModelKeys,
    Inference,
    Log,
    ModelKeys,
    Results,
    Retention,
    RouteKeys,
    Storage,
    Web,
)
from service.sidecar import Role, Sidecar
from service.validation import (
    ConfigurationError,
    Place,
    Section,
    listed,
    suggestion,
    validated,
)
from storage.records import Priority

__all__ = ["Configuration", "ConfigurationError", "load"]

TRIGGERS = "service.triggers"
DESTINATIONS = "service.destinations"
MODELS = "inference.models"
RESULTS = "inference.encoding"
SIDECAR = "propose"
"""What the module of a kind defines when its models come as files with a sidecar."""
DEFINING: Mapping[str, str] = {
    TRIGGERS: "complete",
    DESTINATIONS: "SETTINGS",
    MODELS: "VERSION",
    RESULTS: "ORDER",
}
"""Package -> what a module in it defines when it is a kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """When a series or a study is complete. `settings`: the trigger kind's own keys."""

    kind: str
    seconds: float
    study_seconds: float
    settings: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results go. `settings`: the destination kind's own keys."""

    name: str
    kind: str
    results: tuple[str, ...]
    settings: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A configured model.

    `digest`: SHA-256 of kind, settings and sidecar; `requirements`: what it declares that it wants;
    `artifact`: its files, of a kind that comes as files.
    """

    name: str
    kind: str
    version: str
    deadline_seconds: float
    settings: Values
    digest: str
    requirements: Mapping[str, object]
    artifact: "Artifact | None" = None

    @property
    def title(self) -> str:
        """What results call it."""
        return self.kind if self.artifact is None else self.artifact.sidecar.name

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of the series that it wants at once; none when one series is enough."""
        return () if self.artifact is None else self.artifact.sidecar.roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model that comes as files. `trusted`: it may run what an administrator approved."""

    path: Path
    sidecar: Sidecar
    trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A rule. `best`: one series of the study, chosen by `prefer`; else each that matches."""

    name: str
    match: tuple[Criterion, ...]
    models: tuple[Model, ...]
    destinations: tuple[str, ...]
    priority: Priority
    best: bool
    prefer: tuple[str, ...]
    minimum_instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A whole configuration; every path in it is absolute."""

    file: Path
    application_entity: ApplicationEntity
    storage: Storage
    web: Web
    completion: Completion
    retention: Retention
    results: Results
    inference: Inference
    deliveries: Deliveries
    log: Log
    destinations: tuple[Destination, ...]
    models: tuple[Model, ...]
    routes: tuple[Route, ...]

    @property
    def database_url(self) -> str:
        """The catalogue's URL."""
        return self.storage.database or f"sqlite:///{self.storage.directory / 'catalogue.sqlite'}"


def load(path: Path) -> Configuration:
    """The configuration in a TOML file; ConfigurationError when anything is wrong with it."""
    return parse(_read(path), file=path.absolute())


def parse(text: str, *, file: Path) -> Configuration:
    """The configuration in a TOML text that stands in `file`."""
    place = Place(file=file)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise place.error(str(error), allowed="TOML 1.0") from error
    _refuse_unknown(raw, place)
    return _configuration(raw, place)


def keys_of(base: type[Section], *, package: str, kind: str) -> type[Section]:
    """The keys of a kind: those of every kind of its package and its own."""
    if base is ModelKeys and comes_as_files(kind):
        base = FileModelKeys
    return declared.extended(base, kinds.table(package, kind, "SETTINGS"))


def comes_as_files(kind: str) -> bool:
    """Whether a kind of model is files with a sidecar, and no part of this program."""
    return kinds.defines(MODELS, kind, SIDECAR)


def _read(path: Path) -> str:
    place = Place(file=path)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise place.error(f"cannot be read: {error.strerror}", allowed="a TOML file") from error
    except UnicodeDecodeError as error:
        raise place.error("is not UTF-8", allowed="a TOML file in UTF-8") from error


def _refuse_unknown(raw: Mapping[str, object], place: Place) -> None:
    known = (*SECTIONS, *LISTS)
    for key in raw:
        if key not in known:
            hint = suggestion(key, known)
            raise place.at(key).error(f"unknown key{hint}", allowed=", ".join(known))


def _configuration(raw: Mapping[str, Any], place: Place) -> Configuration:
    def section(name: str) -> Any:
        return validated(SECTIONS[name], raw.get(name, {}), place.at(name))

    def entries(name: str) -> list[tuple[Any, Place]]:
        return _entries(raw.get(name, []), place.at(name))

    storage: Storage = _absolute(section("storage"), place)
    destinations = tuple(_destination(*entry) for entry in entries("destinations"))
    models = tuple(_model(*entry) for entry in entries("models"))
    configuration = Configuration(
        file=place.file,
        application_entity=section("application_entity"),
        storage=storage,
        web=section("web"),
        completion=_completion(raw.get("completion", {}), place.at("completion")),
        retention=_retention(section("retention"), storage),
        results=section("results"),
        inference=section("inference"),
        deliveries=section("deliveries"),
        log=_log(section("log"), place),
        destinations=destinations,
        models=models,
        routes=tuple(
            _route(*entry, models=models, destinations=destinations) for entry in entries("routes")
        ),
    )
    _check_together(configuration, place)
    return configuration


def _entries(raw: object, place: Place) -> list[tuple[Any, Place]]:
    if not isinstance(raw, list):
        raise place.error("is not a list of tables", allowed=f"[[{place.key}]]")
    seen: set[object] = set()
    entries = []
    for index, entry in enumerate(raw):
        where = place.item(entry, index)
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in seen:
            raise where.at("name").error(f"{name!r} is used twice", allowed="a name of its own")
        seen.add(name if isinstance(name, str) else None)
        entries.append((entry, where))
    return entries


def _kinded(base: type[Section], raw: object, place: Place, *, package: str) -> tuple[Any, Values]:
    """A table with a kind: its common keys validated, its own keys apart."""
    if not isinstance(raw, dict):
        raise place.error(f"{raw!r} is not a table", allowed=f"a table of {listed(base)}")
    field = base.model_fields["kind"]
    kind = raw.get("kind", None if field.is_required() else field.default)
    choices = kinds.kinds(package, defining=DEFINING[package])
    if kind not in choices:
        wrong = "is missing" if kind is None else f"{kind!r} is not a kind"
        hint = suggestion(kind, choices)
        raise place.at("kind").error(f"{wrong}{hint}", allowed=", ".join(choices) or "none exists")
    section = keys_of(base, package=package, kind=kind)
    values = validated(section, raw, place)
    own = kinds.table(package, kind, "SETTINGS")
    return values, declared.own_values(values, own, folder=place.file.parent)


def _completion(raw: object, place: Place) -> Completion:
    values, settings = _kinded(CompletionKeys, raw, place, package=TRIGGERS)
    return Completion(
        kind=values.kind,
        seconds=values.seconds,
        study_seconds=values.study_seconds,
        settings=settings,
    )


def _destination(raw: object, place: Place) -> Destination:
    values, settings = _kinded(DestinationKeys, raw, place, package=DESTINATIONS)
    known = kinds.kinds(RESULTS, defining=DEFINING[RESULTS])
    for result in values.results:
        if result not in known:
            raise place.at("results").error(
                f"{result!r} is not a result kind{suggestion(result, known)}",
                allowed=", ".join(known),
            )
    return Destination(
        name=values.name, kind=values.kind, results=values.results, settings=settings
    )


def _model(raw: object, place: Place) -> Model:
    values, settings = _kinded(ModelKeys, raw, place, package=MODELS)
    built_in = Model(
        name=values.name,
        kind=values.kind,
        version=str(kinds.constant(MODELS, values.kind, "VERSION")),
        deadline_seconds=values.deadline_seconds,
        settings=settings,
        digest=_digest({"kind": values.kind, "settings": dict(settings)}),
        requirements=kinds.table(MODELS, values.kind, "REQUIREMENTS"),
    )
    return _from_files(built_in, values, place) if comes_as_files(values.kind) else built_in


def _from_files(model: Model, values: FileModelKeys, place: Place) -> Model:
    """The model as its sidecar describes it; where it lies does not change its digest."""
    path = place.file.parent / values.path
    described = sidecar.read(path)
    return replace(
        model,
        version=described.version,
        digest=_digest({"model": model.digest, "sidecar": described.digest}),
        requirements=described.requirements,
        artifact=Artifact(path=path, sidecar=described, trusted=values.trust == "trusted"),
    )


def _digest(plain: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _route(
    raw: object, place: Place, *, models: tuple[Model, ...], destinations: tuple[Destination, ...]
) -> Route:
    values = validated(RouteKeys, raw, place)
    by_name = {model.name: model for model in models}
    _each_known(values.models, by_name, place.at("models"), "a model")
    known = {destination.name for destination in destinations}
    _each_known(values.destinations, known, place.at("destinations"), "a destination")
    _each_known(values.prefer, PREFERENCES, place.at("prefer"), "a preference")
    if values.select == "each":
        _check_each(values, by_name, place)
    return Route(
        name=values.name,
        match=criteria.match(values.match, place.at("match")),
        models=tuple(by_name[name] for name in dict.fromkeys(values.models)),
        destinations=tuple(dict.fromkeys(values.destinations)),
        priority=Priority(values.priority),
        best=values.select == "best",
        prefer=tuple(dict.fromkeys(values.prefer)),
        minimum_instances=values.minimum_instances,
    )


def _check_each(values: RouteKeys, models: Mapping[str, Model], place: Place) -> None:
    if "prefer" in values.model_fields_set:
        raise place.at("prefer").error("has no effect", allowed='prefer only with select = "best"')
    for name in values.models:
        if models[name].roles:
            wants = ", ".join(role.name for role in models[name].roles)
            wrong = f"{name!r} wants several series of a study at once ({wants})"
            raise place.at("select").error(wrong, allowed='select = "best"')


def _each_known(names: tuple[str, ...], known: Any, place: Place, what: str) -> None:
    for name in names:
        if name not in known:
            allowed = ", ".join(known) or "none is configured"
            raise place.error(f"{name!r} is not {what}{suggestion(name, known)}", allowed=allowed)


def _absolute(storage: Storage, place: Place) -> Storage:
    return storage.model_copy(update={"directory": place.file.parent / storage.directory})


def _retention(retention: Retention, storage: Storage) -> Retention:
    if "free_gib" in retention.model_fields_set:
        return retention
    return retention.model_copy(update={"free_gib": 2 * storage.minimum_free_gib})


def _log(log: Log, place: Place) -> Log:
    return log.model_copy(update={"file": place.file.parent / log.file}) if log.file else log


def _check_together(configuration: Configuration, place: Place) -> None:
    minimum = configuration.storage.minimum_free_gib
    if configuration.retention.free_gib < minimum:
        raise place.at("retention", "free_gib").error(
            f"{configuration.retention.free_gib:g} is below storage.minimum_free_gib",
            allowed=f"{minimum:g} or more",
        )
