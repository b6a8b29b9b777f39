"""A bundle's configuration may name what is listed here, judged by the object and not its spelling.

An object counts as what it is where it is defined: `monai.transforms.os` is not of
`monai.transforms`, and an alias is judged like its original. What reads or writes files, asks the
network, compiles code or names other code by a string is not in the vocabulary.
"""

import importlib
import inspect
import re
from collections.abc import Container, Mapping
from enum import Enum
from types import ModuleType

from monai.transforms.transform import Transform
from torch.nn import Module


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NAMESPACES = (
    "monai.transforms",
    "monai.networks.nets",
    "monai.networks.blocks",
    "monai.networks.layers",
    "monai.inferers",
    "monai.apps.detection",
    "monai.data.box_utils",
    "torch.nn.modules",
)
"""Modules whose classes and functions may be built and called, but for the following."""

DENIED = re.compile(
    r"(LoadImage|SaveImage|SaveClassification|WriteFileMapping)d?"  # files
    r"|(Rand)?(TorchVision|TorchIO|CuCIM)d?|DataStatsd?|SimulateDelayd?"  # others' code, the log
    r"|PatchInferer|WSISlidingWindowSplitter|ZarrAvgMerger"  # code or files named by a string
    r"|GaussianMixtureModel|HyenaMixer|HyenaTransformerBlock"  # compiles; another package's code
    r"|Transchex|BertPreTrainedModel|MultiModal|CellSamWrapper"  # load files by name
    r"|.*(pretrained|load_|state_dict|download).*"
)
SINGLE = frozenset(
    {
        "monai.apps.vista3d.transforms.VistaPostTransformd",
        "monai.apps.vista3d.transforms.VistaPreTransformd",
        "monai.data.meta_tensor.MetaTensor",
        "monai.data.utils.compute_importance_map",
        "monai.data.utils.decollate_batch",
        "monai.data.utils.list_data_collate",
        "monai.data.utils.no_collation",
        "monai.data.utils.pad_list_data_collate",
        "monai.networks.utils.eval_mode",
        "monai.networks.utils.one_hot",
    }
)
ENUMS = "monai.utils.enums"

BUILTINS = _words(
    "abs all any bool dict divmod enumerate filter float int isinstance len list map max min "
    "range reversed round set slice sorted str sum tuple zip"
)
ATTRIBUTES = _words(
    "T H W abs affine all any append argmax argmin array astype bfloat16 bool cat clamp clip clone "
    "contiguous copy count cpu cuda detach device double dtype endswith eval expand flatten flip "
    "float get half index int item items join keys long lower lstrip max mean meta min ndim "
    "network new_zeros numel out_channels permute pop prod removeprefix removesuffix repeat "
    "replace requires_grad_ reshape round rsplit rstrip "
    "set_atss_matcher set_balanced_sampler set_box_coder_weights set_box_regression_loss "
    "set_box_selector_parameters set_cls_loss set_hard_negative_sampler set_regular_matcher "
    "set_sliding_window_inferer set_target_keys shape sigmoid size softmax split sqrt squeeze "
    "startswith std strip sum swapaxes tensor to tolist train transforms transpose type unsqueeze "
    "upper values var view where"
)
"""Of values that are no modules: tensors, arrays, text, containers, networks, detectors."""

NEEDS = {
    "pretrained": "would fetch weights",
    "pretrained_url": "would fetch weights",
    "weights": "would fetch weights",
    "path_or_repo_id": "would fetch weights",
    "merger_cls": "names code by a string",
    "_debug_": "starts a debugger",
}
"""Arguments that may only be absent, false or null."""

_TORCH = (
    "abs arange argmax argmin as_tensor cat clamp concat cumsum device diff exp flip float_power "
    "floor from_numpy full full_like isfinite isnan linspace log logical_and logical_not "
    "logical_or max maximum mean min minimum nan_to_num norm ones ones_like permute prod relu "
    "round sigmoid size softmax sqrt squeeze stack std sum tanh tensor transpose unsqueeze unique "
    "where zeros zeros_like Size Tensor contiguous_format channels_last channels_last_3d "
    "bfloat16 bool double float float16 float32 float64 half int int8 int16 int32 int64 long "
    "short uint8"
)
_NUMPY = (
    "abs arange argmax argmin array asarray ascontiguousarray bool_ ceil clip concatenate cumsum "
    "diff dtype exp expand_dims eye flip float16 float32 float64 floor full inf int8 int16 int32 "
    "int64 linspace log max maximum mean median min minimum moveaxis nan newaxis ones ones_like pi "
    "percentile prod round sqrt squeeze stack std sum transpose uint8 uint16 uint32 unique where "
    "zeros zeros_like"
)
_MATH = "ceil floor inf isfinite log pi pow prod sqrt"
EXACT = frozenset(
    {
        *(f"torch.{name}" for name in _words(_TORCH)),
        *(f"numpy.{name}" for name in _words(_NUMPY)),
        "torch.cuda.is_available",
        "torch.cuda.device_count",
        "torch.nn.functional.interpolate",
        "torch.nn.functional.one_hot",
        "torch.nn.functional.pad",
        "torch.nn.functional.relu",
        "torch.nn.functional.sigmoid",
        "torch.nn.functional.softmax",
        "copy.copy",
        "copy.deepcopy",
        "functools.partial",
        "functools.reduce",
        "os.path.basename",
        "os.path.dirname",
        "os.path.join",
        *(f"math.{name}" for name in _words(_MATH)),
    }
)
IMPORTABLE = _words(
    "collections copy datetime functools glob ignite itertools json logging math monai nibabel "
    "numpy operator os pandas pathlib random re scipy shutil skimage sys tempfile time torch "
    "torchvision tqdm typing warnings"
)
"""Packages that an import statement may name: importing them does nothing but import them."""


def refused_path(path: str) -> str | None:
    """Why a dotted path of modules may not be named, in words; None when it may.

    `path` begins at a top-level package, aliases resolved.
    """
    if any(part.startswith("_") for part in path.split(".")):
        return "names something private"
    if path in EXACT:
        return None
    module, rest = _module(path)
    if module is None or not path.startswith(("monai.", "torch.nn.")):
        return "is not in the vocabulary of the strict policy"
    found = getattr(module, rest[0], None) if rest else None
    if len(rest) == 2 and _is_enum(found):
        return None if isinstance(getattr(found, rest[1], None), str | Enum) else "does not exist"
    if len(rest) != 1 or found is None:
        return "does not exist, or is a part of something"
    return None if _allowed(found) else "is not in the vocabulary of the strict policy"


def _module(path: str) -> tuple[ModuleType | None, list[str]]:
    """The longest prefix of `path` that is a module of monai or torch, and what follows it."""
    parts = path.split(".")
    if parts[0] not in ("monai", "torch"):
        return None, parts
    found, at = importlib.import_module(parts[0]), 1
    while at < len(parts):
        deeper = getattr(found, parts[at], None)
        name = ".".join(parts[: at + 1])
        if not isinstance(deeper, ModuleType) or deeper.__name__ != name:
            break
        found, at = deeper, at + 1
    return found, parts[at:]


def _allowed(found: object) -> bool:
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    module, name = found.__module__, found.__qualname__
    if f"{module}.{name}" in SINGLE:
        return True
    if not any(module == space or module.startswith(f"{space}.") for space in NAMESPACES):
        return False
    if DENIED.fullmatch(found.__name__) or name != found.__name__:
        return False
    if module.startswith("torch."):
        return inspect.isclass(found) and issubclass(found, Module)  # no hooks for all modules
    return not module.startswith("monai.transforms") or _is_transform(found)


def _is_transform(found: object) -> bool:
    """Whether it is a transform and no function or tool beside them."""
    return inspect.isclass(found) and issubclass(found, Transform)


def _is_enum(found: object) -> bool:
    return inspect.isclass(found) and found.__module__ == ENUMS


def refused_argument(name: object, value: object) -> str | None:
    """Why an argument of a component may not be given, in words; None when it may."""
    if name not in NEEDS or value in (None, False, "$None", "$False"):
        return None
    if name == "weights" and isinstance(value, list):  # of transforms to choose from
        return None
    return f"{name} {NEEDS[str(name)]}"


def switches(path: str) -> dict[str, tuple[int, bool]]:
    """Arguments of `NEEDS` that an allowed path takes: position, and if on when left out."""
    if not path.startswith("monai."):
        return {}
    module, rest = _module(path)
    found = getattr(module, rest[0], None) if len(rest) == 1 else None
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return {}
    taken = inspect.signature(found).parameters
    return {
        name: (at, one.default not in (inspect.Parameter.empty, None, False))
        for at, (name, one) in enumerate(taken.items())
        if name in NEEDS
    }


def refused_absence(path: str, given: Container[object], positions: int) -> str | None:
    """Why a call may not leave arguments out, or give `positions` of them without a name."""
    for name, (at, on) in switches(path).items():
        if at < positions:
            return f"gives {name} without its name"
        if on and name not in given:
            return f"{name} is not given as false, and {NEEDS[name]}"
    return None


def aliases(imports: Mapping[str, str]) -> dict[str, str]:
    """Name in an expression -> top-level path: MONAI's own names, and those that are imported."""
    return {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy", **imports}
