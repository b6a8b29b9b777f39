"""Routes of a node with two models, and what they decide about a study, in short."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from service import routing
from service.config import Route, parse
from storage.records import SeriesArrival

TWO_MODELS = """
[[models]]
name = "body"
kind = "body_outline"
[[models]]
name = "lung"
kind = "lung_ct"
[[destinations]]
name = "pacs"
kind = "folder"
path = "pacs"
[[destinations]]
name = "research"
kind = "folder"
path = "research"
"""


def routes(toml: str) -> tuple[Route, ...]:
    """The routes of a configuration with the models body and lung."""
    return parse(TWO_MODELS + toml, file=Path("/x/node.toml")).routes


EACH_CT = routes(
    '[[routes]]\nname="CT"\nmatch={Modality="CT"}\nmodels=["body"]\ndestinations=["pacs"]'
)


BEST_CT = routes(
    '[[routes]]\nname="chest"\nmatch={Modality="CT"}\nmodels=["lung"]\nselect="best"\n'
    'destinations=["pacs"]'
)


def only(found: Sequence[SeriesArrival], way: Sequence[Route]) -> tuple[str, dict[int, str]]:
    """The reason of the one job of a study, and for each other series (by number) why not."""
    study = routing.decide_study(found, way)
    (job,) = study.jobs
    return job.reason, {each.series_id: each.reason for each in study.dispositions}


def winner(*found: SeriesArrival, prefer: Sequence[str] = ()) -> int:
    """The number of the series that is chosen."""
    way = [replace(BEST_CT[0], prefer=tuple(prefer))] if prefer else BEST_CT
    (job,) = routing.decide_study(found, way).jobs
    return job.series_id
