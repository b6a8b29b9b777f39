"""The status page: tables like those of `hounsfield status`, without script or identifiers."""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from service.metrics import Reading
from storage.overview import Outcome, Overview, SeriesOverview, StudyOverview
from storage.records import Delivery, DeliveryState

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; margin: 2rem auto; max-width: 75rem;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid #d5dbe1; }
th { font-weight: 600; color: #556473; }
code { display: inline-block; font-size: .85em; min-width: 13rem; overflow-wrap: anywhere; }
.bad { color: #a4161a; } .good { color: #1b6e3c; }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The page's Content-Security-Policy: its own style sheet and nothing else."""


def render(reading: Reading, overview: Overview, reasons: Mapping[str, str]) -> str:
    """The page. `reasons`: what keeps the node from being ready."""
    body = [
        f"<h1>Hounsfield {escape(reading.version)}</h1>",
        _readiness(reasons),
        "<h2>Queue</h2>",
        _queue(reading),
        "<h2>Destinations</h2>",
        _destinations(reading),
        f"<h2>Latest studies ({len(overview.studies)})</h2>",
        _studies(overview.studies),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Hounsfield</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>"
    )


def _readiness(reasons: Mapping[str, str]) -> str:
    if not reasons:
        return '<p class="good">Ready.</p>'
    rows = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in reasons.items())
    return f'<p class="bad">Not ready:</p><ul class="bad">{rows}</ul>'


def _queue(reading: Reading) -> str:
    counts = reading.counts
    states = [(state.value, str(number)) for state, number in counts.jobs.items()]
    cells = [
        ("instances", str(counts.instances)),
        *states,
        ("quarantined", str(counts.quarantined)),
    ]
    return _table([name for name, _ in cells], [[escape(value) for _, value in cells]])


def _destinations(reading: Reading) -> str:
    numbers: defaultdict[str, dict[DeliveryState, int]] = defaultdict(dict)
    for (name, state), number in reading.counts.deliveries.items():
        numbers[name][state] = number
    rows = [
        [escape(name), *(str(states.get(state, 0)) for state in DeliveryState)]
        for name, states in sorted(numbers.items())
    ]
    if not rows:
        return "<p>Nothing to send yet.</p>"
    return _table(["destination", *(state.value for state in DeliveryState)], rows)


def _studies(studies: Iterable[StudyOverview]) -> str:
    rows = [
        [_uid(study.study_instance_uid), *_series(series), _result(outcome)]
        for study in studies
        for series in study.series
        for outcome in series.outcomes or (None,)
    ]
    heads = ["study", "series", "modality", "instances", "state", "result"]
    return _table(heads, rows)


def _series(series: SeriesOverview) -> list[str]:
    state = series.state.value + (f": {series.reason}" if series.reason else "")
    return [
        _uid(series.series_instance_uid),
        escape(series.modality),
        str(series.instances),
        escape(state),
    ]


def _result(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    model = f"{outcome.model} {outcome.version or ''}: " if outcome.model else ""
    reason = f", {outcome.reason}" if outcome.reason else ""
    lines = [escape(f"{model}{outcome.state}{reason}"), *map(_delivery, outcome.deliveries)]
    return "<br>".join(lines)


def _delivery(delivery: Delivery) -> str:
    place = f"{delivery.result.kind} to {delivery.destination}: {delivery.state.value}"
    if delivery.last_error is None:
        return escape(place)
    tried = f"{delivery.attempts} attempt{'' if delivery.attempts == 1 else 's'}"
    return escape(f"{place}, {tried}: {delivery.last_error}")


def _uid(uid: str) -> str:
    return f"<code>{escape(uid)}</code>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`rows` hold HTML, `heads` text."""
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
