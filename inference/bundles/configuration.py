"""A bundle's configuration, a plain tree, is reduced to what is built; nothing of it is run.

Bundles write files, read lists of files and name devices; the node has the image in memory and
decides where it computes. So the tree is edited before anything of it is built: what reads or
writes files is taken out, devices become ours, and only what the four parts reach is kept.
References are `@id` with `::` or `#` between levels, expressions begin with `$` (MONAI bundle
specification).
"""

import ast
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from inference.errors import ModelRefused

Tree = dict[str, Any]

NAMES = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
METADATA = "configs/metadata.json"
TARGET, DISABLED, IMPORTS, DEVICE = "_target_", "_disabled_", "imports", "device"
REFERENCE = re.compile(r"[@%][#:]*(\w+)")
PLAIN = re.compile(r"\$?\s*@([\w:#]+)\s*")
SUM = re.compile(r"\$\s*@\w+(\s*\+\s*@\w+)*\s*")
TRUTH = ("label", "mask")  # keys of what a person has drawn, for an evaluation
CUDA = re.compile(r"""torch\.device\((['"])cuda(:\d+)?\1\)""")
OTHER_FILE = re.compile(r"^%.*\.(json|ya?ml)\b")
LOADS = re.compile(r"\$\s*torch\.load\(\s*@(\w+)\s*(?:,[^()]*(?:\([^()]*\))?[^()]*)?\)\s*")
"""An item that is what torch saved in a file whose name another item has."""
PARSES = re.compile(r"\$\s*json\.loads\(\s*pathlib\.Path\(\s*@(\w+)\s*\)\.read_text\(\)\s*\)\s*")
"""An item that is what the metadata say."""
INSIDE = re.compile(r"\b(models/[\w.-]+\.pth?)['\"]?\s*$")
METADATA_INSIDE = re.compile(rf"\b({re.escape(METADATA)})['\"]?\s*$")
SIDE_FILE = "_side_file_"  # key of the table that stands for what such a file holds

NETWORKS = ("network_def", "network")
PREPROCESSINGS = ("preprocessing", "pre_transforms")
INFERERS = ("inferer",)
POSTPROCESSINGS = ("postprocessing", "post_transforms")

ENDINGS = ("", "d", "D", "Dict")  # of one transform's names
READERS = tuple(f"LoadImage{ending}" for ending in ENDINGS)
WRITERS = tuple(
    f"{name}{ending}" for name in ("SaveImage", "SaveClassification") for ending in ENDINGS
)
RENAMED = {f"AddChannel{ending}": f"EnsureChannelFirst{ending}" for ending in ENDINGS}
"""What MONAI has dropped since, and what does the same to the image of one file."""
NO_LONGER_TAKEN = {  # arguments that MONAI has dropped since
    "SwinUNETR": ("img_size",),
    **dict.fromkeys(
        ("EnsureChannelFirstd", "Orientationd", "Spacingd"), ("meta_keys", "meta_key_postfix")
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Under which names a configuration has the four things that are built."""

    network: str
    preprocessing: str
    inferer: str
    postprocessing: str

    @property
    def names(self) -> tuple[str, ...]:
        """All four."""
        return (self.network, self.preprocessing, self.inferer, self.postprocessing)


def parts(tree: Mapping[str, Any]) -> Parts:
    """Where the four parts are; raises ModelRefused that names the one which is missing."""
    return Parts(
        network=_first(tree, NETWORKS),
        preprocessing=_first(tree, PREPROCESSINGS),
        inferer=_first(tree, INFERERS),
        postprocessing=_first(tree, POSTPROCESSINGS),
    )


def _first(tree: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        if name in tree:
            return name
    raise ModelRefused(
        f"its configuration has no {names[0]}: what runs here looks at the images of a study by "
        "network_def, preprocessing, inferer and postprocessing; it makes and aligns none"
    )


def resolved(tree: Mapping[str, Any], item: Any) -> Any:
    """What a plain reference stands for; expressions and the like stay as they are."""
    seen: set[str] = set()
    while isinstance(item, str) and (found := PLAIN.fullmatch(item)):
        if found[1] in seen:
            return None
        seen.add(found[1])
        item = _at(tree, found[1])
    return item


def _at(tree: Mapping[str, Any], name: str) -> Any:
    place: Any = tree
    for step in re.split(r"::|#", name):
        try:
            place = place[int(step) if isinstance(place, list) else step]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return place


def transforms(tree: Mapping[str, Any], part: str) -> Iterator[Mapping[str, Any]]:
    """The components of a chain in order, plain references and sums of lists followed."""
    whole = resolved(tree, tree[part])
    listed = resolved(tree, whole.get("transforms")) if isinstance(whole, dict) else whole
    for one in _listed(tree, listed):
        found = resolved(tree, one)
        if isinstance(found, Mapping) and isinstance(found.get(TARGET), str):
            yield {key: resolved(tree, value) for key, value in found.items()}


def _listed(tree: Mapping[str, Any], item: Any) -> list[Any]:
    if isinstance(item, str) and SUM.fullmatch(item):
        parts = (resolved(tree, f"@{name}") for name in re.findall(r"@(\w+)", item))
        return [one for part in parts if isinstance(part, list) for one in part]
    return item if isinstance(item, list) else []


def read_keys(tree: Mapping[str, Any], part: str) -> tuple[str, ...]:
    """Under which keys the chain reads images of files, each of its own; the truth is none.

    Raises ModelRefused for a chain that has no keys.
    """
    for one in transforms(tree, part):
        name = class_name(one[TARGET])
        if name == "LoadImage":
            raise ModelRefused(
                f"its {part} reads bare arrays (LoadImage) and no samples with keys (LoadImaged), "
                "as for time series of single slices: that does not run here"
            )
        if name in READERS:
            keys = one.get("keys")
            listed = keys if isinstance(keys, list) else [keys]
            named = [resolved(tree, key) for key in listed]
            return tuple(key for key in named if isinstance(key, str) and key not in TRUTH)
    return ()


def reachable(tree: Mapping[str, Any], names: tuple[str, ...]) -> Tree:
    """What the named items refer to, directly or not, and the imports that those words need."""
    kept: Tree = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in tree and name not in kept:
            kept[name] = deepcopy(tree[name])
            texts = strings(tree[name])
            waiting += [found for text in texts for found in REFERENCE.findall(text)]
    imports = _needed(tree.get(IMPORTS, []), kept)
    return {IMPORTS: imports, **kept} if imports else kept


def _needed(statements: object, kept: Tree) -> list[str]:
    words = {word for text in strings(kept) for word in re.findall(r"\w+", text)}
    found = statements if isinstance(statements, list) else []
    return [one for one in found if isinstance(one, str) and words & set(_bound(one))]


def _bound(statement: str) -> Iterator[str]:
    """The names that an import statement binds; a statement that is none raises ModelRefused."""
    try:
        body = ast.parse(statement.removeprefix("$").strip()).body
    except SyntaxError as error:
        raise ModelRefused("its configuration has an import that cannot be read") from error
    for node in body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            raise ModelRefused("its configuration has an import that is none")
        for alias in node.names:
            yield (alias.asname or alias.name).split(".")[0]


def strings(item: object) -> Iterator[str]:
    """Every text in a tree, keys not."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from strings(value)
    elif isinstance(item, list | tuple):
        for value in item:
            yield from strings(value)


def tables(item: object) -> Iterator[Mapping[str, Any]]:
    """Every table in a tree, outer before inner, in order."""
    if isinstance(item, Mapping):
        yield item
        for value in item.values():
            yield from tables(value)
    elif isinstance(item, list | tuple):
        for value in item:
            yield from tables(value)


def targets(item: object) -> Iterator[str]:
    """What a tree would build: every `_target_`, in order."""
    for table in tables(item):
        if isinstance(target := table.get(TARGET), str):
            yield target


def class_name(target: str) -> str:
    """`LoadImaged` of `monai.transforms.LoadImaged`."""
    return target.rpartition(".")[2]


def overridden(tree: Mapping[str, Any], values: Mapping[str, Any]) -> Tree:
    """The tree with some values replaced, each by its id (`inferer::roi_size`)."""
    changed = deepcopy(dict(tree))
    for name, value in values.items():
        *way, last = re.split(r"::|#", name)
        place: Any = changed
        try:
            for step in way:
                place = place[int(step) if isinstance(place, list) else step]
            place[int(last) if isinstance(place, list) else last] = deepcopy(value)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ModelRefused(f"options.override: the bundle has no {name}") from error
    return changed


def edited(tree: Mapping[str, Any]) -> Tree:
    """The tree without what reads and writes files or chooses a device; `device` is still to set.

    Raises ModelRefused when it refers to another configuration file.
    """
    changed: Tree = {**_edit(tree), **dict(_side_files(tree))}
    changed[DEVICE] = None
    return changed


def _side_files(tree: Mapping[str, Any]) -> Iterator[tuple[str, Tree]]:
    """Items that are what another file holds, by the file's place in the bundle."""
    for name, item in tree.items():
        for expression, place in ((LOADS, INSIDE), (PARSES, METADATA_INSIDE)):
            reads = expression.fullmatch(item) if isinstance(item, str) else None
            where = resolved(tree, f"@{reads[1]}") if reads else None
            if isinstance(where, str) and (inside := place.search(where)):
                yield name, {SIDE_FILE: inside[1]}


def side_files(tree: Mapping[str, Any]) -> dict[str, str]:
    """Item -> file that it stands for, of an edited tree."""
    tables = {name: item for name, item in tree.items() if isinstance(item, Mapping)}
    return {name: str(item[SIDE_FILE]) for name, item in tables.items() if SIDE_FILE in item}


def _edit(item: Any) -> Any:
    if isinstance(item, Mapping):
        table = {key: _device(key, _edit(value)) for key, value in item.items()}
        return _component(table) if isinstance(table.get(TARGET), str) else table
    if isinstance(item, list | tuple):
        return _nearest([_edit(value) for value in item])
    if not isinstance(item, str):
        return item
    if OTHER_FILE.match(item):
        raise ModelRefused("its configuration takes parts from another configuration file")
    return CUDA.sub(f"@{DEVICE}", item)


def _device(key: object, value: Any) -> Any:
    chooses = key in (DEVICE, "sw_device") and isinstance(value, str)
    return f"@{DEVICE}" if chooses and value != "cpu" else value


def _component(table: Tree) -> Tree:
    name = class_name(table[TARGET])
    if name in READERS:
        return _loaded(table)
    if name in WRITERS:
        return {TARGET: table[TARGET], DISABLED: True}
    if name in RENAMED:
        return {**table, TARGET: RENAMED[name]}
    dropped = NO_LONGER_TAKEN.get(name, ())
    table = {key: value for key, value in table.items() if key not in dropped}
    fetches = name == "TorchVisionFCModel" and table.get("pretrained") is True
    return _not_fetched(table) if fetches else table


def _not_fetched(table: Tree) -> Tree:
    """The network without weights from elsewhere, which those of the bundle would replace anyway.

    To ask for them also sets what the network does, in two: Inception takes the image to ImageNet's
    range (torchvision/models/inception.py). GoogLeNet is left as it is, and refused.
    """
    model = table.get("model_name")
    if model == "googlenet" or not isinstance(model, str):
        return table
    set_too = {"transform_input": True} if model == "inception_v3" else {}
    return {**set_too, **table, "pretrained": False}


def _loaded(table: Tree) -> Tree:
    """What reading a file does beside reading: the channel first, if it was asked to."""
    if table.get("ensure_channel_first") is not True:
        return {TARGET: table[TARGET], DISABLED: True}
    if "keys" in table:
        return {TARGET: "EnsureChannelFirstd", "keys": table["keys"]}
    return {TARGET: "EnsureChannelFirst"}


def _nearest(items: list[Any]) -> list[Any]:
    """Transforms of which none interpolates between labels: what is inverted after argmax is not.

    Between the labels 0 and 2 there would be 1, another structure.
    """
    chosen = False
    for item in items:
        name = class_name(str(item.get(TARGET))) if isinstance(item, Mapping) else ""
        if name.startswith("AsDiscrete") and item.get("argmax") is True:
            chosen = True
        if chosen and name.startswith("Invert") and item.get("nearest_interp") is False:
            item["nearest_interp"] = True
    return items
