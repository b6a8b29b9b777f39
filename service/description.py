"""The feature vectors of files that the node never received, made as for those that it did."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service import explain
from service.analysis import Analyst
from service.config import Configuration
from service.exits import CommandError
from service.node import child_setup
from service.tasks import Analysed, Failed, Task, Unreadable
from storage.records import Header, SeriesArrival, Vector
from storage.registration import patient_key

Member = tuple[Path, Header]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A series of files. `patient`: as in `StoredVector`."""

    study_instance_uid: str
    modality: str
    patient: str
    vectors: tuple[Vector, ...]


def described(configuration: Configuration, path: Path) -> tuple[Description, ...]:
    """Each series at and below `path` that a route gives to a model.

    Without such a route the first model looks at every series.
    """
    series = _series(path)
    arrivals = explain.arrivals([header for members in series.values() for _, header in members])
    decided = explain.decisions(configuration, arrivals)
    wanted = [(each.arrival, each.jobs[0].model) for each in decided if each.jobs]
    if not wanted:
        wanted = [(each, model.name) for each in arrivals for model in configuration.models[:1]]
    analyst = Analyst(child_setup(configuration))
    descriptions = [
        _description(analyst, arrival, model, series[arrival.series_instance_uid])
        for arrival, model in wanted
    ]
    found = tuple(each for each in descriptions if each.vectors)
    if not found:
        raise CommandError(f"{path}: no series of which a configured model makes feature vectors")
    return found


def _series(path: Path) -> dict[str, list[Member]]:
    """The DICOM files at and below `path`, by Series Instance UID."""
    members: defaultdict[str, list[Member]] = defaultdict(list)
    for file in explain.files([path]):
        try:
            header = explain.file_header(file)
        except ValueError:  # not a DICOM file: a folder may hold others
            continue
        members[header["SeriesInstanceUID"][0]].append((file, header))
    if not members:
        raise CommandError(f"{path}: no DICOM file")
    return members


def _description(
    analyst: Analyst, arrival: SeriesArrival, model: str, members: Sequence[Member]
) -> Description:
    paths = tuple(file for file, _ in members)
    task = Task(model=model, paths=paths, fingerprint="", generation=1, predecessor=None)
    match analyst.answer(task):
        case Analysed() as answer:
            vectors = tuple(
                Vector(
                    kind=each.kind,
                    version=each.version,
                    dimensions=each.dimensions,
                    data=each.data,
                )
                for each in answer.vectors
            )
        case Failed(reason=reason) | Unreadable(reason=reason):
            raise CommandError(f"{arrival.series_instance_uid}: {reason}")
    return Description(
        study_instance_uid=arrival.study_instance_uid,
        modality=arrival.modality,
        patient=patient_key(members[0][1]),
        vectors=vectors,
    )
