"""Every key of the configuration that is not a kind's own: its type, default and meaning, once.

The error messages, the resolved configuration of `hounsfield check` and the reference of the keys
all come from here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from service.preferences import DEFAULT, PREFERENCES
from service.validation import (
    AETitle,
    Allowed,
    Amount,
    Count,
    Folder,
    Host,
    Name,
    Port,
    Seconds,
    Section,
    Switch,
)


class ApplicationEntity(Section):
    """Our own application entity: who may call and how much at once."""

    ae_title: AETitle = Field("HOUNSFIELD", description="our AE title")
    host: Host = Field("127.0.0.1", description="the address to listen on; 0.0.0.0 is all of IPv4")
    port: Port = Field(11112, description="the port to listen on; every receive process shares it")
    accepted_calling_ae_titles: Annotated[
        tuple[AETitle, ...], Allowed("a list of AE titles; empty: anyone")
    ] = Field(
        (), description="who may call; others are rejected with the reason the standard has for it"
    )
    require_called_ae_title: Switch = Field(
        default=False, description="reject callers that call us by another AE title"
    )
    maximum_associations: Count = Field(
        100, description="open associations at once, in each receive process"
    )
    maximum_pdu_bytes: Annotated[
        int,
        Field(strict=True, ge=4096, le=1_048_576),
        Allowed("a whole number from 4096 to 1048576"),
    ] = Field(131_072, description="the largest PDU we receive")
    network_timeout_seconds: Seconds = Field(
        300, description="a silent association is aborted after this; scanners pause between series"
    )
    receivers: Annotated[
        int, Field(strict=True, ge=1, le=16), Allowed("a whole number from 1 to 16")
    ] = Field(1, description="receive processes that share the port")
    accept_private_sop_classes: Switch = Field(
        default=True, description="take and keep objects of private and unknown storage SOP classes"
    )


class Storage(Section):
    """Where bytes and facts are kept."""

    directory: Folder = Field(
        Path("./data"), description="files and, without `database`, the catalogue"
    )
    database: Annotated[
        str | None,
        Field(strict=True, pattern=r"\A(sqlite:///|postgresql\+psycopg://)."),
        Allowed("sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME"),
    ] = Field(None, description="the catalogue; without it an SQLite file in `directory`")
    minimum_free_gib: Amount = Field(
        5, description="with less free disk than this, C-STORE answers 0xA700 (out of resources)"
    )


class Web(Section):
    """The web port: health, metrics, status."""

    host: Host = Field("127.0.0.1", description="the address to listen on")
    port: Port = Field(8080, description="the port to listen on")


class Retention(Section):
    """How long received instances stay; results and vectors always stay."""

    days: Amount = Field(30, description="sources older than this go, when nothing waits for them")
    free_gib: Amount = Field(
        10,
        description="with less free disk than this, finished sources go before their time; "
        "without it twice storage.minimum_free_gib",
    )


class Results(Section):
    """What goes into the result objects."""

    not_for_diagnosis: Switch = Field(
        default=True, description="every result says that it is not for diagnostic use"
    )
    report_not_analysed: Switch = Field(
        default=True, description="a series that a model refuses gives a report that says why"
    )


class Inference(Section):
    """How models are run."""

    workers: Annotated[
        int, Field(strict=True, ge=1, le=64), Allowed("a whole number from 1 to 64")
    ] = Field(1, description="infer processes; one for each GPU, or one on the CPU")
    maximum_attempts: Count = Field(3, description="a job that failed this often is given up")
    first_retry_seconds: Seconds = Field(
        30, description="the wait after the first failure; it doubles"
    )
    maximum_retry_seconds: Seconds = Field(900, description="the longest wait between two attempts")
    lease_seconds: Seconds = Field(60, description="a worker silent for this long has lost its job")
    read_ahead: Switch = Field(
        default=True,
        description="the next study is read while one is computed, where memory allows; "
        "not with maximum_attempts = 1",
    )
    memory_gib: Annotated[
        float | None, Field(strict=True, ge=1, allow_inf_nan=False), Allowed("a number, 1 or more")
    ] = Field(
        None,
        description="an analysis that wants more memory fails; without it, no limit, and large "
        "networks are faster on a processor, as freed memory is used again",
    )
    device: Annotated[
        str,
        Field(strict=True, pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$"),
        Allowed("auto, cpu, cuda or cuda:N"),
    ] = Field("auto", description="where models run; auto is the first GPU, or else the CPU")
    models_gib: Annotated[
        float | None, Field(strict=True, gt=0, allow_inf_nan=False), Allowed("a number above 0")
    ] = Field(
        None,
        description="memory of the device for loaded models and one analysis: the least recently "
        "used model is unloaded; without it, all that the device has",
    )


class Deliveries(Section):
    """How results reach their destinations."""

    first_retry_seconds: Seconds = Field(
        10, description="the wait after the first failure; it doubles"
    )
    maximum_retry_seconds: Seconds = Field(
        3600, description="the longest wait between two attempts"
    )
    give_up_after_days: Amount = Field(
        7, description="an object that is this long undelivered is given up"
    )
    lease_seconds: Seconds = Field(
        30, description="a sender silent for this long has lost its objects"
    )


class Log(Section):
    """The node's log: one JSON object a line."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Allowed("debug, info, warning or error")
    ] = Field("info", description="the least severe events that are written")
    file: Annotated[Path | None, Allowed("a path")] = Field(
        None, description="where to append the events; without it, standard error"
    )


class CompletionKeys(Section):
    """When a series or a study is complete."""

    kind: Name = Field("quiet_period", description="a file in service/triggers")
    seconds: Seconds = Field(
        30, description="a series is complete when nothing came for it this long"
    )
    study_seconds: Seconds = Field(
        60,
        description="a study is complete when nothing came for it this long; best waits for it",
    )


class DestinationKeys(Section):
    """Where results go."""

    name: Name = Field(description="what routes call it")
    kind: Name = Field(description="a file in service/destinations")
    results: Annotated[tuple[Name, ...], Field(min_length=1), Allowed("a list of result kinds")] = (
        Field(("segmentation", "measurement_report"), description="the result kinds it gets")
    )


class ModelKeys(Section):
    """A model."""

    name: Name = Field(description="what routes call it")
    kind: Name = Field(description="a file in inference/models")
    deadline_seconds: Seconds = Field(600, description="an analysis that takes longer is ended")


class FileModelKeys(ModelKeys):
    """A model that comes as files, with a sidecar beside them."""

    path: Folder = Field(description="the model's folder or file; its sidecar is PATH.toml")
    trust: Annotated[Literal["strict", "trusted"], Allowed("strict or trusted")] = Field(
        "strict",
        description="strict: only what a static check allows; trusted: files approved by --trust",
    )


class RouteKeys(Section):
    """Which models run on which series, and where their results go."""

    name: Name = Field(description="what status and explain call it")
    match: Annotated[
        dict[str, Any],
        Allowed("a table: KEYWORD = value, list of values, or {pattern=..., min=..., max=...}"),
    ] = Field({}, description="all of these must hold; empty: every series")
    models: Annotated[
        tuple[Name, ...], Field(min_length=1), Allowed("a list of names of models")
    ] = Field(description="the models that run")
    destinations: Annotated[tuple[Name, ...], Allowed("a list of names of destinations")] = Field(
        (), description="where the results go; empty: they are kept"
    )
    priority: Annotated[
        Literal["routine", "urgent", "stat"], Allowed("routine, urgent or stat")
    ] = Field("routine", description="jobs of a higher one are claimed first")
    select: Annotated[Literal["each", "best"], Allowed("each or best")] = Field(
        "each", description="each matching series, or one series of the study, by `prefer`"
    )
    prefer: Annotated[tuple[str, ...], Allowed("a list of " + ", ".join(PREFERENCES))] = Field(
        DEFAULT,
        description="only with select = best: what decides between series, the first first",
    )
    minimum_instances: Count = Field(
        1, description="series with fewer instances are set aside, with that reason"
    )


SECTIONS: dict[str, type[Section]] = {
    "application_entity": ApplicationEntity,
    "storage": Storage,
    "web": Web,
    "completion": CompletionKeys,
    "retention": Retention,
    "results": Results,
    "inference": Inference,
    "deliveries": Deliveries,
    "log": Log,
}
"""The tables of the configuration."""

LISTS: dict[str, type[Section]] = {
    "destinations": DestinationKeys,
    "models": ModelKeys,
    "routes": RouteKeys,
}
"""The lists of tables of the configuration."""
