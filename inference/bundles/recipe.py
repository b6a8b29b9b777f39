"""The four parts of a bundle, built as its configuration says, its weights strictly loaded.

Network, preprocessing, inferer and postprocessing stay separate: each is one step from an image
with its affine to a result, and each may be replaced by something faster that does the same.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inference import torchvision_operators
from inference.bundles import configuration, documents, prompted
from inference.bundles.configuration import DEVICE, Parts, Tree
from inference.bundles.own_code import own_code, packages
from inference.engine.device import is_exhausted
from inference.errors import ModelRefused
from inference.model_files import ModelFiles

PREDICTION = "pred"  # the key under which MONAI's evaluators keep what the network said
CORES = ("core", "_core")
MAKERS: dict[str, Any] = {
    "_reconstruct": np.zeros(1).__reduce__()[0],
    "scalar": np.float64().__reduce__()[0],
}
PLAIN_NUMBERS = (  # what arrays of numbers are pickled with, of numpy 2 and before
    *((one, f"numpy.{core}.multiarray.{name}") for name, one in MAKERS.items() for core in CORES),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")),
)
CONTAINERS = ("model", "state_dict", "network", "model_state_dict")
MISSING = re.compile(r"No module named '(\w+)")
WRAPPED = "module."  # what DataParallel puts before every name

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A bundle, ready to run.

    `preprocessing`: a sample (`image_key` -> MetaTensor) to a sample whose image is channel first;
    `inferer`: a batch (1, channel, *space) and the network to logits (1, channel, *space) or
    (1, class); `postprocessing`: the sample with `pred` (channel, *space) to the same, done.
    `series_keys`: under which it has its several series, when each is an image of its own;
    `prompts`: the classes that the network is asked for, of a network that has to be asked.
    """

    network: torch.nn.Module
    preprocessing: Callable[[Sample], Sample]
    inferer: Callable[..., Any]
    postprocessing: Callable[[Sample], Sample]
    device: torch.device
    image_key: str = "image"
    series_keys: tuple[str, ...] = ()
    prompts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A configuration that may be built: reduced, allowed, edited."""

    parts: Parts
    tree: Tree
    image_key: str
    series_keys: tuple[str, ...]


def plan(files: ModelFiles, options: Mapping[str, Any], *, trusted: bool) -> Plan:
    """What would be built; raises ModelRefused when the bundle is incomplete or not allowed.

    `options`: the sidecar's; `override` is a table of ids and values that replace the bundle's.
    """
    whole = read(files, options)
    parts = configuration.parts(whole)
    keys = configuration.read_keys(whole, parts.preprocessing)
    return Plan(
        parts=parts,
        tree=allowed(files, whole, parts.names, trusted=trusted),
        image_key=image_key(whole),
        series_keys=keys if len(keys) > 1 else (),
    )


def read(files: ModelFiles, options: Mapping[str, Any]) -> Tree:
    """The whole configuration with what the sidecar replaces."""
    name = _configuration(files)
    whole = documents.parse(name, files.read(name))
    whole = configuration.overridden(whole, options.get("override", {}))
    code = prompted.code_file(whole)
    if code is None:
        return whole
    return prompted.edited(whole, files.read(code) if code in files.digests else None)


def image_key(whole: Tree) -> str:
    """Under which key its transforms have the image."""
    key = whole.get("image_key", "image")
    return key if isinstance(key, str) and key.isidentifier() else "image"


def allowed(files: ModelFiles, whole: Tree, names: tuple[str, ...], *, trusted: bool) -> Tree:
    """What the named items reach, edited; raises ModelRefused for what may not be built."""
    tree = configuration.edited(configuration.reachable(whole, names))
    _refuse_missing(tree)
    if not trusted:
        _refuse_own_code(files, tree)
        _check(tree, names)
    return tree


def _check(tree: Tree, names: tuple[str, ...]) -> None:
    from inference.bundles import policy  # imports MONAI: seconds that a proposal does not need

    policy.check(tree, names)


def build(files: ModelFiles, options: Mapping[str, Any], *, trusted: bool, device: str) -> Recipe:
    """The bundle on a device; raises ModelRefused with the line that says what it needs or lacks.

    `options`: `weights` names the file with the state dict; see `plan` for the rest.
    """
    planned = plan(files, options, trusted=trusted)
    built = parsed(files, planned.tree, planned.parts.names, trusted=trusted, device=device)
    network = built[planned.parts.network]
    load_weights(network, files, options)
    return Recipe(
        network=network.to(device).eval(),
        preprocessing=built[planned.parts.preprocessing],
        inferer=built[planned.parts.inferer],
        postprocessing=built[planned.parts.postprocessing],
        device=torch.device(device),
        image_key=planned.image_key,
        series_keys=planned.series_keys,
    )


def _configuration(files: ModelFiles) -> str:
    for name in configuration.NAMES:
        if name in files.digests:
            return name
    raise ModelRefused(f"{files.path.name}: no configs/inference.json or .yaml")


def _refuse_missing(tree: Tree) -> None:
    """What no policy and no trust can give."""
    names = map(configuration.class_name, configuration.targets(tree))
    if any("TorchVision" in name for name in names):
        torchvision_operators.required("this bundle")


def _refuse_own_code(files: ModelFiles, tree: Tree) -> None:
    words = {word.partition(".")[0] for word in configuration.targets(tree)}
    words |= {name for text in tree.get(configuration.IMPORTS, []) for name in text.split()}
    words = {word.partition(".")[0] for word in words}
    if used := sorted(words & packages(files)):
        raise ModelRefused(
            f"{files.path.name}: runs code of its own ({', '.join(used)}); it needs trust: "
            "hounsfield models CONFIG --trust NAME"
        )


def parsed(
    files: ModelFiles, tree: Tree, names: tuple[str, ...], *, trusted: bool, device: str
) -> dict[str, Any]:
    """The named items of an allowed tree, built; raises ModelRefused that names what cannot be."""
    from monai.bundle.config_parser import ConfigParser

    with (
        warnings.catch_warnings(action="ignore"),  # a bundle's own, of the year it was written
        own_code(files, trusted=trusted),
    ):
        parser = ConfigParser(tree)
        parser[DEVICE] = torch.device(device)
        for item, name in configuration.side_files(tree).items():
            parser[item] = _side_file(files, name)
        return {name: _content(parser, name) for name in names}


def _side_file(files: ModelFiles, name: str) -> Any:
    """What it holds, which the parser of the configuration takes for more of that."""
    held = (
        documents.parse(name, files.read(name))
        if name.endswith(".json")
        else files.weights(name, safe=PLAIN_NUMBERS)
    )
    documents.refuse_code(name, held)
    return held


def _content(parser: Any, name: str) -> Any:
    try:
        return parser.get_parsed_content(name)
    except Exception as error:  # (whatever a configuration meets that was made elsewhere)
        if is_exhausted(error):
            raise
        raise ModelRefused(f"its {name} cannot be built: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The first cause in one line: a package that is missing by its name."""
    chain = list(_causes(error))
    for one in chain:
        if isinstance(one, ImportError) and (missing := MISSING.search(str(one))):
            return f"the package {missing[1]} is not installed"
    deepest = chain[-1]
    text = str(deepest).strip().splitlines()
    return f"{type(deepest).__name__}: {text[0][:200] if text else 'no words'}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def load_weights(network: torch.nn.Module, files: ModelFiles, options: Mapping[str, Any]) -> None:
    """Every parameter of the network from the file; raises ModelRefused unless all fit.

    What a bundle's own code would do to a file that it loads itself is not done.
    """
    name = str(options.get("weights", "models/model.pt"))
    if name not in files.digests:
        raise ModelRefused(f"{files.path.name}: the weights {name} are missing: put them there")
    try:
        network.load_state_dict(state_dict(files.weights(name)), strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        if is_exhausted(error):
            raise
        line = str(error).strip().splitlines()
        detail = line[1].strip() if len(line) > 1 else type(error).__name__
        raise ModelRefused(
            f"{files.path.name}: {name} does not fit the network: {detail[:200]}"
        ) from error


def state_dict(saved: Any) -> dict[str, torch.Tensor]:
    """The parameters in what was saved: bare, or under a name, or as a wrapped network's."""
    for key in CONTAINERS:
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
    if not isinstance(saved, Mapping):
        raise TypeError("no state dict")
    wrapped = saved and all(str(key).startswith(WRAPPED) for key in saved)
    return {str(key).removeprefix(WRAPPED) if wrapped else key: saved[key] for key in saved}


def prepared(recipe: Recipe, image: Any) -> Sample:
    """The sample after preprocessing; `image`: MetaTensor as a file reader would give it.

    For a bundle with `series_keys`: such a one by each of them. What a reader knows of a file
    beside the image is in the sample too, as readers may be asked to put it there.
    """
    images = dict(image) if recipe.series_keys else {recipe.image_key: image}
    read = {f"{key}_meta_dict": dict(one.meta) for key, one in images.items()}
    asked = {prompted.PROMPT: list(recipe.prompts)} if recipe.prompts else {}
    return recipe.preprocessing({**images, **read, **asked})


def predicted(recipe: Recipe, sample: Sample) -> torch.Tensor:
    """What the network says: (channel, *space) or (class,), on the CPU, as float32."""
    batch = torch.as_tensor(sample[recipe.image_key]).as_subclass(torch.Tensor)[None]
    asked = prompted.arguments(recipe.prompts, sample, recipe.device)
    with torch.inference_mode():
        answer = recipe.inferer(batch.to(recipe.device), recipe.network, **asked)
    while isinstance(answer, list | tuple):  # deep supervision: the full resolution is the first
        answer = answer[0]
    return torch.as_tensor(answer)[0].float().cpu()


def finished(recipe: Recipe, sample: Sample, logits: torch.Tensor) -> Any:
    """The result after postprocessing, a MetaTensor (channel, *space) with its affine.

    Inverting transforms need the history of the image on the prediction, or do nothing.
    """
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.utils import reset_ops_id

    reset_ops_id(sample)  # type: ignore[no-untyped-call]  # a copy of a transform may invert it
    image = sample[recipe.image_key]
    said = MetaTensor(
        logits, meta=dict(image.meta), applied_operations=list(image.applied_operations)
    )
    asked = {prompted.PROMPT: torch.tensor(recipe.prompts)[:, None]} if recipe.prompts else {}
    with torch.inference_mode():  # (it may write into what the network gave)
        return recipe.postprocessing({**sample, **asked, PREDICTION: said})[PREDICTION]
