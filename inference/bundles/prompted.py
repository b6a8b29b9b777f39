"""A network that takes classes as prompts (VISTA3D) is asked for every label of its sidecar.

Its own inferer chooses between clicks and classes; without clicks it calls MONAI's sliding windows,
and these take its place, set as the text of its code sets them, which is read and not run. Clicks
are nobody's here.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from inference.bundles.configuration import INFERERS, TARGET, Tree, class_name
from inference.errors import ModelError, ModelRefused

INFERER = "Vista3dInferer"
PROMPT = "label_prompt"  # the key under which MONAI's transforms of VISTA3D look for the classes
WINDOWS = ("SlidingWindowInfererAdapt", "SlidingWindowInferer", "sliding_window_inferer")
"""What its code calls; the last name is one of its own for MONAI's function."""
SET = ("roi_size", "overlap", "sw_batch_size", "mode", "padding_mode")
WITHOUT_CODE = "sliding_window_inferer(overlap=self.overlap, mode='gaussian')"
EVERYTHING = "everything_labels"
LEFT_OUT = re.compile(r"-\s*set\(\[([\d,\s]*)\]\)")


def is_prompted(tree: Mapping[str, Any]) -> bool:
    """Whether a configuration's inferer is the one that takes prompts."""
    inferer = tree.get(INFERERS[0])
    return isinstance(inferer, Mapping) and class_name(str(inferer.get(TARGET))) == INFERER


def code_file(tree: Mapping[str, Any]) -> str | None:
    """Where in the bundle that inferer's code would be; None for a configuration without it."""
    if not is_prompted(tree):
        return None
    return f"{tree[INFERERS[0]][TARGET].rpartition('.')[0].replace('.', '/')}.py"


def edited(tree: Tree, code: bytes | None) -> Tree:
    """The configuration with windows in the place of that inferer, as `code` sets them.

    Raises ModelRefused when that cannot be read off the code.
    """
    given = tree[INFERERS[0]]
    asked = {key: given[key] for key in ("roi_size", "sw_batch_size") if key in given}
    settings = dict(_settings(WITHOUT_CODE if code is None else code, given))
    return {**tree, INFERERS[0]: {TARGET: "SlidingWindowInferer", **asked, **settings}}


def _settings(code: str | bytes, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """How the windows are set: by a constant, or by what the configuration gives (`self.name`)."""
    for argument in _call(code).keywords:
        match argument.value:
            case ast.Constant(value=value) if argument.arg in SET:
                yield argument.arg, value
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if argument.arg in SET:
                if name in given:
                    yield argument.arg, given[name]
            case _ if argument.arg in SET:
                raise ModelRefused(f"its inferer's code computes {argument.arg}: not known here")


def _call(code: str | bytes) -> ast.Call:
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelRefused("its inferer's code cannot be read") from error
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    named = (one for one in calls if isinstance(one.func, ast.Name) and one.func.id in WINDOWS)
    found = next(named, None)
    if found is None:
        raise ModelRefused("its inferer's code does not call MONAI's sliding windows")
    return found


def classes(names: Mapping[int, str], tree: Mapping[str, Any]) -> dict[int, str]:
    """Of the classes that a bundle names, those that it gives when it is asked for everything."""
    text = tree.get(EVERYTHING)
    found = LEFT_OUT.search(text) if isinstance(text, str) else None
    left_out = {int(number) for number in re.findall(r"\d+", found[1])} if found else set()
    groups = tree.get("subclass")
    groups = {int(key) for key in groups if str(key).isdecimal()} if groups else set()
    return {value: name for value, name in names.items() if value not in {0, *left_out, *groups}}


def prompts(network: torch.nn.Module, values: Sequence[int]) -> tuple[int, ...]:
    """What to ask a network for, () for one that takes no prompts; raises ModelRefused.

    `values`: the labels of the sidecar.
    """
    from monai.networks.nets.vista3d import VISTA3D

    if not isinstance(network, VISTA3D):
        return ()
    last = int(getattr(network.point_head, "last_supported", max(values, default=0)))
    unknown = [value for value in values if not 0 < value <= last]
    if unknown or not values:
        raise ModelRefused(f"[[labels]]: {unknown} are no classes of the network: 1 to {last}")
    return tuple(values)


def arguments(
    asked: Sequence[int], sample: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """What the network is given beside the image; raises ModelError.

    `sample`: after preprocessing, which may put others in the place of a class that is a group.
    """
    if not asked:
        return {}
    found = [int(one) for one in sample[PROMPT]]
    if found != list(asked):
        others = sorted({*found} ^ {*asked})
        raise ModelError(f"the bundle would answer for other classes than its labels: {others}")
    column = torch.tensor(found, device=device)[:, None]
    return {"class_vector": column, "prompt_class": column, "transpose": True}
