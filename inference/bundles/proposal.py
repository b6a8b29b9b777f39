"""What a bundle's own files say of it, as the beginning of a sidecar; nothing of them is run.

The task is read off what the configuration builds (network, detector, writers), never off the
metadata's free text. Names of channels come from the metadata, where they are often wrong: a person
looks at the labels before the model is used.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inference import label_codes
from inference.bundles import configuration, documents, prompted
from inference.bundles.configuration import METADATA, TARGET, Parts, Tree, class_name
from inference.errors import ModelRefused
from inference.model_files import is_part

LONG = 64  # characters of a value of VR LO
LICENCE_READ = 4_096  # characters
CLASSIFIERS = re.compile(
    r"^(SE)?(DenseNet|SENet|SEResN|ResNe|resnet|EfficientNet|TorchVisionFC|Classifier|ViT$|VGG)"
)
REGRESSORS = re.compile(r"Regressor$")
LICENCES = {
    "apache license": "Apache-2.0",
    "mit license": "MIT",
    "bsd": "BSD",
    "creative commons": "Creative Commons",
    "attribution-noncommercial": "CC BY-NC",
    "nvidia": "NVIDIA",
}
MODALITIES = {
    **{name: name for name in ("CT", "MR", "US", "PT", "MG", "CR", "DX")},
    "MRI": "MR",
    "PET": "PT",
    "ULTRASOUND": "US",
    **dict.fromkeys(("MAMMOGRAM", "MAMMOGRAPHY"), "MG"),
    **dict.fromkeys(("CXR", "X-RAY", "XRAY", "RADIOGRAPH"), "DX"),
}
VOLUMES, COLOURS, PROJECTIONS = ("CT", "MR"), ("ES", "XC"), ("CR", "DX", "MG")
BACKGROUNDS = ("background", "bg", "everything else", "other")
VOLUME_SLICES = 10  # fewer are a scout or a fragment, not what a 3-D network learnt from
SURE = 0.5  # of a detection: bundles keep hundreds that are less, for a curve
WITHOUT_CLICKS = "Made to be guided by a person's clicks: here it runs without any."
UNKNOWN_LABELS = (
    "The bundle computes its labels: nobody has checked which value means what.",
    "The bundle does not say what its labels mean: nobody has checked them.",
)


def propose(path: Path) -> Mapping[str, Any] | None:
    """A sidecar's tables for a bundle's folder, without `files`; None: no bundle.

    Raises ModelRefused for a bundle that lacks a part or its weights.
    """
    name = next((name for name in configuration.NAMES if (path / name).is_file()), None)
    if name is None:
        return None
    tree = documents.parse(name, _read(path / name))
    metadata = path / METADATA
    stated = documents.parse(METADATA, _read(metadata)) if metadata.is_file() else {}
    return _Bundle(path, tree, stated).tables()


def _read(file: Path) -> bytes:
    """What may be read of a file that somebody else wrote: one byte more than is taken."""
    with file.open("rb") as opened:
        return opened.read(documents.LARGEST + 1)


class _Bundle:
    """A bundle's texts and what follows from them."""

    def __init__(self, path: Path, tree: Tree, stated: Mapping[str, Any]) -> None:
        self._path = path
        self._tree = tree
        self._stated = stated
        self._parts: Parts = configuration.parts(tree)
        network = self._resolved(tree[self._parts.network])
        self._network: Mapping[str, Any] = network if isinstance(network, Mapping) else {}
        inferer = self._resolved(tree[self._parts.inferer])
        self._inferer = class_name(str(inferer.get(TARGET))) if isinstance(inferer, dict) else ""
        self._keys = configuration.read_keys(tree, self._parts.preprocessing)
        self._before = list(configuration.transforms(tree, self._parts.preprocessing))
        self._after = list(configuration.transforms(tree, self._parts.postprocessing))

    def tables(self) -> dict[str, Any]:
        """The sidecar."""
        task = self._task()
        options: dict[str, Any] = {"weights": self._weights()}
        if task == "classification":
            options["activation"] = self._activation()
        if self._dimensions() == 2 and (colours := self._channels()) in (1, 3):
            options["colours"] = colours
        return {
            "name": str(self._stated.get("name", self._path.name))[:LONG],
            "version": str(self._stated.get("version", "unknown"))[:LONG],
            "licence": self._licence(),
            "summary": str(self._stated.get("description", f"The bundle {self._path.name}.")),
            "task": task,
            "limits": list(self._limits(task)),
            "input": self._input(),
            "output": {"overlapping": self._overlapping(task)},
            "labels": list(self._labels(task)),
            "options": options,
        }

    def _resolved(self, item: Any) -> Any:
        return configuration.resolved(self._tree, item)

    def _says(self, transform: str, key: str) -> bool:
        """Whether a transform after the network has that switched on."""
        return any(
            class_name(one[TARGET]).startswith(transform) and _on(one.get(key))
            for one in self._after
        )

    def _task(self) -> str:
        network = class_name(str(self._network.get(TARGET, "")))
        if "detector" in self._tree:
            return "detection"
        if REGRESSORS.search(network):
            return "regression"
        written = any(
            "SaveClassification" in target for target in configuration.targets(self._tree)
        )
        return "classification" if written or CLASSIFIERS.match(network) else "segmentation"

    def _activation(self) -> str:
        if self._says("Activations", "sigmoid"):
            return "sigmoid"
        chosen = self._says("Activations", "softmax") or self._says("AsDiscrete", "argmax")
        return "softmax" if chosen else "none"

    def _overlapping(self, task: str) -> bool:
        """Whether channels stay channels: a sigmoid of several, and nothing that merges them."""
        if task == "classification":
            return self._activation() == "sigmoid"
        merged = self._says("AsDiscrete", "argmax") or self._computed()
        return self._says("Activations", "sigmoid") and not merged and self._outputs() != 1

    def _computed(self) -> bool:
        return any(
            class_name(one[TARGET]).startswith("Lambda") or self._is_own(one) for one in self._after
        )

    def _is_own(self, component: Mapping[str, Any]) -> bool:
        """Whether it is code of the bundle."""
        top, _, inside = component[TARGET].partition(".")
        return bool(inside) and (self._path / top).is_dir()

    def _written(self) -> list[int]:
        """The numbers in the functions that compute the labels, indices not."""
        texts = [str(one.get("func")) for one in self._after if "func" in one]
        plain = " ".join(re.sub(r"\[[^\]]*\]+", " ", text) for text in texts)
        return sorted(
            {int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.])", plain)} - {0}
        )

    def _table(self) -> dict[int, str]:
        """Labels that the configuration itself lists: name -> value."""
        listed = self._tree.get("labels")
        pairs = listed.items() if isinstance(listed, Mapping) else ()
        return {v: str(name) for name, v in pairs if type(v) is int and v > 0}

    def _outputs(self) -> int | None:
        for key in ("out_channels", "num_classes"):
            found = self._resolved(self._network.get(key))
            if isinstance(found, int):
                return found
        return None

    def _format(self, side: str, name: str) -> Mapping[str, Any]:
        """The metadata's description of an input or output."""
        formats = self._stated.get("network_data_format", {}).get(side, {})
        found = formats.get(name, next(iter(formats.values()), {}))
        return found if isinstance(found, Mapping) else {}

    def _names(self) -> dict[int, str]:
        """Channel -> name, as the metadata have it."""
        channels = self._format("outputs", "pred").get("channel_def", {})
        listed = enumerate(channels) if isinstance(channels, list) else channels.items()
        return {int(channel): str(name) for channel, name in listed if str(channel).isdecimal()}

    def _labels(self, task: str) -> Iterator[dict[str, Any]]:
        question = list(_code(label_codes.private(self._stated.get("name", self._path.name))))
        taken: set[str] = set()
        for value, name in sorted(self._found(task).items()):
            label = name[:LONG] if name not in taken else f"{name[: LONG - 5]} {value}"
            taken.add(label)
            more: dict[str, dict[str, Any]] = {
                "classification": {"question": question},
                "detection": {"threshold": SURE},
            }
            yield _label(value, label) | more.get(task, {})

    def _found(self, task: str) -> dict[int, str]:
        names = self._names()
        if prompted.is_prompted(self._tree):
            return prompted.classes(names, self._tree)
        outputs = self._outputs()
        if task == "segmentation" and self._computed() and (written := self._written()):
            return {value: f"Label {value}" for value in written}
        if task == "segmentation" and not self._overlapping(task):
            named = {v: n for v, n in names.items() if n.strip().lower() not in BACKGROUNDS}
            if outputs == 1 and set(named) == {0}:  # one channel: what is there has the value 1
                named = {1: named[0]}
            names = {value: name for value, name in named.items() if value > 0}
            names = names or self._table()
            return names or {v: f"Label {v}" for v in range(1, max(2, outputs or 2))}
        return names or {value: f"Class {value}" for value in range(outputs or 1)}

    def _limits(self, task: str) -> Iterator[str]:
        if isinstance(use := self._stated.get("intended_use"), str) and use:
            yield use if use.endswith(".") else f"{use}."
        if task == "segmentation" and self._computed() and not prompted.is_prompted(self._tree):
            yield UNKNOWN_LABELS[0]
        elif not self._names() and not self._table():
            yield UNKNOWN_LABELS[1]
        if any("Guidance" in class_name(one[TARGET]) for one in self._before):
            yield WITHOUT_CLICKS

    def _input(self) -> dict[str, Any]:
        dimensions = self._dimensions()
        stated = self._format("inputs", "image")
        channels, count = stated.get("channel_def", {}), self._channels()
        table: dict[str, Any] = {
            "modalities": list(_modalities(stated, dimensions)),
            "dimensions": dimensions,
        }
        if dimensions == 3 and self._inferer != "SliceInferer":
            table["min_slices"] = VOLUME_SLICES
        if dimensions == 3 and count > 1 and (roles := self._roles(channels, count)):
            table["series"] = [_role(name) for name in roles]
        return table

    def _roles(self, channels: Mapping[str, Any], count: int) -> Sequence[str]:
        """What the several series are; none when the channels are made of one image."""
        if len(self._keys) > 1:
            return self._keys
        if len(channels) == 1:
            return ()
        return [str(channels.get(str(i), i)) for i in range(count)]

    def _channels(self) -> int:
        """Of the input: what the network takes, else what the metadata say."""
        stated = self._format("inputs", "image")
        found = self._resolved(self._network.get("in_channels"))
        if "TorchVision" in str(self._network.get(TARGET)) or not isinstance(found, int):
            found = stated.get("num_channels", len(stated.get("channel_def", {})))
        return found if isinstance(found, int) else 1

    def _dimensions(self) -> int:
        if self._inferer == "SliceInferer":
            return 3
        stated = self._resolved(self._network.get("spatial_dims"))
        if stated not in (2, 3):
            stated = len(self._format("inputs", "image").get("spatial_shape", (0, 0, 0)))
        return 2 if stated == 2 else 3

    def _weights(self) -> str:
        models = self._path / "models"
        found = sorted(
            path.relative_to(self._path).as_posix()
            for path in models.glob("*")
            if path.suffix in (".pt", ".pth") and is_part(path.name)
        )
        loaded = [name for name in self._loaded() if name in found]
        if "models/model.pt" in found or loaded or len(found) == 1:
            return next(iter(loaded), "models/model.pt" if "models/model.pt" in found else found[0])
        if found:
            raise ModelRefused("several weights in models/ and none is model.pt: leave one")
        raise ModelRefused("the bundle has no weights: put them at models/model.pt")

    def _loaded(self) -> Iterator[str]:
        """The files of weights that its CheckpointLoader names."""
        for table in configuration.tables(self._tree):
            if class_name(str(table.get(TARGET))) == "CheckpointLoader":
                where = self._resolved(table.get("load_path"))
                if isinstance(where, str) and (inside := configuration.INSIDE.search(where)):
                    yield inside[1]

    def _licence(self) -> str:
        for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "license.txt", "docs/license.txt"):
            if (self._path / name).is_file():
                with (self._path / name).open(errors="replace") as opened:
                    text = " ".join(opened.read(LICENCE_READ).split())
                known = (short for words, short in LICENCES.items() if words in text[:300].lower())
                return next(known, text[:LONG]) or "unknown"
        stated = self._stated.get("license") or self._stated.get("copyright") or "unknown"
        return str(stated)[:LONG]


def _on(value: Any) -> bool:
    """Whether a switch, or one of a list of switches, is on."""
    return any(map(_on, value)) if isinstance(value, list) else bool(value)


def _modalities(stated: Mapping[str, Any], dimensions: int) -> tuple[str, ...]:
    named = MODALITIES.get(str(stated.get("modality", "")).upper())
    if named is not None:
        return (named,)
    if str(stated.get("format", "")).lower() == "hounsfield":
        return ("CT",)
    if dimensions == 3:
        return VOLUMES
    return COLOURS if stated.get("num_channels") == 3 else PROJECTIONS


def _role(name: str) -> dict[str, Any]:
    """A series that matches none until a person has said which it is."""
    role = re.sub(r"\W+", "_", name).strip("_") or "series"
    return {"role": role, "match": {"SeriesDescription": f"EDIT: which series is {name}"}}


def _label(value: int, name: str) -> dict[str, Any]:
    found = label_codes.meaning(name)
    table: dict[str, Any] = {
        "value": value,
        "name": name,
        "category": _code(found.category),
        "type": _code(found.type),
        "colour": list(label_codes.colour(value)),
    }
    return table if found.modifier is None else table | {"modifier": _code(found.modifier)}


def _code(code: Any) -> list[str]:
    return [code.value, code.scheme_designator, code.meaning]
