"""What a model that comes as files is called, wants and finds: checked whole, from its sidecar.

`models CONFIG --add` writes `NAME.toml` beside the folder or file `NAME`, a person edits it. It
pins every file by its digest. `inference.description` makes values of what is plain here.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from service import criteria
from service.criteria import Criterion
from service.validation import (
    Allowed,
    Count,
    Name,
    Place,
    Section,
    Switch,
    Text,
    Whole,
    validated,
)

ANATOMICAL_STRUCTURE = ("91723000", "SCT", "Anatomical Structure")
LONG_STRING = 64  # characters of a value of VR LO
SHA256 = re.compile(r"[0-9a-f]{64}")
ADD = "one that this writes: hounsfield models CONFIG --add {path}"

LongString = Annotated[
    str, Field(strict=True, min_length=1, max_length=LONG_STRING), Allowed("1 to 64 characters")
]
Coded = Annotated[
    tuple[Text, Text, Text], Allowed('a code: ["78961009", "SCT", "Spleen"]'), Field()
]
OptionalCode = Annotated[Coded | None, Allowed('a code: ["7771000", "SCT", "Left"]')]
Colour = Annotated[
    tuple[Annotated[int, Field(ge=0, le=255)], ...],
    Field(min_length=3, max_length=3),
    Allowed("red, green, blue, each 0 to 255"),
]
Probability = Annotated[Annotated[float, Field(ge=0, le=1)] | None, Allowed("a number from 0 to 1")]


class SidecarKeys(Section):
    """What the model is."""

    name: LongString = Field(description="what results call it")
    version: LongString = Field(description="of the weights; results name it")
    licence: LongString = Field("unknown", description="of the weights; results name it")
    summary: Text = Field(description="what it does, in a sentence")
    task: Annotated[
        Literal["segmentation", "detection", "keypoints", "classification", "regression"],
        Allowed("segmentation, detection, keypoints, classification or regression"),
    ] = Field(description="what it answers")
    limits: Annotated[tuple[Text, ...], Allowed("a list of sentences")] = Field(
        (), description="what a reader of its results must know; every report says it"
    )


class InputKeys(Section):
    """What an image must be for the model to look at it."""

    modalities: Annotated[tuple[Text, ...], Field(min_length=1), Allowed('a list: ["CT"]')] = Field(
        description="Modality of the series"
    )
    dimensions: Annotated[Literal[2, 3], Allowed("2 or 3")] = Field(
        3, description="3: stacks of slices; 2: radiographs, ultrasound frames, photographs"
    )
    axial: Switch = Field(default=False, description="only axial stacks")
    min_slices: Count = Field(1, description="fewer are not analysed")
    max_spacing_mm: Annotated[float | None, Field(gt=0), Allowed("millimetres, above 0")] = Field(
        None, description="slices further apart are not analysed"
    )


class SeriesKeys(Section):
    """One of several series that a model wants at once, in the order of its channels."""

    role: Name = Field(description="what it is to the model: T1, T2, FLAIR, arterial, ...")
    match: Annotated[dict[str, Any], Allowed("a table as in a route")] = Field(
        description="which series of the study it is"
    )


class OutputKeys(Section):
    """How the model answers."""

    overlapping: Switch = Field(
        default=False, description="a label's value is a channel, and channels may overlap"
    )


class LabelKeys(Section):
    """One thing that the model finds, and what it is in DICOM's words."""

    value: Whole = Field(description="in the label map, or index of channel, class or output")
    name: LongString = Field(description="what results call it")
    category: Coded = Field(ANATOMICAL_STRUCTURE, description="PS3.16 CID 7150")
    type: Coded = Field(description="what it is, in SNOMED CT if possible")
    modifier: OptionalCode = Field(None, description="laterality: PS3.16 CID 244")
    colour: Colour = Field((255, 0, 0), description="red, green, blue")
    question: OptionalCode = Field(None, description="what a class is an answer to")
    unit: OptionalCode = Field(None, description="UCUM unit of an output that is a number")
    threshold: Probability = Field(
        None, description="probability from which it counts; not set: the model's own rule"
    )


TABLES: Mapping[str, type[Section]] = {"input": InputKeys, "output": OutputKeys}
LISTS: Mapping[str, type[Section]] = {"labels": LabelKeys}
FREE = ("options", "files")
TABLES_BY_TITLE: Mapping[str, type[Section]] = {
    "At the top": SidecarKeys,
    "`[input]`": InputKeys,
    "`[[input.series]]`": SeriesKeys,
    "`[output]`": OutputKeys,
    "`[[labels]]`": LabelKeys,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A series that a model wants, and how to know it."""

    name: str
    match: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A checked sidecar. `plain`: its values, for the model; `digest`: SHA-256 of those."""

    file: Path
    name: str
    version: str
    licence: str
    summary: str
    roles: tuple[Role, ...]
    plain: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Of everything in it, the digests of the model's files included."""
        canonical = json.dumps(self.plain, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def files(self) -> Mapping[str, str]:
        """Path inside the model -> SHA-256."""
        files: Mapping[str, str] = self.plain["files"]
        return files

    @property
    def requirements(self) -> Mapping[str, object]:
        """What it wants of a series, as a built-in model's REQUIREMENTS say it."""
        wanted = dict(self.plain["input"])
        del wanted["series"]
        return wanted


def path_of(model: Path) -> Path:
    """Where the sidecar of a model's folder or file stands."""
    return model.with_name(f"{model.name}.toml")


def read(model: Path) -> Sidecar:
    """The sidecar of a model; ConfigurationError that names the file and the key, or how to add."""
    file = path_of(model)
    place = Place(file=file)
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        where, missing = Place(file=model), f"has no sidecar beside it, {file.name}"
        if not model.exists():
            raise where.error("does not exist", allowed="a model's folder or file") from error
        raise where.error(missing, allowed=ADD.format(path=model)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise place.error("cannot be read", allowed="a TOML file in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise place.error(str(error), allowed="TOML 1.0") from error
    return parse(raw, place)


def parse(raw: Mapping[str, Any], place: Place) -> Sidecar:
    """A sidecar's tables, checked; ConfigurationError for the first fault."""
    top = {key: value for key, value in raw.items() if key not in (*TABLES, *LISTS, *FREE)}
    keys = validated(SidecarKeys, top, place)
    wanted = dict(raw.get("input", {}))
    series = [
        validated(SeriesKeys, item, place.at("input", "series", index))
        for index, item in enumerate(wanted.pop("series", []))
    ]
    tables = {"input": wanted, "output": raw.get("output", {})}
    plain = keys.model_dump(mode="json")
    for name, section in TABLES.items():
        plain[name] = validated(section, tables[name], place.at(name)).model_dump(mode="json")
    plain["input"]["series"] = [one.model_dump(mode="json") for one in series]
    plain["labels"] = [label.model_dump(mode="json") for label in _labels(raw, place)]
    plain["options"] = dict(raw.get("options", {}))
    plain["files"] = _files(raw.get("files", {}), place.at("files"))
    return Sidecar(
        file=place.file,
        name=keys.name,
        version=keys.version,
        licence=keys.licence,
        summary=keys.summary,
        roles=tuple(_roles(series, place)),
        plain=plain,
    )


def _labels(raw: Mapping[str, Any], place: Place) -> Iterator[LabelKeys]:
    names: set[str] = set()
    values: set[int] = set()
    for index, item in enumerate(raw.get("labels", [])):
        where = place.at("labels").item(item, index)
        label = validated(LabelKeys, item, where)
        if label.name in names or label.value in values:
            raise where.error("has the name or value of another label", allowed="its own")
        names.add(label.name)
        values.add(label.value)
        yield label


def _roles(series: list[SeriesKeys], place: Place) -> Iterator[Role]:
    for index, one in enumerate(series):
        where = place.at("input", "series", index, "match")
        yield Role(name=one.role, match=criteria.match(one.match, where))


def _files(raw: object, place: Place) -> dict[str, str]:
    if not isinstance(raw, dict) or not raw:
        raise place.error("no file is pinned", allowed="a table: path inside the model = SHA-256")
    for name, digest in raw.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise place.at(name).error("leaves the model's folder", allowed="a path inside it")
        if not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise place.at(name).error("is no SHA-256", allowed="64 hexadecimal digits")
    return dict(raw)
