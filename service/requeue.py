"""What was analysed, or failed, is analysed again; its results replace the earlier ones."""

from datetime import UTC, datetime

from service import catalogue
from service.config import Configuration
from service.exits import SUCCESS, CommandError, UsageError
from storage.queue import Queue


def requeue(configuration: Configuration, *, study: str | None, model: str | None) -> int:
    """Put the jobs of a study, or without one all that failed, back into the queue."""
    names = [known.name for known in configuration.models]
    if model is not None and model not in names:
        allowed = ", ".join(names) or "none is configured"
        raise UsageError(f"--model: {model!r} is not a model; allowed: {allowed}")
    with catalogue.opened(configuration) as database:
        count = Queue(database).requeue(
            study=study, failed=study is None, model=model, now=datetime.now(UTC)
        )
    if study is not None and count == 0:
        raise CommandError(f"{study}: no finished or failed analysis of this study; see status")
    print(f"{count} {'analysis is' if count == 1 else 'analyses are'} waiting again")
    return SUCCESS
