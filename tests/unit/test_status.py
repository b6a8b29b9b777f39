"""The tables of `status`, from an overview made by hand.

Not covered: how the overview is read (contracts/test_storage_catalog), the JSON document
(integration/test_cli and what uses it).
"""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from service import config, status
from storage.overview import Outcome, Overview, SeriesOverview, StudyOverview
from storage.records import Effort, SeriesState

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def series(number: str | None) -> SeriesOverview:
    return SeriesOverview(
        series_id=1,
        series_instance_uid=f"1.2.3.{number}",
        modality="CT",
        state=SeriesState.RECEIVING,
        reason=None,
        instances=1,
        conflicts=0,
        first_received_at=NOW,
        last_received_at=NOW,
        attributes={} if number is None else {"SeriesNumber": (number,)},
        outcomes=(),
    )


def shown(numbers: Sequence[str | None], *, studies: int = 1) -> str:
    study = StudyOverview(
        study_instance_uid="1.2.3", last_received_at=NOW, series=tuple(map(series, numbers))
    )
    overview = Overview(
        instances=132, waiting=0, running=0, failed=0, studies=(study,) * studies, quarantined=()
    )
    console = Console(file=io.StringIO(), width=80)
    configuration = config.parse("", file=Path("node.toml"))
    status.show(overview, console, configuration, now=NOW, identifiers=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("until", "said"), [(1, True), (-1, False), (None, False)])
def test_it_says_which_job_is_read_ahead(until: int | None, *, said: bool) -> None:
    waiting = Outcome(
        job_id=1, routes=("chest",), model="lungs", version="1.0.0", state="waiting", verdict=None,
        reason=None, why=None, generation=1, attempts=0, due_at=NOW, started_at=None,
        finished_at=None, results=(), deliveries=(),
        reserved_until=None if until is None else NOW + timedelta(seconds=until),
    )  # fmt: skip
    words = status._outcome_words(waiting, now=NOW)
    assert ("comes next, due" in words) is said
    assert ("waits for a worker" in words) is not said


TOOK = "6.2 s in bfloat16 on cpu, 1.3 GB"


@pytest.mark.parametrize(("state", "said"), [("done", True), ("failed", False), ("running", False)])
def test_it_says_what_a_model_took_when_it_is_done(state: str, *, said: bool) -> None:
    effort = Effort(device="cpu", arithmetic="bfloat16", peak_bytes=1_300_000_000, seconds=6.2)
    outcome = Outcome(
        job_id=1, routes=("chest",), model="lungs", version="1.0.0", state=state, verdict=None,
        reason=None, why=None, generation=1, attempts=1, due_at=NOW, started_at=NOW,
        finished_at=NOW, results=(), deliveries=(), effort=effort,
    )  # fmt: skip
    assert (TOOK in status._outcome_words(outcome, now=NOW)) is said


def test_series_are_listed_by_number_and_without_one_last() -> None:
    lines = shown(["999", None, "8", "10"]).splitlines()
    first = [line.split()[0] for line in lines if "receiving" in line]
    assert first == ["8", "10", "999", "…3.None"]


@pytest.mark.parametrize(("studies", "said"), [(1, False), (status.LATEST, True)])
def test_it_says_when_it_shows_only_the_latest(studies: int, said: bool) -> None:
    first, second, *_ = shown(["1"], studies=studies).splitlines()
    assert first == "Hounsfield  132 instances · 0 waiting · 0 running · 0 failed"
    assert ("The latest 50 studies" in second) is said
