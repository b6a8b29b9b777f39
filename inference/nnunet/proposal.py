"""What a folder of nnU-Net results says of itself, as the beginning of a sidecar; text only."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom.sr.coding import Code

from inference import label_codes
from inference.errors import ModelRefused
from inference.model_files import is_part
from inference.nnunet import folder, labels, plans
from inference.nnunet.architectures import BLOCKS
from inference.nnunet.documents import document
from inference.nnunet.folder import Results
from inference.nnunet.labels import Labels
from inference.nnunet.plans import Configuration, Plans, Scheme

LARGEST = 64 << 20  # bytes of plans, which list every image that was trained on
LONGEST_NAME = 64  # characters of a value of VR LO
TOTALSEGMENTATOR = "totalsegmentator"  # turns every image to RAS before nnU-Net sees it


def propose(path: Path) -> Mapping[str, Any] | None:
    """A sidecar's tables without `files`; None: no nnU-Net results, or those of several data sets.

    Raises ModelRefused for results that are incomplete or cannot run here.
    """
    if not path.is_dir():
        return None
    inside = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    names = [name for name in inside if is_part(name)]
    found = folder.of_one_model(names, top=path.name)
    if not found:
        return None
    chosen = found[0]
    dataset = _read(path, chosen, folder.DATASET)
    planned = plans.parse(_read(path, chosen, folder.PLANS), dataset)
    name = _planned(chosen, planned)
    configuration = planned.configuration(name)
    if configuration.network.rpartition(".")[2] not in BLOCKS:
        raise ModelRefused(f"the network {configuration.network} is not known")
    tables = _tables(path, chosen, planned, configuration, labels.parse(dataset))
    after = folder.postprocessing(names, chosen)
    return tables if after is None else _with_option(tables, "postprocessing", after)


def _read(path: Path, results: Results, name: str) -> dict[str, Any]:
    with (path / results.file(name)).open("rb") as opened:
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ModelRefused(f"{name} is larger than {LARGEST >> 20} MiB")
    return document(content, name)


def _planned(results: Results, planned: Plans) -> str:
    """The configuration by the folder's name; by the plans when it was renamed."""
    if results.configuration is not None:
        return results.configuration
    names = planned.configurations
    return next((name for name in folder.PREFERRED if name in names), names[0])


def _tables(
    path: Path, results: Results, planned: Plans, configuration: Configuration, found: Labels
) -> dict[str, Any]:
    dataset = planned.dataset or path.name
    regions = found.regions_order is not None
    return {
        "name": _readable(dataset)[:LONGEST_NAME],
        "version": _version(results),
        "licence": "unknown",
        "summary": f"nnU-Net {configuration.name} of {_readable(dataset)}.",
        "task": "segmentation",
        "limits": ["Trained elsewhere; not validated on the images of this site."],
        "input": _input(configuration),
        "output": {"overlapping": regions},
        "labels": _labels(found),
        "options": _options(results, dataset),
    }


def _with_option(tables: dict[str, Any], key: str, value: str) -> dict[str, Any]:
    return {**tables, "options": {**tables["options"], key: value}}


def _readable(dataset: str) -> str:
    return re.sub(r"^Dataset\d+_", "", dataset).replace("_", " ")


def _version(results: Results) -> str:
    folds = len(results.checkpoints)
    return f"{results.trainer or 'nnU-Net'}, {folds} {'fold' if folds == 1 else 'folds'}"[
        :LONGEST_NAME
    ]


def _options(results: Results, dataset: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if results.configuration is not None:
        options["configuration"] = results.configuration
    if TOTALSEGMENTATOR in dataset.lower():
        options["orientation"] = "RAS"
    return options


def _input(configuration: Configuration) -> dict[str, Any]:
    names = [channel.name for channel in configuration.channels]
    table: dict[str, Any] = {
        "modalities": _modalities(configuration),
        "dimensions": 2 if configuration.natural_images else 3,
    }
    if len(names) > 1 and not configuration.natural_images:
        table["series"] = [
            {"role": name, "match": {"SeriesDescription": {"pattern": re.escape(name)}}}
            for name in names
        ]
    return table


def _modalities(configuration: Configuration) -> list[str]:
    """CT by the normalisation or the channel's name; pictures may be anything; else MR."""
    if configuration.natural_images:
        return ["XC", "OT"]
    first = configuration.channels[0]
    by_name = {"ct": "CT", "pet": "PT", "pt": "PT", "us": "US"}
    if first.scheme is Scheme.CT:
        return ["CT"]
    return [by_name.get(first.name.casefold(), "MR")]


def _labels(found: Labels) -> Sequence[dict[str, Any]]:
    regions = found.regions_order is not None
    return [
        _label(one.name, index if regions else one.values[0])
        for index, one in enumerate(found.structures)
    ]


def _label(name: str, value: int) -> dict[str, Any]:
    meaning = label_codes.meaning(name)
    table: dict[str, Any] = {
        "value": value,
        "name": name[:LONGEST_NAME],
        "category": _code(meaning.category),
        "type": _code(meaning.type),
        "colour": list(label_codes.colour(value)),
    }
    if meaning.modifier is not None:
        table["modifier"] = _code(meaning.modifier)
    return table


def _code(code: Code) -> list[str]:
    return [code.value, code.scheme_designator, code.meaning]
