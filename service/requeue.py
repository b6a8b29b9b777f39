"""What was analysed, or failed, is analysed again; what the routes ask for since is analysed too.

Results of a repeated analysis replace the earlier ones. A study that is there already is routed
again as if it had just come: what was analysed by the same version of a model is not repeated.
"""

from datetime import UTC, datetime

from service import catalogue, routing
from service.config import Configuration, Route
from service.exits import SUCCESS, CommandError, UsageError
from storage.catalog import Catalog
from storage.queue import Queue
from storage.records import JobRequest

UNKNOWN = "no such study; allowed: one that status shows"
NOTHING = "nothing new; status says why"
RESTART = "; a node that was started before its configuration changed has to be restarted"
EARLY = "is still coming in, or changed just now; the node routes it once it is complete"


def requeue(configuration: Configuration, *, study: str | None, model: str | None) -> int:
    """Put the jobs of a study, or without one all that failed, back into the queue."""
    _refuse_unknown(configuration, model)
    with catalogue.opened(configuration) as database:
        count = Queue(database).requeue(
            study=study, failed=study is None, model=model, now=datetime.now(UTC)
        )
    if study is not None and count == 0:
        raise CommandError(f"{study}: {_nothing(model)}; see status")
    print(f"{_counted(count)} waiting again")
    return SUCCESS


def ask_new(configuration: Configuration, *, study: str, model: str | None) -> int:
    """Put into the queue what the routes ask of a study by now, of all models or of one."""
    _refuse_unknown(configuration, model)
    if model is not None and not any(model in _models(route) for route in configuration.routes):
        raise UsageError(f"--model: no route runs {model!r}; allowed: a model that a route names")
    with catalogue.opened(configuration) as database:
        catalog = Catalog(database)
        arrivals = catalog.study(study)
        if not arrivals:
            raise CommandError(f"{study}: {UNKNOWN}")
        decided = routing.decide(arrivals, configuration.routes)
        new = catalog.route_again(
            arrivals,
            [job for each in decided for job in each.jobs if model in (None, job.model)],
            [
                said
                for each in decided
                for said in each.dispositions
                if model is None or said.model in (None, model)
            ],
            datetime.now(UTC),
            model=model,
        )
    if new is None:
        raise CommandError(f"{study}: {EARLY}")
    for job in new:
        print(_line(job, {each.series_id: each.series_instance_uid for each in arrivals}))
    print(f"{_counted(len(new))} new and waiting{RESTART}" if new else NOTHING)
    return SUCCESS


def _refuse_unknown(configuration: Configuration, model: str | None) -> None:
    names = [known.name for known in configuration.models]
    if model is not None and model not in names:
        allowed = ", ".join(names) or "none is configured"
        raise UsageError(f"--model: {model!r} is not a model; allowed: {allowed}")


def _models(route: Route) -> list[str]:
    return [model.name for model in route.models]


def _nothing(model: str | None) -> str:
    if model is None:
        return "no finished or failed analysis of this study"
    return (
        f"no finished or failed analysis of this study by {model}; for a model that came later: "
        f"requeue --study UID --new --model {model}"
    )


def _counted(count: int) -> str:
    return f"{count} {'analysis is' if count == 1 else 'analyses are'}"


def _line(job: JobRequest, uids: dict[int, str]) -> str:
    return f"{job.model}: series {uids[job.series_id]}, {job.reason}"
