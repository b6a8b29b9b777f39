"""`status`: every study, what became of each of its series, and what waits for what since when."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service import approvals, catalogue, model_states
from service.config import Configuration
from service.exits import SUCCESS, CommandError
from storage.catalog import Catalog
from storage.overview import Outcome, Overview, SeriesOverview, StudyOverview
from storage.records import Delivery, DeliveryState, Effort, Header, SeriesState

COLOURS = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "failed": "bold red",
    "quarantined": "bold red",
    "not_analysed": "magenta",
    "receiving": "yellow",
}
LATEST = 50
"""Studies shown in the table; `--json` and `--study` know no limit."""


def print_status(
    configuration: Configuration, *, as_json: bool, study: str | None, identifiers: bool = False
) -> int:
    """Print it; the exit status. `identifiers`: patient name and ID are shown."""
    overview = read(configuration, study=study, latest=None if as_json else LATEST)
    if study is not None and not overview.studies:
        raise CommandError(f"--study {study}: the node has no such study")
    if as_json:
        document = {**as_document(overview), "models": _models_document(configuration)}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return SUCCESS
    for name, reason in model_states.stopped(configuration).items():
        Console().print(Text(f"model {name} is stopped: {reason}", style="bold red"))
    show(overview, Console(), configuration, now=datetime.now(UTC), identifiers=identifiers)
    return SUCCESS


def read(
    configuration: Configuration, *, study: str | None = None, latest: int | None = None
) -> Overview:
    """The overview, from the catalogue as it is now; CommandError where no node has run yet."""
    with catalogue.opened(configuration) as database:
        return Catalog(database).overview(study, latest=latest)


def as_document(overview: Overview) -> dict[str, Any]:
    """The JSON document; it holds no patient identifiers."""
    return {
        "instances": overview.instances,
        "queue": {
            "waiting": overview.waiting,
            "running": overview.running,
            "failed": overview.failed,
        },
        "studies": [
            {
                "study_instance_uid": study.study_instance_uid,
                "series": [_series_document(series) for series in study.series],
            }
            for study in overview.studies
        ],
        "quarantined_objects": [
            {"reason": q.reason, "bytes": q.size, "received_at": q.received_at.isoformat()}
            for q in overview.quarantined
        ],
    }


def _models_document(configuration: Configuration) -> list[dict[str, Any]]:
    """The configured models; of those that come as files digest and licence, as results say it."""
    return [
        {
            "name": model.name,
            "kind": model.kind,
            "version": model.version,
            "digest": approvals.digest_of(artifact.sidecar.files) if artifact else None,
            "licence": artifact.sidecar.licence if artifact else None,
            "trust": model_states.state(configuration, model),
        }
        for model in configuration.models
        for artifact in (model.artifact,)
    ]


def _series_document(series: SeriesOverview) -> dict[str, Any]:
    return {
        "series_instance_uid": series.series_instance_uid,
        "modality": series.modality,
        "instances": series.instances,
        "conflicts": series.conflicts,
        "state": series.state.value,
        "reason": series.reason,
        "outcomes": [_outcome_document(outcome) for outcome in series.outcomes],
    }


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    return {
        "model": outcome.model,
        "version": outcome.version,
        "routes": list(outcome.routes),
        "state": outcome.state,
        "verdict": outcome.verdict.value if outcome.verdict else None,
        "reason": outcome.reason or outcome.why,
        "why": outcome.why,
        "attempts": outcome.attempts,
        "read_ahead_until": outcome.reserved_until and outcome.reserved_until.isoformat(),
        "generation": outcome.generation,
        "device": outcome.effort.device,
        "arithmetic": outcome.effort.arithmetic,
        "peak_bytes": outcome.effort.peak_bytes,
        "model_seconds": outcome.effort.seconds,
        "results": [
            {
                "kind": result.kind,
                "sop_class_uid": result.sop_class_uid,
                "sop_instance_uid": result.sop_instance_uid,
            }
            for result in outcome.results
        ],
        "deliveries": [
            {
                "destination": delivery.destination,
                "kind": delivery.result.kind,
                "sop_instance_uid": delivery.result.sop_instance_uid,
                "state": delivery.state.value,
                "attempts": delivery.attempts,
                "last_error": delivery.last_error,
            }
            for delivery in outcome.deliveries
        ],
    }


def show(
    overview: Overview,
    console: Console,
    configuration: Configuration,
    *,
    now: datetime,
    identifiers: bool,
) -> None:
    """The tables, for an administrator."""
    console.print(_headline(overview))
    for study in overview.studies:
        console.print()
        console.print(_study_line(study, now=now, identifiers=identifiers))
        console.print(Padding(_study_table(study, configuration, now=now), (0, 0, 0, 2)))
    if overview.quarantined:
        console.print()
        console.print(_quarantine_table(overview, now=now))


def _headline(overview: Overview) -> Text:
    line = Text.assemble(
        ("Hounsfield", "bold"),
        f"  {overview.instances} instances · {overview.waiting} waiting"
        f" · {overview.running} running · ",
        (f"{overview.failed} failed", COLOURS["failed"] if overview.failed else ""),
    )
    if len(overview.studies) >= LATEST:
        return line.append(f"\nThe latest {LATEST} studies; --study and --json know all.")
    return line if overview.studies else line.append("\nNothing has been received yet.")


def _study_line(study: StudyOverview, *, now: datetime, identifiers: bool) -> Text:
    attributes = study.series[0].attributes if study.series else {}
    described = [_first(attributes, "StudyDescription"), _first(attributes, "StudyDate")]
    if identifiers:
        described += [_first(attributes, "PatientName"), _first(attributes, "PatientID")]
    words = " · ".join(d for d in described if d)
    return Text.assemble(
        ("Study ", "bold"),
        (study.study_instance_uid, "bold"),
        f"\n  {words}{' · ' if words else ''}last received {ago(study.last_received_at, now=now)}",
    )


def _study_table(study: StudyOverview, configuration: Configuration, *, now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("series", "what", "images"):
        table.add_column(column, no_wrap=column != "what")
    table.add_column("state", no_wrap=True)
    table.add_column("model and reason", ratio=1)
    table.add_column("delivery")
    for series in sorted(study.series, key=_series_number):
        for first, (state, words, sent) in enumerate(_outcome_rows(series, configuration, now=now)):
            identity = _identity(series) if first == 0 else ("", "", "")
            table.add_row(
                *identity, Text(state.replace("_", " "), COLOURS.get(state, "")), words, sent
            )
    return table


def _series_number(series: SeriesOverview) -> tuple[bool, float]:
    """As the scanner counted them; what has no number comes last."""
    stated = _first(series.attributes, "SeriesNumber")
    return (False, float(stated)) if stated.lstrip("-").isdecimal() else (True, 0.0)


def _identity(series: SeriesOverview) -> tuple[str, str, str]:
    number = _first(series.attributes, "SeriesNumber") or "…" + series.series_instance_uid[-6:]
    what = " ".join(
        w for w in (series.modality, _first(series.attributes, "SeriesDescription")) if w
    )
    conflicts = f" (+{series.conflicts} in conflict)" if series.conflicts else ""
    return number, what, f"{series.instances}{conflicts}"


def _outcome_rows(
    series: SeriesOverview, configuration: Configuration, *, now: datetime
) -> Iterator[tuple[str, str, str]]:
    if series.state is SeriesState.QUARANTINED:
        yield "quarantined", series.reason or "", ""
    if series.state is SeriesState.RECEIVING:
        since = ago(series.last_received_at, now=now)
        quiet = f"{configuration.completion.seconds:g}"
        yield "receiving", f"last image {since}; complete after {quiet} s without one", ""
    for outcome in series.outcomes:
        yield outcome.state, _outcome_words(outcome, now=now), _delivery_words(outcome, now=now)


def _outcome_words(outcome: Outcome, *, now: datetime) -> str:
    model = f"{outcome.model} {outcome.version or ''}".strip() if outcome.model else ""
    waits = _waits(outcome, now=now)
    took = _took(outcome.effort) if outcome.state == "done" else ""  # (else of a run before)
    return " · ".join(part for part in (model, waits, outcome.reason or outcome.why, took) if part)


def _took(effort: Effort) -> str:
    """ "6.2 s in bfloat16 on cpu, 1.3 GB" of a model that ran."""
    if effort.device is None or effort.seconds is None:
        return ""
    memory = f", {effort.peak_bytes / 1e9:.1f} GB" if effort.peak_bytes else ""
    arithmetic = f" in {effort.arithmetic}" if effort.arithmetic else ""
    return f"{effort.seconds:.1f} s{arithmetic} on {effort.device}{memory}"


def _waits(outcome: Outcome, *, now: datetime) -> str:
    if outcome.state == "running" and outcome.started_at is not None:
        return f"attempt {outcome.attempts}, started {ago(outcome.started_at, now=now)}"
    if outcome.state == "waiting" and outcome.due_at is not None:
        if outcome.due_at > now:
            return f"attempt {outcome.attempts + 1} {ago(outcome.due_at, now=now)}"
        if _is_read_ahead(outcome, now=now):
            return f"comes next, due {ago(outcome.due_at, now=now)}"
        return f"waits for a worker, due {ago(outcome.due_at, now=now)}"
    return ""


def _is_read_ahead(outcome: Outcome, *, now: datetime) -> bool:
    return outcome.reserved_until is not None and outcome.reserved_until > now


def _delivery_words(outcome: Outcome, *, now: datetime) -> str:
    by_destination: dict[str, list[Delivery]] = {}
    for delivery in outcome.deliveries:
        by_destination.setdefault(delivery.destination, []).append(delivery)
    return "\n".join(
        f"{name}: {_deliveries(deliveries, now=now)}" for name, deliveries in by_destination.items()
    )


def _deliveries(deliveries: list[Delivery], *, now: datetime) -> str:
    arrived = [d for d in deliveries if d.state in (DeliveryState.SENT, DeliveryState.COMMITTED)]
    if len(arrived) == len(deliveries):
        return f"{len(arrived)} delivered"
    open_ = next(d for d in deliveries if d not in arrived)
    words = f"{len(arrived)} of {len(deliveries)} delivered, {open_.state.value}"
    if open_.state is DeliveryState.DUE:
        words += f" since {ago(open_.created_at, now=now)}"
    if open_.attempts:
        plural = "" if open_.attempts == 1 else "s"
        words += f", {open_.attempts} attempt{plural}, next {ago(open_.due_at, now=now)}"
    return words + (f": {open_.last_error}" if open_.last_error else "")


def _quarantine_table(overview: Overview, *, now: datetime) -> Table:
    table = Table(title="Quarantined objects", title_justify="left", box=None, header_style="dim")
    for column in ("received", "from", "bytes", "why"):
        table.add_column(column)
    for q in overview.quarantined:
        table.add_row(ago(q.received_at, now=now), q.calling_ae_title, str(q.size), q.reason)
    return table


def ago(moment: datetime, *, now: datetime) -> str:
    """A moment as a person says it: "12 s ago", "in 3 min", "2 days ago"."""
    seconds = (now - moment).total_seconds()
    size = abs(seconds)
    if size < 100:
        amount = f"{size:.0f} s"
    elif size < 100 * 60:
        amount = f"{size / 60:.0f} min"
    elif size < 48 * 3600:
        amount = f"{size / 3600:.0f} h"
    else:
        amount = f"{size / 86400:.0f} days"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"


def _first(attributes: Header, keyword: str) -> str:
    return next(iter(attributes.get(keyword, ())), "")
