"""What the node would do with files, and why, decided by the same functions and without a node."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from service import attributes, header, routing
from service.config import Configuration
from service.exits import SUCCESS, CommandError, UsageError
from service.routing import SeriesDecision
from storage.arrivals import MANUFACTURER, usual
from storage.records import Header, SeriesArrival, SeriesState

PREFIX = slice(128, 132)  # "DICM" (PS3.10 7.1)
META_START = 132
GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"  # (0002,0000) UL, 4 bytes
FIRST_BYTES = 1 << 16
MOST_BYTES = 1 << 24  # of a data set whose indexed elements lie far behind
WHEN = datetime(1970, 1, 1, tzinfo=UTC)  # files were not received; decisions do not look at it


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that is not looked at, and why."""

    path: Path
    reason: str


def explain(configuration: Configuration, paths: Sequence[Path], *, as_json: bool) -> int:
    """Print for every series in the files what every route says of it."""
    headers, skipped = read(paths)
    for each in skipped:
        sys.stderr.write(f"hounsfield: {each.path}: skipped: {each.reason}\n")
    if not headers:
        raise CommandError(f"{', '.join(map(str, paths))}: no DICOM file")
    decided = decisions(configuration, arrivals(headers))
    if as_json:
        print(json.dumps([_element(series) for series in decided], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join((_trigger(configuration), *_by_study(decided))))
    return SUCCESS


def read(paths: Sequence[Path]) -> tuple[list[Header], list[Skipped]]:
    """The headers of all DICOM files at and below the paths, and the files that are none."""
    headers: list[Header] = []
    skipped: list[Skipped] = []
    for path in files(paths):
        try:
            headers.append(file_header(path))
        except ValueError as error:
            skipped.append(Skipped(path=path, reason=str(error)))
    return headers, skipped


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files at and below the paths, each once, in the order of their names."""
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: does not exist; allowed: files and folders")
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in below:
            if file.is_file() and file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def file_header(path: Path) -> Header:
    """The indexed elements of a DICOM file (PS3.10); ValueError says why it is none."""
    with path.open("rb") as file:
        head = file.read(META_START + 12)
        if head[PREFIX] != b"DICM":
            raise ValueError("not a DICOM file")
        if head[META_START:-4] != GROUP_LENGTH:
            raise ValueError("its file meta information has no length")
        meta = file.read(int.from_bytes(head[-4:], "little"))
        syntax = _transfer_syntax(meta)
        data = file.read(FIRST_BYTES)
        scan = header.scan(data, syntax, whole=len(data) < FIRST_BYTES)
        if scan.cut:
            scan = header.scan(data + file.read(MOST_BYTES), syntax, whole=True)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not scan.header.get(keyword):
            raise ValueError(f"its {keyword} is absent")
    return scan.header


def _transfer_syntax(meta: bytes) -> str:
    """The Transfer Syntax UID (0002,0010) in the elements of a file meta information."""
    at = meta.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        raise ValueError("its Transfer Syntax UID is absent")
    length = int.from_bytes(meta[at + 6 : at + 8], "little")
    return meta[at + 8 : at + 8 + length].rstrip(b"\0 ").decode("ascii", "replace")


def arrivals(headers: Sequence[Header]) -> list[SeriesArrival]:
    """The series that these headers make up, by study; a repeated SOP Instance UID counts once."""
    series: defaultdict[tuple[str, str], dict[str, Header]] = defaultdict(dict)
    for each in headers:
        key = (each["StudyInstanceUID"][0], each["SeriesInstanceUID"][0])
        series[key].setdefault(each["SOPInstanceUID"][0], each)
    return [
        _arrival(number, study, uid, tuple(series[study, uid].values()))
        for number, (study, uid) in enumerate(sorted(series))
    ]


def decisions(configuration: Configuration, found: Sequence[SeriesArrival]) -> list[SeriesDecision]:
    """What happens to the series, study by study, once they are complete."""
    studies = groupby(found, key=lambda arrival: arrival.study_instance_uid)
    return [
        decision
        for _, study in studies
        for decision in routing.decide(tuple(study), configuration.routes)
    ]


def _arrival(number: int, study: str, uid: str, headers: Sequence[Header]) -> SeriesArrival:
    usually = usual(headers)
    return SeriesArrival(
        series_id=number,
        study_instance_uid=study,
        series_instance_uid=uid,
        modality=next(iter(usually.get("Modality", ())), ""),
        state=SeriesState.COMPLETE,
        instances=len(headers),
        conflicts=0,
        first_received_at=WHEN,
        last_received_at=WHEN,
        attributes=usually,
        fingerprint="",
        own_result=MANUFACTURER in usually.get("Manufacturer", ()),
    )


def _element(series: SeriesDecision) -> Mapping[str, Any]:
    return {
        "study_instance_uid": series.arrival.study_instance_uid,
        "series_instance_uid": series.arrival.series_instance_uid,
        "modality": series.arrival.modality,
        "instances": series.arrival.instances,
        "decisions": [asdict(decision) for decision in series.decisions],
    }


def _trigger(configuration: Configuration) -> str:
    completion = configuration.completion
    return (
        f"A series is complete {completion.seconds:g} s after its last instance, "
        f"a study {completion.study_seconds:g} s after ({completion.kind})."
    )


def _by_study(decided: Sequence[SeriesDecision]) -> Iterator[str]:
    for study, series in groupby(decided, key=lambda each: each.arrival.study_instance_uid):
        yield f"study {study}"
        yield from map(_words, series)


def _words(series: SeriesDecision) -> str:
    arrival = series.arrival
    count = arrival.instances
    instances = "1 instance" if count == 1 else f"{count} instances"
    title = f"{attributes.called(arrival)}: {arrival.modality}, {instances}"
    lines = [title, f"  {arrival.series_instance_uid}"]
    for said in series.decisions:
        lines.append(f"  route {said.route!r}: {'yes' if said.matches else 'no'}, {said.reason}")
        if said.matches:
            where = ", ".join(said.destinations) or "nowhere, they are kept"
            lines.append(f"    runs {', '.join(said.models)}; results go to {where}")
    return "\n".join(lines if series.decisions else [*lines, "  no route is configured"])
