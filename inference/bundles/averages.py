"""A bundle asked several times, by its sidecar: mirrored images, weights of several trainings."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from inference.bundles.recipe import Recipe, state_dict
from inference.engine.averaging import Ensemble, Mirrored
from inference.engine.device import is_exhausted
from inference.errors import ModelRefused
from inference.model_files import ModelFiles

AXES = (0, 1, 2)


def averaged(recipe: Recipe, files: ModelFiles, options: Mapping[str, Any]) -> Recipe:
    """The recipe with a network that averages; itself without such options.

    `ensemble`: further files of weights for the same network; `mirror`: axes of the network's
    input (0, 1, 2) along which images are also seen mirrored. Raises ModelRefused.
    """
    names, axes = options.get("ensemble", []), options.get("mirror", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelRefused("options.ensemble is a list of files with weights")
    if not isinstance(axes, list) or len({*axes} & {*AXES}) != len(axes):
        raise ModelRefused("options.mirror is a list of axes: 0, 1, 2, each once")
    network = recipe.network
    if names:
        network = Ensemble([network, *(_trained(network, files, name) for name in names)])
    if axes:
        network = Mirrored(network, axes)
    return replace(recipe, network=network.eval())


def _trained(network: torch.nn.Module, files: ModelFiles, name: str) -> torch.nn.Module:
    another = copy.deepcopy(network)
    try:
        another.load_state_dict(state_dict(files.weights(name)), strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        if is_exhausted(error):
            raise
        raise ModelRefused(f"{files.path.name}: {name} does not fit the network") from error
    return another
