"""Of the series of a study one is chosen for a model, and for every other it is said why not.

Three steps, each with its words: series that no model can use are set aside; series that have a
fault which others do not have lose to those; the stated preferences decide between the rest, the
first that tells two series apart. What is still equal is decided by the lower series number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service import attributes
from service.preferences import PREFERENCES
from service.sidecar import Role
from storage.records import SeriesArrival, SeriesState

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and .1 to .4, its multi-frame forms
PLANAR = 2  # dimensions
IMAGES = "1.2.840.10008.5.1.4.1.1."
SLICES = tuple(f"{IMAGES}{leaf}." for leaf in ("2", "4", "128", "130"))  # CT, MR, PET and below
FOR_PROCESSING = tuple(f"{IMAGES}1.{leaf}." for leaf in ("1.1", "2.1", "3.1"))  # DX, MG, IO
NO_IMAGES = frozenset(
    {"SR", "KO", "PR", "SEG", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE", "FID", "AU", "ECG", "DOC"}
)
GREY = frozenset({"CT", "MR", "PT", "NM"})
REFORMATTED = ("MPR", "MIP", "MINIP", "MNIP", "VRT", "CPR", "REFORMAT", "PROJECTION", "VOLREN")
FAR = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a model declares that it wants, as far as a header can answer it.

    `planar`: radiographs, ultrasound and photographs, of which the rest is not asked.
    """

    modalities: tuple[str, ...] = ()
    planar: bool = False
    axial: bool = False
    min_slices: int = 1
    max_spacing_mm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """`chosen` with its `reason`; for each other series (by `series_id`) the reason why not.

    `inputs`: for a model that wants several series, each by its role, `chosen` being the first.
    """

    chosen: SeriesArrival | None
    reason: str
    others: Mapping[int, str]
    inputs: Mapping[str, SeriesArrival] = field(default_factory=dict)


Candidate = tuple[SeriesArrival, str | None]
"""A series and the fault it has, in words."""


def wanted(requirements: Mapping[str, object]) -> Wanted:
    """A model's declared requirements, without those that only its images can answer."""
    named, spacing = requirements.get("modalities", ()), requirements.get("max_spacing_mm")
    slices = requirements.get("min_slices", 1)
    modalities = tuple(map(str, named)) if isinstance(named, tuple | list) else ()
    if requirements.get("dimensions") == PLANAR:
        return Wanted(modalities=modalities, planar=True)
    return Wanted(
        modalities=modalities,
        axial=requirements.get("axial") is True,
        min_slices=slices if isinstance(slices, int) else 1,
        max_spacing_mm=float(spacing) if isinstance(spacing, int | float) else None,
    )


def select(
    arrivals: Sequence[SeriesArrival], *, wants: Wanted, prefer: Sequence[str], minimum: int
) -> Selection:
    """The series of a study that a model runs on; `minimum`: the fewest images worth running on."""
    at_least = max(minimum, wants.min_slices)
    aside = {a.series_id: unusable(a, wants=wants, minimum=at_least) for a in arrivals}
    usable = [a for a in arrivals if aside[a.series_id] is None]
    reasons = {series: f"set aside: {why}" for series, why in aside.items() if why is not None}
    if not usable:
        return Selection(chosen=None, reason="no series can be used", others=reasons)
    ranked = sorted(usable, key=lambda a: _rank(a, wants=wants, prefer=prefer))
    best, *losers = ranked
    compare = {a.series_id: _why_better(best, a, wants=wants, prefer=prefer) for a in losers}
    lost = {
        series: f"{attributes.called(best)} was chosen: {why} here"
        for series, why in compare.items()
    }
    return Selection(
        chosen=best,
        reason=_why_chosen(losers, compare=compare, aside=len(reasons)),
        others=reasons | lost,
    )


def gather(
    arrivals: Sequence[SeriesArrival],
    roles: Sequence[Role],
    *,
    wants: Wanted,
    prefer: Sequence[str],
    minimum: int,
) -> Selection:
    """The series of a study that a model wants at once, one for each role; all of them or none.

    A series that a role took is none for the roles after it.
    """
    inputs: dict[str, SeriesArrival] = {}
    others: dict[int, str] = {}
    for role in roles:
        free = [a for a in arrivals if a not in inputs.values() and _plays(a, role)]
        selected = select(free, wants=wants, prefer=prefer, minimum=minimum)
        others |= {series: f"as {role.name} {why}" for series, why in selected.others.items()}
        if selected.chosen is not None:
            inputs[role.name] = selected.chosen
    missing = [role.name for role in roles if role.name not in inputs]
    if missing:
        return _incomplete(arrivals, roles, inputs, missing=missing, others=others)
    return _complete(arrivals, roles, inputs, others=others)


def _plays(arrival: SeriesArrival, role: Role) -> bool:
    return all(wish.matches(attributes.values(arrival, wish.keyword)) for wish in role.match)


def _incomplete(
    arrivals: Sequence[SeriesArrival],
    roles: Sequence[Role],
    inputs: Mapping[str, SeriesArrival],
    *,
    missing: Sequence[str],
    others: Mapping[int, str],
) -> Selection:
    wanted_roles = ", ".join(role.name for role in roles)
    why = f"the model wants {wanted_roles} at once; the study has no {' and no '.join(missing)}"
    taken = {arrival.series_id: f"its {role}, but {why}" for role, arrival in inputs.items()}
    unasked = {arrival.series_id: f"none of its series: {why}" for arrival in arrivals}
    return Selection(chosen=None, reason=why, others=unasked | dict(others) | taken)


def _complete(
    arrivals: Sequence[SeriesArrival],
    roles: Sequence[Role],
    inputs: Mapping[str, SeriesArrival],
    *,
    others: Mapping[int, str],
) -> Selection:
    first, *rest = inputs.items()
    called = ", ".join(f"{role}: {attributes.called(each)}" for role, each in inputs.items())
    names = ", ".join(role.name for role in roles)
    unasked = {arrival.series_id: f"none of {names}" for arrival in arrivals}
    used = {
        arrival.series_id: f"used as its {role}; the result is with {attributes.called(first[1])}"
        for role, arrival in rest
    }
    reasons = unasked | dict(others) | used
    del reasons[first[1].series_id]
    return Selection(chosen=first[1], reason=f"chosen: {called}", others=reasons, inputs=inputs)


def unusable(arrival: SeriesArrival, *, wants: Wanted, minimum: int) -> str | None:
    """Why no model can use a series, or None."""
    if arrival.own_result:
        return "one of our own results"
    if arrival.state is SeriesState.QUARANTINED:
        return "quarantined"
    return _wrong_objects(arrival, wants) or _too_few(arrival, minimum)


def fault(arrival: SeriesArrival, *, wants: Wanted) -> tuple[int, str]:
    """How serious a fault of a series is for a model (0: none), and its words."""
    if wants.planar:
        return _fault_of_pictures(arrival)
    distance = attributes.slice_distance(arrival)
    if wants.axial and attributes.axial(arrival) is False:
        return 3, "slices that are not axial"
    if wants.max_spacing_mm is not None and (distance or 0) > wants.max_spacing_mm:
        limit = f"the model takes at most {wants.max_spacing_mm:g} mm"
        return 2, f"slices {distance:g} mm apart ({limit})"
    if _derived(arrival):
        return 1, "derived or reformatted images"
    return 0, "no fault"


def _fault_of_pictures(arrival: SeriesArrival) -> tuple[int, str]:
    """Radiographs are mostly derived from what the detector gave: that is no fault of theirs."""
    if _below(arrival, f"{SECONDARY_CAPTURE}."):
        return 2, "secondary captures"
    if _below(arrival, FOR_PROCESSING):
        return 1, "images for processing, not for presentation"
    return 0, "no fault"


def _below(arrival: SeriesArrival, prefixes: str | tuple[str, ...]) -> bool:
    """Whether the SOP class is one of those, each of which ends with a point, or below it."""
    return f"{attributes.text(arrival, 'SOPClassUID') or ''}.".startswith(prefixes)


def _wrong_objects(arrival: SeriesArrival, wants: Wanted) -> str | None:
    if arrival.modality in NO_IMAGES:
        return f"no images but {arrival.modality} objects"
    if wants.modalities and arrival.modality not in wants.modalities:
        return f"{arrival.modality or 'no stated modality'}, not {' or '.join(wants.modalities)}"
    if wants.planar:
        return "slices, not planar images" if _below(arrival, SLICES) else None
    return _no_slices(arrival)


def _no_slices(arrival: SeriesArrival) -> str | None:
    kinds = {value.upper() for value in attributes.values(arrival, "ImageType")}
    if "LOCALIZER" in kinds:
        return "a localizer"
    if _below(arrival, f"{SECONDARY_CAPTURE}."):
        return "secondary captures"
    if "SCREEN SAVE" in kinds or _coloured(arrival):
        return "pictures of a screen"
    return None


def _coloured(arrival: SeriesArrival) -> bool:
    """Whether a scanner that measures grey values gives colours: a rendering or a report."""
    photometric = attributes.text(arrival, "PhotometricInterpretation") or "MONOCHROME2"
    return arrival.modality in GREY and not photometric.upper().startswith("MONOCHROME")


def _too_few(arrival: SeriesArrival, minimum: int) -> str | None:
    if attributes.images(arrival) >= minimum:
        return None
    return f"{attributes.counted(arrival)}, at least {minimum} are needed"


def _derived(arrival: SeriesArrival) -> bool:
    kinds = [value.upper() for value in attributes.values(arrival, "ImageType")]
    reformatted = any(word in kind.split() for kind in kinds for word in REFORMATTED)
    return kinds[:1] == ["DERIVED"] or reformatted or any(k.startswith("REFORMAT") for k in kinds)


def _rank(
    arrival: SeriesArrival, *, wants: Wanted, prefer: Sequence[str]
) -> tuple[tuple[float, ...], str]:
    measures = [PREFERENCES[name].measure(arrival) for name in prefer]
    seriousness, _ = fault(arrival, wants=wants)
    return (seriousness, *measures, _series_number(arrival)), arrival.series_instance_uid


def _series_number(arrival: SeriesArrival) -> float:
    stated = attributes.number(arrival, "SeriesNumber")
    return FAR if stated is None else stated


def _why_better(
    best: SeriesArrival, other: SeriesArrival, *, wants: Wanted, prefer: Sequence[str]
) -> str:
    """The first thing that tells the two apart: `1.0 mm slices against 5.0 mm slices`."""
    (least, good), (more, bad) = (fault(a, wants=wants) for a in (best, other))
    if least != more:
        return f"{good} against {bad}" if least else bad
    for name in prefer:
        if PREFERENCES[name].measure(best) != PREFERENCES[name].measure(other):
            words: Callable[[SeriesArrival], str] = PREFERENCES[name].words
            return f"{words(best)} against {words(other)}"
    if _series_number(best) != _series_number(other):
        return "equal by every preference, the lower series number against the higher"
    return "equal by every preference, the lower series UID against the higher"


def _why_chosen(losers: Sequence[SeriesArrival], *, compare: Mapping[int, str], aside: int) -> str:
    also = f"; {aside} set aside" if aside else ""
    if not losers:
        return f"chosen: the only series that can be used{also}"
    beaten: dict[str, list[str]] = {}
    for loser in losers:
        beaten.setdefault(compare[loser.series_id], []).append(attributes.numbered(loser))
    against = "; ".join(f"{why} in {' and '.join(which)}" for why, which in beaten.items())
    return f"chosen: {against}{also}"
