"""torchvision's `maskrcnn_resnet50_fpn` or its `_v2`, whichever the weights are of; no download.

Weights decide: the architecture, the number of classes. Every parameter comes from them, strictly.
What it finds is what torchvision's own call gives, but each mask is put into the image's matrix
alone and kept as the box of what is in it: a hundred objects of a mammogram would be gigabytes.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inference import regions, torchvision_operators
from inference.engine.device import is_exhausted
from inference.errors import ModelError, ModelRefused
from inference.mask_rcnn.options import LEVELS, Network
from inference.regions import Region

KIND = "kind mask_rcnn"
DETECTION = "torchvision.models.detection"
LAST = "roi_heads.mask_predictor.mask_fcn_logits.weight"  # (class, channel, 1, 1)
ONLY_V2 = "roi_heads.box_head.0.0.weight"  # its box head has convolutions
MOST_CLASSES = 10_000  # a tensor may say that it is large without having as many numbers
CHANNELS = 256  # of every level of the pyramid
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One object. `number`: its class, from 1; `score`: 0 to 1.

    `box`: left, top, right, bottom in pixels, counted from the outer corner of the first pixel;
    `mask`: axes (row, column) of the image, perhaps empty.
    """

    number: int
    score: float
    box: tuple[float, float, float, float]
    mask: Region


def classes(weights: State) -> int:
    """How many classes weights are of, the background (0) among them; raises ModelRefused."""
    last = weights.get(LAST)
    if not isinstance(last, Tensor) or last.ndim != 4:
        raise ModelRefused(f"its weights are of no Mask R-CNN of torchvision: no {LAST}")
    if not 1 < len(last) <= MOST_CLASSES:
        raise ModelRefused(f"its weights are of {len(last)} classes; allowed: 2 to {MOST_CLASSES}")
    return len(last)


def build(weights: State, options: Network, device: torch.device) -> nn.Module:
    """The network on a device with these weights; raises ModelRefused unless they all fit."""
    torchvision_operators.required(KIND, device)
    v2, count = ONLY_V2 in weights, classes(weights)
    made = importlib.import_module(DETECTION)
    network: Any = (made.maskrcnn_resnet50_fpn_v2 if v2 else made.maskrcnn_resnet50_fpn)(
        weights=None,
        weights_backbone=None,
        num_classes=count,
        min_size=options.min_size,
        max_size=options.max_size,
        image_mean=list(options.image_mean),
        image_std=list(options.image_std),
        rpn_pre_nms_top_n_test=options.rpn_pre_nms_top_n_test,
        rpn_post_nms_top_n_test=options.rpn_post_nms_top_n_test,
        rpn_nms_thresh=options.rpn_nms_thresh,
        rpn_score_thresh=options.rpn_score_thresh,
        box_score_thresh=options.box_score_thresh,
        box_nms_thresh=options.box_nms_thresh,
        box_detections_per_img=options.box_detections_per_img,
    )
    _set_anchors(network, options, depth=2 if v2 else 1)
    for layer in network.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = options.norm_eps
    _load(network, weights)
    for part in _parts_that_answer(network):
        part.register_forward_hook(_finite)
    placed: nn.Module = network.to(device).eval()
    return placed


def instances(
    network: nn.Module, image: Tensor, wanted: Callable[[int, float], bool], threshold: float
) -> Iterator[Instance]:
    """The objects in an image (red green blue, row, column) of 0 to 1, the surest first.

    `wanted`: of which class and score; `threshold`: probability above which a pixel is an object's.
    """
    device = next(network.parameters()).device
    with torch.inference_mode():
        found, seen_as = _found(network, image.to(device))
        rows, columns = image.shape[1:]
        boxes = importlib.import_module(f"{DETECTION}.transform").resize_boxes(
            found["boxes"], seen_as, (rows, columns)
        )
        pasted = importlib.import_module(f"{DETECTION}.roi_heads").paste_masks_in_image
        for index, (number, score) in enumerate(
            zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)
        ):
            if wanted(number, score):
                one = slice(index, index + 1)
                mask = pasted(found["masks"][one], boxes[one], (rows, columns))[0, 0] > threshold
                left, top, right, bottom = boxes[index].tolist()
                yield Instance(
                    number=number,
                    score=score,
                    box=(left, top, right, bottom),
                    mask=regions.of_mask(mask.cpu().numpy()),
                )


def _found(network: Any, image: Tensor) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """Boxes, labels, scores and small masks in the resized image, and its rows and columns."""
    images, _ = network.transform([image])
    features = network.backbone(images.tensors)
    proposals, _ = network.rpn(images, features)
    ((found,), _) = network.roi_heads(features, proposals, images.image_sizes)
    return found, images.image_sizes[0]


def _set_anchors(network: Any, options: Network, *, depth: int) -> None:
    """Of the size and shape that the options name; as many outputs for each as there are."""
    rpn = importlib.import_module(f"{DETECTION}.rpn")
    network.rpn.anchor_generator = rpn.AnchorGenerator(
        options.anchor_sizes, (options.aspect_ratios,) * LEVELS
    )
    each = len(options.anchor_sizes[0]) * len(options.aspect_ratios)
    network.rpn.head = rpn.RPNHead(CHANNELS, each, conv_depth=depth)


def _load(network: nn.Module, weights: State) -> None:
    """Of frozen batch normalisation too, which counts no batches."""
    try:
        network.load_state_dict(dict(weights), strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        if is_exhausted(error):
            raise
        lines = str(error).strip().splitlines()
        detail = lines[1].strip() if len(lines) > 1 else type(error).__name__
        raise ModelRefused(f"its weights do not fit the network: {detail[:200]}") from error


def _parts_that_answer(network: Any) -> tuple[nn.Module, ...]:
    heads = network.roi_heads
    return network.rpn.head, heads.box_predictor, heads.mask_predictor


def _finite(_part: nn.Module, _given: Any, said: Any) -> None:
    """What is not finite is above no threshold and would pass for an image without findings."""
    for answer in said if isinstance(said, tuple) else (said,):
        for one in answer if isinstance(answer, list) else (answer,):
            if not torch.isfinite(one).all():
                raise ModelError("the network's answer is not finite")
