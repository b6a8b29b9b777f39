"""A network that is asked for classes: its scores are decided slab by slab, never all in memory.

Of a voxel the class with the largest score is said, of equal ones the first, and none where no
score is above 0: MONAI's `VistaPostTransformd`, whose place in the bundle's chain this takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inference.bundles import recognition
from inference.bundles.recipe import PREDICTION, Recipe
from inference.engine import sliding_window
from inference.engine.sliding_window import Slab, UnevenScores, Windows
from inference.errors import ModelError, ModelRefused

AT_ONCE = "labels_at_once"


def decided_by_slabs(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """The same bundle, its inferer giving labels instead of the scores of all that it is asked for.

    Unchanged when it is asked for nothing, when its windows or its decision are other than MONAI's,
    and with `engine = false` in `options`, those of the sidecar. Raises ModelRefused for a number
    of labels at once that would have no effect.
    """
    windows, rest = _windows(recipe), _after_decision(recipe)
    wanted = options.get("engine", True) and bool(recipe.prompts)
    if not wanted or windows is None or rest is None:
        if AT_ONCE in options:
            raise ModelRefused(f"options.{AT_ONCE}: the labels of this bundle are not asked for so")
        return recipe
    inferer = Classes(windows=windows, at_once=options.get(AT_ONCE, len(recipe.prompts)))
    return replace(recipe, inferer=inferer, postprocessing=rest)


def _windows(recipe: Recipe) -> Windows | None:
    found = recognition.windows(recipe.inferer)
    batch = getattr(recipe.inferer, "sw_batch_size", 1)
    return None if found is None else replace(found, batch=int(batch))


def _after_decision(recipe: Recipe) -> Any:
    """What follows `VistaPostTransformd`; None for a chain that does not begin with it."""
    from monai.apps.vista3d.transforms import VistaPostTransformd
    from monai.transforms.compose import Compose

    chain = recipe.postprocessing
    steps: Sequence[Any] = chain.transforms if type(chain) is Compose else ()
    if not steps or type(steps[0]) is not VistaPostTransformd or steps[0].keys != (PREDICTION,):
        return None
    return Compose(list(steps[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """An inferer. `at_once`: classes that the network is asked for in one walk over the image."""

    windows: Windows
    at_once: int

    def __call__(
        self, batch: Tensor, network: torch.nn.Module, *, class_vector: Tensor, **_: Any
    ) -> Tensor:
        """Of an image (1, channel, *space) the classes (1, 1, *space), 0 for none, as float32.

        `class_vector`: (class, 1). Raises ModelError for scores that are not finite.
        """
        image: Tensor = batch[0]
        shape = image.shape[1:]
        axis = sliding_window.longest_axis(shape, self.windows.fitted(shape))
        found, best = image.new_zeros(shape), image.new_zeros(shape)
        for asked in torch.split(class_vector, self.at_once):
            predict = partial(network, class_vector=asked, prompt_class=asked, transpose=True)
            try:
                for slab in sliding_window.slabs(image, predict, self.windows, axis=axis):
                    planes = axis, slab.start, slab.scores.shape[axis + 1]
                    _decide(slab, asked[:, 0], found.narrow(*planes), best.narrow(*planes))
            except UnevenScores as error:
                raise ModelError(f"the network changes the size of windows: {error}") from error
        return found.unsqueeze(0).unsqueeze(0)


def _decide(slab: Slab, asked: Tensor, found: Tensor, best: Tensor) -> None:
    """Put the likeliest of these classes where it is likelier than what was `found` before."""
    if not all(map(torch.isfinite, torch.aminmax(slab.scores))):
        raise ModelError("the network's answer is not finite")
    top, index = slab.scores.max(dim=0)
    likelier = top > best
    found[likelier] = asked[index[likelier]].to(found.dtype)
    best[likelier] = top[likelier]
