"""A Mask R-CNN whose weights are set by hand: it finds bright and grey discs of two sizes.

Two channels carry an image through ResNet and pyramid, untouched but for pooling: how bright it is
and how dark. The box head compares a box with a disc that fills it; the mask head cuts at half the
height. Everything else is 0. Needs torchvision, whose architecture it is.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference import torchvision_operators
from inference.errors import ModelRefused

BRIGHT, GREY = 1, 2  # classes, and ...
LEVEL = {BRIGHT: 1.0, GREY: 0.6}  # ... how bright their discs are
LIGHT, DARK = 0, 1  # the two channels that are used
RADII = (32, 20)
EDGE = 256  # pixels of the image's shorter side, as it is
BINS = 7  # across what the box head sees
STEEP = 40.0
ANCHORS = ("anchor_sizes", "aspect_ratios")
NETWORK: dict[str, Any] = {  # the part of `[options.network]` that it was made for
    "min_size": EDGE,
    "image_mean": [0.0, 0.0, 0.0],
    "image_std": [1.0, 1.0, 1.0],
    "anchor_sizes": [[2.0 * radius for radius in RADII]] * 5,
    "aspect_ratios": [1.0],
    "rpn_nms_thresh": 1.0,
    "box_nms_thresh": 0.4,
}


def unusable() -> str | None:
    """Why torchvision cannot be used here; None when it can."""
    try:
        torchvision_operators.required("the test")
    except ModelRefused as refusal:
        return str(refusal)
    return None


usable = pytest.mark.skipif(unusable() is not None, reason=unusable() or "")


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc, its middle in pixels."""

    kind: int
    column: float
    row: float
    radius: int

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels inside."""
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        inside: NDArray[np.bool_] = np.hypot(rows - self.row, columns - self.column) <= self.radius
        return inside


def drawn(discs: Sequence[Disc], shape: tuple[int, int] = (EDGE, EDGE)) -> NDArray[np.float32]:
    """An image from 0 to 1, the later discs over the earlier."""
    image = np.zeros(shape, np.float32)
    for disc in discs:
        image[disc.mask(shape)] = LEVEL[disc.kind]
    image[0, 0] = 1.0  # (the range of every image is the same)
    return image


def network(*, v2: bool = False) -> Any:
    """The network as torchvision builds it, its weights set."""
    detection = importlib.import_module("torchvision.models.detection")
    rpn = importlib.import_module("torchvision.models.detection.rpn")
    make = detection.maskrcnn_resnet50_fpn_v2 if v2 else detection.maskrcnn_resnet50_fpn
    given = {key: value for key, value in NETWORK.items() if key not in ANCHORS}
    made = make(weights=None, weights_backbone=None, num_classes=len(LEVEL) + 1, **given)
    made.rpn.anchor_generator = rpn.AnchorGenerator(
        tuple(map(tuple, NETWORK["anchor_sizes"])), (tuple(NETWORK["aspect_ratios"]),) * 5
    )
    made.rpn.head = rpn.RPNHead(256, len(RADII), conv_depth=2 if v2 else 1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            normal = name.endswith("weight") and parameter.ndim == 1  # of batch normalisation
            parameter.fill_(1.0 if normal else 0.0)
        _backbone(made.backbone)
        _proposals(made.rpn.head)
        _boxes(made.roi_heads)
        _masks(made.roi_heads)
    return made.eval()


def saved(file: Path, *, v2: bool = False) -> Path:
    """Its weights in a file."""
    torch.save(network(v2=v2).state_dict(), file)
    return file


def _through(layer: Any) -> None:
    """The two channels as they come, by the middle of the kernel."""
    height, width = layer.weight.shape[2:]
    for channel in (LIGHT, DARK):
        layer.weight[channel, channel, height // 2, width // 2] = 1.0


def _backbone(backbone: Any) -> None:
    body = backbone.body
    body.conv1.weight[LIGHT, :, 3:5, 3:5] = 1 / 12  # the mean of four pixels and three colours
    body.conv1.weight[DARK, :, 3:5, 3:5] = -1 / 12
    body.bn1.bias[DARK] = 1.0
    for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
        for block in stage:
            block.bn3.weight.fill_(0.0)  # nothing but what goes past
    _through(body.layer1[0].downsample[0])
    _through(backbone.fpn.inner_blocks[0][0])
    _through(backbone.fpn.layer_blocks[0][0])


def _proposals(head: Any) -> None:
    for layer in head.conv:
        _through(layer[0])
    head.cls_logits.weight[:, LIGHT] = 10.0
    head.cls_logits.bias.fill_(-5.0)


def _boxes(heads: Any) -> None:
    """Unit 0: how well a disc fills the box, times its brightness; the others: what is not grey.

    The first is the mean inside less the mean of the corners, of (light + 1 - dark) / 2.
    """
    across = (np.arange(BINS) + 0.5) / BINS * 2 - 1
    distance = np.hypot(*np.meshgrid(across, across))
    inside, corners = distance < 0.9, distance > 1.15
    fills = torch.from_numpy(inside / inside.sum() - corners / corners.sum()).float().ravel()
    *layers, first, second = _linear(heads.box_head)
    for layer in layers:
        _through(layer)
    light, dark = (slice(one * BINS**2, (one + 1) * BINS**2) for one in (LIGHT, DARK))
    first.weight[0, light], first.weight[0, dark] = fills / 2, -fills / 2
    first.weight[1 : BINS**2 + 1, light] = torch.eye(BINS**2)
    first.bias[1 : BINS**2 + 1] = -0.8
    if second is not None:
        second.weight.copy_(torch.eye(len(second.weight)))
    score = heads.box_predictor.cls_score
    score.weight[BRIGHT, 0], score.bias[BRIGHT] = STEEP, -0.6 * STEEP
    score.weight[GREY, 0], score.bias[GREY] = STEEP, -0.36 * STEEP
    score.weight[GREY, 1 : BINS**2 + 1] = -50 * STEEP


def _linear(head: Any) -> tuple[Any, ...]:
    """The convolutions of `_v2`, then two linear layers, of which `_v2` has one."""
    if hasattr(head, "fc6"):
        return head.fc6, head.fc7
    return *(head[index][0] for index in range(4)), head[5], None


def _masks(heads: Any) -> None:
    for layer in heads.mask_head:
        _through(layer[0])
    for channel in (LIGHT, DARK):
        heads.mask_predictor.conv5_mask.weight[channel, channel] = 1.0
    last = heads.mask_predictor.mask_fcn_logits
    for kind, level in LEVEL.items():
        last.weight[kind, LIGHT], last.weight[kind, DARK] = 10.0, -10.0
        last.bias[kind] = 10.0 * (1 - level)  # 20 * ((light + 1 - dark) / 2 - level / 2)
