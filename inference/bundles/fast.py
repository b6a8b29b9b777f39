"""A bundle of the common kind, run by the engine: the same labels, in a slab's memory.

What `recognition` does not know, or an image whose axes are not at right angles, runs as the
bundle has it. Values of labels and masks are on the image's own grid, axes (slice, row, column).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from inference import phantom
from inference.bundles import answers
from inference.bundles.recipe import Recipe
from inference.bundles.recognition import Chain, Intensity, recognised
from inference.description import Description
from inference.engine import labelling, last_layer, precision, resampling, sliding_window
from inference.engine.device import Device
from inference.engine.effort import Effort, kept, lessened, limits, managed
from inference.engine.last_layer import Parted
from inference.engine.precision import Choice, Precision
from inference.engine.samples import SEED, blobs
from inference.engine.sliding_window import UnevenScores
from inference.errors import ModelRefused
from inference.findings import Computation, Findings, Image

MOST = (64, 1 << 10)  # voxels a side of what arithmetics are compared on: quicker, else the window
WINDOW = 96  # voxels, where the bundle takes the whole axis
FIELD_HU = 1000.0  # what the seeded field spans, up and down


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """`labels`: (slice, row, column) whole numbers; or (class, slice, row, column) of bool.

    `limits`: what a person must know of how it was computed.
    """

    labels: NDArray[np.generic]
    computed: Computation
    limits: tuple[str, ...] = ()


class FastBundle:
    """A recognised bundle on a device. How much fits at once is remembered from image to image."""

    def __init__(
        self,
        recipe: Recipe,
        chain: Chain,
        device: Device,
        choice: Choice,
        description: Description,
        parted: Parted | None = None,
    ) -> None:
        self.choice = choice
        self._description = description
        self._chain = chain
        self._device = device
        network = recipe.network if parted is None else parted.network
        self._last = None if parted is None else parted.last.scores
        self._predict = precision.predictor(
            network, device, choice.precision, by_class=parted is None
        )
        self._meant = Effort(
            windows=replace(chain.windows, batch=device.windows),
            on_host=device.torch.type == "cpu",
        )
        self._effort = self._meant

    def findings(self, image: Image) -> Findings:
        """What the bundle says of one image; raises what `labels` raises."""
        found = self.labels(image, self._description.roles)
        said = answers.labelled(found.labels, image, self._description)
        limitations = (*said.limitations, *found.limits)
        return replace(said, limitations=limitations, computed=found.computed)

    def labels(self, image: Image, roles: Sequence[str] = ()) -> Labelled:
        """What the bundle finds.

        Raises Oblique or UnevenScores for what it is not made for; the bundle's own parts are.
        """
        volume = image.volume
        grid = resampling.mapping(
            np.asarray(volume.affine, np.float64), volume.spatial_shape, self._chain.spacing
        )
        series = [image.roles[role].array for role in roles] or [volume.array]
        with torch.inference_mode():
            seen = self._seen(series, grid)
            found, used = managed(lambda one: self._label(seen, grid, one), self._effort)
        self._effort = kept(used, self._chain.windows)
        computed = Computation(
            arithmetic=self.choice.precision.value,
            device=self._device.torch.type,
            lessened=lessened(used, self._meant),
        )
        return Labelled(
            labels=found.numpy(), computed=computed, limits=limits(used, self._chain.windows)
        )

    def _seen(self, series: Sequence[NDArray[np.generic]], grid: resampling.Mapping) -> Tensor:
        """The image as the network sees it, (channel, right, front, head), on the host."""
        host = torch.device("cpu")
        if self._chain.before:
            whole = torch.from_numpy(np.stack(series).astype(np.float32))
            series = list(_changed(whole, self._chain.before, self._chain.image_key).numpy())
        placed = torch.stack([grid.apply(values, host) for values in series])
        return _changed(placed, self._chain.after, self._chain.image_key)

    def _label(self, seen: Tensor, grid: resampling.Mapping, effort: Effort) -> Tensor:
        size = effort.windows.fitted(seen.shape[1:])
        axis = sliding_window.longest_axis(seen.shape[1:], size)
        slabs = sliding_window.slabs(
            seen if effort.on_host else seen.to(self._device.torch),
            self._predict,
            effort.windows,
            axis=axis,
            divided=not self._chain.rule.scale_free,
            last=self._last,
        )
        return labelling.label(slabs, grid, self._chain.rule, axis=axis)


def load(recipe: Recipe, description: Description, device: Device) -> FastBundle | None:
    """The bundle run by the engine; None when it is not of the common kind.

    Options of the sidecar: `agreement`, 0 to 1, below which bfloat16 is not used (above 1:
    never); `engine = false`: as the bundle has it. Raises ModelRefused for other values.
    """
    options = description.options
    bound, wanted = options.get("agreement", precision.BOUND), options.get("engine", True)
    if not isinstance(bound, int | float) or not isinstance(wanted, bool):
        raise ModelRefused("options.agreement is a number, options.engine true or false")
    chain = recognised(recipe) if wanted else None
    if chain is None or (description.overlapping and chain.rule.threshold is None):
        return None
    precision.prepared(recipe.network, device, len(chain.windows.size))
    for most in MOST:
        seen = [_sample(chain, description, most)] if device.bfloat16 else []
        try:
            choice = precision.choose(recipe.network, device, chain.rule, seen, bound=bound)
        except (RuntimeError, ValueError, UnevenScores):  # (it takes no window of that size)
            continue
        return FastBundle(
            recipe, chain, device, choice, description, _parted(recipe, device, choice, seen)
        )
    return None  # (nor of its own: it runs as it is)


def _parted(
    recipe: Recipe, device: Device, choice: Choice, seen: Sequence[Tensor]
) -> Parted | None:
    """The network in two, where that saves something and it is not exact anyway."""
    if choice.precision is not Precision.BFLOAT16:
        return None
    with torch.inference_mode():
        return last_layer.parted(recipe.network, seen[0].to(device.torch))


def _sample(chain: Chain, description: Description, most: int) -> Tensor:
    """A seeded window as the network sees images, of at most so many voxels a side.

    A synthetic chest for CT, else blobs.
    """
    own = (extent if extent > 0 else WINDOW for extent in chain.windows.size)
    size = tuple(min(extent, most) for extent in own)
    channels = max(1, len(description.roles))
    made = _chest(chain, size) if description.modalities == ("CT",) else _field(size)
    return _changed(made.expand(channels, *size), chain.after, chain.image_key)


def _chest(chain: Chain, size: tuple[int, ...]) -> Tensor:
    """The middle of a chest, HU, as a window (1, right, front, head)."""
    right, front, head = size
    x, y, z = chain.spacing or (1.0, 1.0, 1.0)
    hu = phantom.thorax((head, front, right), (z, y, x), seed=SEED).hu
    return torch.from_numpy(hu.astype(np.float32)).permute(2, 1, 0).flip(0, 1)[None]


def _field(size: tuple[int, ...]) -> Tensor:
    """Blobs of several sizes, as bright and dark as a CT: (1, *size)."""
    field = blobs(size)
    return field[None] * (FIELD_HU / float(field.abs().max()))


def _changed(values: Tensor, steps: Sequence[Intensity], key: str) -> Tensor:
    """After changes of intensity, which MONAI's own transforms make."""
    sample: dict[str, Any] = {key: values}
    for step in steps:
        sample = step(sample)
    found = sample[key]
    plain: Tensor = found.as_tensor() if isinstance(found, MetaTensor) else torch.as_tensor(found)
    return plain.float()
