"""MONAI's feature pyramids are built without torchvision, which they take two small things from.

`monai.apps.detection` wants `_validate_trainable_layers` and `IntermediateLayerGetter`, and
torchvision does not load beside a torch that is built for the CPU. While `buildable` lasts, MONAI
has these two; where torchvision can be imported its own are used. Names of parameters are the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

from torch import Tensor, nn


class Stages(nn.ModuleDict):
    """A network's first children, run in order; those in `return_layers` give their output.

    `return_layers`: name of a child -> name of its output. Children after the last of them are left
    out, and with them their parameters.
    """

    def __init__(self, backbone: nn.Module, return_layers: Mapping[str, str]) -> None:
        children = dict(backbone.named_children())
        if unknown := set(return_layers) - set(children):
            raise ValueError(f"the network has no {', '.join(sorted(unknown))}")
        names = list(children)
        last = max(names.index(name) for name in return_layers)
        super().__init__({name: children[name] for name in names[: last + 1]})
        self.return_layers = dict(return_layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs by name, the finest first."""
        found = {}
        for name, stage in self.items():
            x = stage(x)
            if name in self.return_layers:
                found[self.return_layers[name]] = x
        return found


def trained_layers(pretrained: bool, wanted: int | None, max_value: int, default_value: int) -> int:  # noqa: FBT001  (the order that MONAI calls it in)
    """How many stages of a backbone would be trained: all, unless it comes trained."""
    chosen = default_value if wanted is None else wanted
    if not 0 <= chosen <= max_value:
        raise ValueError(f"trainable_backbone_layers is {chosen}; allowed: 0 to {max_value}")
    return chosen if pretrained else max_value


@contextmanager
def buildable() -> Iterator[None]:
    """While it lasts, RetinaNets of MONAI can be built, with torchvision or without."""
    from monai.apps.detection.networks import retinanet_network
    from monai.networks.blocks import backbone_fpn_utils
    from monai.utils.module import optional_import

    _, usable = optional_import("torchvision.models")
    ours: dict[tuple[ModuleType, str], object] = {
        (backbone_fpn_utils, "torchvision_models"): SimpleNamespace(
            _utils=SimpleNamespace(IntermediateLayerGetter=Stages)
        ),
        (retinanet_network, "_validate_trainable_layers"): trained_layers,
    }
    theirs = {place: getattr(*place) for place in ours}
    for (module, name), value in ({} if usable else ours).items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name), value in theirs.items():
            setattr(module, name, value)
