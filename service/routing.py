"""Every series gets a decision with its reason from every route; nothing here reads or waits.

A route runs its models on each series that matches, or on the one of the study that is best for the
model. What a series does not get a job for is said as a disposition, so that nothing ends unseen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from service import attributes, selection
from service.config import Model, Route
from service.criteria import Criterion
from service.selection import Selection
from storage.arrivals import combined
from storage.records import Disposition, JobRequest, Priority, SeriesArrival, SeriesState

NOT_ANALYSED = "not_analysed"
WAITING = "waiting"
URGENCY: Mapping[Priority, int] = {Priority.STAT: 0, Priority.URGENT: 1, Priority.ROUTINE: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDecision:
    """What one route says of a series. `models`, `destinations`: empty unless it matches."""

    route: str
    matches: bool
    reason: str
    models: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDecision:
    """What all routes say of one series, and what follows."""

    arrival: SeriesArrival
    decisions: tuple[RouteDecision, ...]
    jobs: tuple[JobRequest, ...]
    dispositions: tuple[Disposition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDecision:
    """What the routes that choose the best series say of the series of a study.

    `decisions`: for each series, in the order given, the decision of each of those routes.
    """

    decisions: Mapping[int, tuple[RouteDecision, ...]]
    jobs: tuple[JobRequest, ...]
    dispositions: tuple[Disposition, ...]


def decide_series(arrival: SeriesArrival, routes: Sequence[Route]) -> SeriesDecision:
    """The decision on a complete series; a route that chooses waits for the whole study."""
    decisions = tuple(_decide(arrival, route) for route in routes)
    matching = [route for route, said in zip(routes, decisions, strict=True) if said.matches]
    jobs = _merged(
        _job(arrival, route, model, reason=f"route {route.name!r}: {_match_words(route)}")
        for route in matching
        for model in route.models
        if not route.best
    )
    waiting = tuple(
        _disposition(arrival, state=WAITING, route=route, model=model, reason=_waits(route))
        for route in matching
        for model in route.models
        if route.best
    )
    unwanted = () if matching else (_unwanted(arrival, decisions),)
    return SeriesDecision(
        arrival=arrival, decisions=decisions, jobs=jobs, dispositions=waiting + unwanted
    )


def decide_study(arrivals: Sequence[SeriesArrival], routes: Sequence[Route]) -> StudyDecision:
    """The decision of every route that chooses the best series of a study."""
    ordered = sorted(arrivals, key=lambda arrival: arrival.series_instance_uid)
    chosen = [
        _choose(ordered, route, model) for route in routes if route.best for model in route.models
    ]
    return StudyDecision(
        decisions={
            arrival.series_id: _choices(arrival, routes=routes, chosen=chosen)
            for arrival in arrivals
        },
        jobs=tuple(choice.job for choice in chosen if choice.job is not None),
        dispositions=tuple(each for choice in chosen for each in choice.dispositions),
    )


def decide(
    arrivals: Sequence[SeriesArrival], routes: Sequence[Route]
) -> tuple[SeriesDecision, ...]:
    """What happens to the series of one study once it is complete."""
    study = decide_study(arrivals, routes)
    return tuple(_settled(decide_series(arrival, routes), study) for arrival in arrivals)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """The series of a study that one route chose for one model."""

    route: Route
    model: Model
    selection: Selection
    job: JobRequest | None
    dispositions: tuple[Disposition, ...]


def _decide(arrival: SeriesArrival, route: Route) -> RouteDecision:
    against = _against(arrival, route)
    if against is not None:
        return RouteDecision(route=route.name, matches=False, reason=against)
    return RouteDecision(
        route=route.name,
        matches=True,
        reason=_waits(route) if route.best else _match_words(route),
        models=tuple(model.name for model in route.models),
        destinations=route.destinations,
    )


def _against(arrival: SeriesArrival, route: Route) -> str | None:
    if arrival.own_result:
        return "one of our own results, come back: never an input"
    unusable = _unusable(arrival)
    if unusable is not None:
        return unusable
    missed = [_missed(arrival, wish) for wish in route.match if not _holds(arrival, wish)]
    if missed:
        return "; ".join(missed)
    if not route.best and attributes.images(arrival) < route.minimum_instances:
        least = route.minimum_instances
        return f"{attributes.counted(arrival)}, the route wants at least {least}"
    return None


def _unusable(arrival: SeriesArrival) -> str | None:
    """Why no model may see the series, whatever the routes want.

    One whose bytes are gone altogether has not changed since it was analysed: its job stands.
    """
    if arrival.state is SeriesState.QUARANTINED:
        return "quarantined: it cannot be read"
    if arrival.instances == 0:
        return "each of its instances contradicts one received before under the same UID"
    if 0 < arrival.forgotten < arrival.instances:
        gone = f"{arrival.forgotten} of its {arrival.instances} instances"
        return f"the bytes of {gone} were deleted by retention; send the whole series again"
    return None


def _holds(arrival: SeriesArrival, wish: Criterion) -> bool:
    return wish.matches(attributes.values(arrival, wish.keyword))


def _missed(arrival: SeriesArrival, wish: Criterion) -> str:
    found = attributes.values(arrival, wish.keyword)
    if not found:
        return f"{wish.keyword} is absent, the route wants {wish}"
    if wish.keyword in attributes.IDENTIFYING:
        return f"{wish.keyword} is not what the route wants"
    return f"{wish.keyword} is {', '.join(found)}, the route wants {wish}"


def _match_words(route: Route) -> str:
    if not route.match:
        return "every series matches"
    wishes = (
        wish.keyword if wish.keyword in attributes.IDENTIFYING else f"{wish.keyword} is {wish}"
        for wish in route.match
    )
    return "matches: " + ", ".join(wishes)


def _waits(route: Route) -> str:
    return f"{_match_words(route)}; the best series is chosen when the study is complete"


def _unwanted(arrival: SeriesArrival, decisions: Sequence[RouteDecision]) -> Disposition:
    reasons = dict.fromkeys(f"route {said.route!r}: {said.reason}" for said in decisions)
    why = f"no route wants it: {'; '.join(reasons)}" if reasons else "no route is configured"
    own = arrival.own_result or _unusable(arrival) is not None
    return Disposition(
        series_id=arrival.series_id,
        state=NOT_ANALYSED,
        route=None,
        model=None,
        reason=decisions[0].reason if own and decisions else why,
    )


def _job(arrival: SeriesArrival, route: Route, model: Model, *, reason: str) -> JobRequest:
    study, series = arrival.study_instance_uid, arrival.series_instance_uid
    return JobRequest(
        scope=f"study {study} {route.name}" if route.best else f"series {study} {series}",
        series_id=arrival.series_id,
        fingerprint=arrival.fingerprint,
        model=model.name,
        model_version=model.version,
        configuration=model.digest,
        routes=(route.name,),
        destinations=route.destinations,
        priority=route.priority,
        reason=reason,
    )


def _merged(jobs: Iterable[JobRequest]) -> tuple[JobRequest, ...]:
    """One job for each model, with the destinations of all its routes and the highest priority."""
    by_model: dict[str, JobRequest] = {}
    for job in jobs:
        known = by_model.get(job.model)
        by_model[job.model] = job if known is None else _both(known, job)
    return tuple(by_model.values())


def _both(one: JobRequest, other: JobRequest) -> JobRequest:
    return replace(
        one,
        routes=tuple(dict.fromkeys(one.routes + other.routes)),
        destinations=tuple(dict.fromkeys(one.destinations + other.destinations)),
        priority=min(one.priority, other.priority, key=lambda priority: URGENCY[priority]),
        reason=f"{one.reason}; {other.reason}",
    )


def _disposition(
    arrival: SeriesArrival, *, state: str, route: Route, model: Model, reason: str
) -> Disposition:
    return Disposition(
        series_id=arrival.series_id,
        state=state,
        route=route.name,
        model=model.name,
        reason=reason,
    )


def _choose(arrivals: Sequence[SeriesArrival], route: Route, model: Model) -> _Choice:
    matching = [arrival for arrival in arrivals if _against(arrival, route) is None]
    if model.roles:
        return _gather(matching, route, model)
    selected = selection.select(
        matching,
        wants=selection.wanted(model.requirements),
        prefer=route.prefer,
        minimum=route.minimum_instances,
    )
    best = selected.chosen
    reason = f"route {route.name!r}: {selected.reason}"
    return _Choice(
        route=route,
        model=model,
        selection=selected,
        job=None if best is None else _job(best, route, model, reason=reason),
        dispositions=tuple(
            _disposition(arrival, state=NOT_ANALYSED, route=route, model=model, reason=why)
            for arrival in matching
            if (why := selected.others.get(arrival.series_id)) is not None
        ),
    )


def _gather(matching: Sequence[SeriesArrival], route: Route, model: Model) -> _Choice:
    """The series of a study that a model wants at once; its job is the first one's."""
    gathered = selection.gather(
        matching,
        model.roles,
        wants=selection.wanted(model.requirements),
        prefer=route.prefer,
        minimum=route.minimum_instances,
    )
    job = None
    if gathered.chosen is not None:
        job = replace(
            _job(gathered.chosen, route, model, reason=f"route {route.name!r}: {gathered.reason}"),
            fingerprint=combined(
                {role: each.fingerprint for role, each in gathered.inputs.items()}
            ),
            inputs={role: each.series_id for role, each in gathered.inputs.items()},
        )
    return _Choice(
        route=route,
        model=model,
        selection=gathered,
        job=job,
        dispositions=tuple(
            _disposition(arrival, state=NOT_ANALYSED, route=route, model=model, reason=why)
            for arrival in matching
            if (why := gathered.others.get(arrival.series_id)) is not None
        ),
    )


def _choices(
    arrival: SeriesArrival, *, routes: Sequence[Route], chosen: Sequence[_Choice]
) -> tuple[RouteDecision, ...]:
    return tuple(
        _choice(arrival, route, [choice for choice in chosen if choice.route is route])
        for route in routes
        if route.best
    )


def _choice(arrival: SeriesArrival, route: Route, choices: Sequence[_Choice]) -> RouteDecision:
    against = _against(arrival, route)
    if against is not None:
        return RouteDecision(route=route.name, matches=False, reason=against)
    won = [choice for choice in choices if choice.selection.chosen is arrival]
    said = {choice.model.name: _verdict(arrival, choice.selection) for choice in choices}
    reasons = dict.fromkeys(said.values())
    each = reasons if len(reasons) == 1 else (f"{model}: {why}" for model, why in said.items())
    return RouteDecision(
        route=route.name,
        matches=bool(won),
        reason="; ".join(each),
        models=tuple(choice.model.name for choice in won),
        destinations=route.destinations if won else (),
    )


def _verdict(arrival: SeriesArrival, selected: Selection) -> str:
    if selected.chosen is arrival:
        return selected.reason
    return selected.others[arrival.series_id]


def _settled(series: SeriesDecision, study: StudyDecision) -> SeriesDecision:
    arrival = series.arrival
    choices = {said.route: said for said in study.decisions[arrival.series_id]}
    settled = tuple(each for each in series.dispositions if each.state != WAITING)
    return replace(
        series,
        decisions=tuple(choices.get(said.route, said) for said in series.decisions),
        jobs=series.jobs + tuple(job for job in study.jobs if job.series_id == arrival.series_id),
        dispositions=settled
        + tuple(each for each in study.dispositions if each.series_id == arrival.series_id),
    )
