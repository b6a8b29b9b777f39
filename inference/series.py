"""Which frames of a series form its stack, and for every other instance the reason why not.

Rules, in this order:

1. Only the slice images of CT, MR and PET are stacked (SLICE_IMAGES); anything else is set aside.
2. Localizers, projections, renderings (Image Type, PS3.3 C.7.6.1.1.2) and colour images are set
   aside.
3. Images without position, orientation or pixel spacing are set aside.
4. Derived images are set aside when there are originals; a wholly derived series is read, noted.
5. Images of one orientation (within 1e-3), matrix, pixel spacing and Frame of Reference belong
   together; the group with more than twice the images of any other is the stack, else refusal.

A series that names several patients or studies is refused before any of this.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from inference.attributes import text
from inference.errors import InputRefused
from inference.frames import Frame, Unsuitable, frames_of

ORIENTATION_TOLERANCE = 1e-3  # largest difference of a direction cosine inside one stack
SPACING_TOLERANCE = 1e-4  # relative difference of Pixel Spacing inside one stack
DOMINANCE = 2  # the stack has more than this many times the images of any other


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An instance, or some of its frames, that is not part of the stack, and why."""

    sop_instance_uid: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The frames of the stack in the order received, what is not among them, and remarks."""

    frames: tuple[Frame, ...]
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The chosen instances, each once."""
        return tuple({id(frame.dataset): frame.dataset for frame in self.frames}.values())


def choose(datasets: Sequence[Dataset]) -> Chosen:
    """The frames that belong together by the rules above, and every other instance with a reason.

    Raises InputRefused when nothing is left or no group is clearly the stack.
    """
    refuse_strangers(datasets)
    frames: list[Frame] = []
    aside: list[SetAside] = []
    for dataset in datasets:
        try:
            frames += frames_of(dataset)
        except Unsuitable as reason:
            aside.append(SetAside(sop_instance_uid=_uid(dataset), reason=str(reason)))
    if not frames:
        raise InputRefused(_nothing(aside))
    originals, derived, notes = _originals(frames)
    aside += _aside(derived, "derived, beside original images")
    chosen, others = _stack(originals)
    return Chosen(
        frames=tuple(chosen), set_aside=_merged([*aside, *others]), notes=notes + _remarks(chosen)
    )


def one_acquisition(chosen: Chosen, problem: str) -> Chosen:
    """Only the acquisition with clearly the most images; `problem` is why all of them do not fit.

    Raises InputRefused with the problem when there is only one acquisition, or none is largest.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Frame]] = {}
    for frame in chosen.frames:
        groups.setdefault(frame.acquisition, []).append(frame)
    if len(groups) == 1:
        raise InputRefused(problem)
    differing = _differing(list(groups))
    ordered = sorted(groups.values(), key=len, reverse=True)
    if not _dominates(ordered):
        raise InputRefused(
            f"{problem}; the images differ in {differing} ({_counts(ordered)} images) "
            "and none of these groups is clearly the one meant"
        )
    rest = [frame for group in ordered[1:] for frame in group]
    aside = _aside(rest, f"another {differing} than the stack")
    return replace(chosen, frames=tuple(ordered[0]), set_aside=_merged([*chosen.set_aside, *aside]))


def _uid(dataset: Dataset) -> str:
    return text(dataset, "SOPInstanceUID") or ""


STRANGERS = (("PatientID", "patients"), ("StudyInstanceUID", "studies"))


def refuse_strangers(datasets: Sequence[Dataset]) -> None:
    """Raise InputRefused when the instances name several patients or studies."""
    for keyword, what in STRANGERS:
        count = len({text(dataset, keyword) for dataset in datasets})
        if count > 1:
            raise InputRefused(f"the instances name {count} different {what}")


def _nothing(aside: Sequence[SetAside]) -> str:
    if not aside:
        return "no instances"
    counts: dict[str, int] = {}
    for item in aside:
        counts[item.reason] = counts.get(item.reason, 0) + 1
    reasons = "; ".join(f"{count} x {reason}" for reason, count in counts.items())
    return f"no slice images: {reasons}"


def _originals(frames: list[Frame]) -> tuple[list[Frame], list[Frame], tuple[str, ...]]:
    originals = [frame for frame in frames if not frame.derived]
    if not originals:
        return frames, [], ("all images are derived (Image Type)",)
    return originals, [frame for frame in frames if frame.derived], ()


def _aside(frames: Iterable[Frame], reason: str) -> list[SetAside]:
    return [SetAside(sop_instance_uid=frame.sop_instance_uid, reason=reason) for frame in frames]


def _merged(aside: Iterable[SetAside]) -> tuple[SetAside, ...]:
    """One entry for the many frames of an instance that share a reason."""
    return tuple(dict.fromkeys(aside))


def _stack(frames: list[Frame]) -> tuple[list[Frame], list[SetAside]]:
    _refuse_scattered_frames_of_reference(frames)
    groups = sorted(_alike(frames), key=len, reverse=True)
    if not _dominates(groups):
        differing = _traits_that_differ([group[0] for group in groups])
        raise InputRefused(
            f"the series mixes {len(groups)} stacks of {_counts(groups)} images that differ in "
            f"{differing}, and none is clearly the one meant"
        )
    aside: list[SetAside] = []
    for group in groups[1:]:
        differing = _traits_that_differ([groups[0][0], group[0]])
        aside += _aside(group, f"another {differing} than the stack")
    return groups[0], aside


def _refuse_scattered_frames_of_reference(frames: Sequence[Frame]) -> None:
    count = len({frame.frame_of_reference_uid for frame in frames})
    if count > max(2, len(frames) / 2):
        raise InputRefused(
            f"the {len(frames)} images name {count} different Frames of Reference: positions in "
            "different frames cannot be combined (a de-identification that replaces this UID on "
            "every image does this)"
        )


def _alike(frames: Iterable[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if not _differences(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return groups


def _differences(first: Frame, other: Frame) -> tuple[str, ...]:
    pairs = zip(first.orientation, other.orientation, strict=True)
    turned = max(abs(a - b) for a, b in pairs) > ORIENTATION_TOLERANCE
    pitches = zip(first.pixel_spacing, other.pixel_spacing, strict=True)
    scaled = max(abs(a / b - 1) for a, b in pitches) > SPACING_TOLERANCE
    traits = {
        "orientation": turned,
        "matrix": (first.rows, first.columns) != (other.rows, other.columns),
        "pixel spacing": scaled,
        "Frame of Reference": first.frame_of_reference_uid != other.frame_of_reference_uid,
    }
    return tuple(trait for trait, differs in traits.items() if differs)


def _traits_that_differ(frames: Sequence[Frame]) -> str:
    found = [trait for other in frames[1:] for trait in _differences(frames[0], other)]
    return ", ".join(dict.fromkeys(found))


def _dominates(ordered: Sequence[Sequence[Frame]]) -> bool:
    return len(ordered) == 1 or len(ordered[0]) > DOMINANCE * len(ordered[1])


def _counts(groups: Sequence[Sequence[Frame]]) -> str:
    shown = [str(len(group)) for group in groups[:4]]
    return " and ".join(shown) + (" and so on" if len(groups) > len(shown) else "")


def _differing(keys: Sequence[tuple[tuple[str, str], ...]]) -> str:
    columns = zip(*keys, strict=True)
    return ", ".join(column[0][0] for column in columns if len(set(column)) > 1)


def _remarks(frames: Sequence[Frame]) -> tuple[str, ...]:
    nowhere = frames[0].frame_of_reference_uid is None
    lossy = any(text(frame.dataset, "LossyImageCompression") == "01" for frame in frames)
    remarks = {
        "no Frame of Reference UID": nowhere,
        "lossy compression (0028,2110) was applied before the images came": lossy,
    }
    return tuple(remark for remark, applies in remarks.items() if applies)
