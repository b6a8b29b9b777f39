"""A bundle that detects, written here: a small RetinaNet of MONAI that finds what is bright.

Its weights are set by hand: the image goes through as it is, each group normalisation makes what
stands out stand out more, and the head says yes where it does. A box is therefore an anchor at the
brightest place, exact to half of the two voxels between anchors. The anchors of the coarser level
have no size: it finds nothing.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference.bundles import feature_pyramids

SPACING_MM = 2.0
ANCHOR = (6, 8, 10)  # voxels along x, y, z
STRIDE = 2  # voxels between anchors
BRIGHT = 1  # the class of what is bright; 0 is never found
THRESHOLD, SURE = 5.5, 1.0  # of the normalised brightness, where the probability is a half


def configuration(dimensions: int = 3, *, window: int | None = None) -> dict[str, Any]:
    """What inference.json says, in the manner of detection bundles."""
    anchor = list(ANCHOR[:dimensions])
    operations = [
        "$@detector.set_target_keys(box_key='box', label_key='label')",
        (
            "$@detector.set_box_selector_parameters("
            "score_thresh=0.02, topk_candidates_per_level=100, nms_thresh=0.2, "
            "detections_per_img=20)"
        ),
    ]
    if window is not None:
        operations.append(
            f"$@detector.set_sliding_window_inferer(roi_size={[window] * dimensions}, "
            "overlap=0.5, sw_batch_size=1, mode='gaussian', device='cpu')"
        )
    orientation = {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"}
    return {
        "imports": ["$import glob"],
        "image_key": "image",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "layers": [1],
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": "$[1 - level for level in range(len(@layers) + 1)]",
            "base_anchor_shapes": [anchor],
        },
        "backbone": {
            "_target_": "ResNet",
            "block": "basic",
            "layers": [1, 1, 1, 1],
            "block_inplanes": [8, 16, 32, 64],
            "spatial_dims": dimensions,
            "n_input_channels": 1,
            "conv1_t_stride": 1,
            "conv1_t_size": 3,
        },
        "feature_extractor": (
            "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor("
            f"@backbone, {dimensions}, False, @layers, None)"
        ),
        "network_def": {
            "_target_": "RetinaNet",
            "spatial_dims": dimensions,
            "num_classes": 2,
            "num_anchors": 1,
            "feature_extractor": "@feature_extractor",
            "size_divisible": 4,
        },
        "network": "$@network_def.to(@device)",
        "detector": {
            "_target_": "RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "debug": False,
        },
        "detector_ops": operations,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                *([orientation] if dimensions == 3 else []),
                {
                    "_target_": "Spacingd",
                    "keys": "@image_key",
                    "pixdim": [SPACING_MM] * dimensions,
                    "mode": "bilinear",
                },
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "@image_key",
                    "a_min": 0.0,
                    "a_max": 2000.0,
                    "b_min": 0.0,
                    "b_max": 1.0,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "@image_key"},
            ],
        },
        "inferer": {"_target_": "scripts.windows.Inferer", "detector": "@detector"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "ClipBoxToImaged",
                    "box_keys": "box",
                    "label_keys": ["label", "label_scores"],
                    "box_ref_image_keys": "@image_key",
                    "remove_empty": True,
                },
                {
                    "_target_": "AffineBoxToWorldCoordinated",
                    "box_keys": "box",
                    "box_ref_image_keys": "@image_key",
                    "affine_lps_to_ras": True,
                },
                {
                    "_target_": "ConvertBoxModed",
                    "box_keys": "box",
                    "src_mode": "xyzxyz" if dimensions == 3 else "xyxy",
                    "dst_mode": "cccwhd" if dimensions == 3 else "ccwh",
                },
                {"_target_": "DeleteItemsd", "keys": ["image"]},
            ],
        },
    }


METADATA: dict[str, Any] = {
    "name": "What is bright",
    "version": "0.1",
    "description": "Finds bright balls.",
    "network_data_format": {
        "inputs": {"image": {"format": "hounsfield", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "dark", "1": "ball"}}},
    },
}


def make(folder: Path, dimensions: int = 3, *, window: int | None = None) -> Path:
    """The bundle in `folder`, with its weights."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    tree = configuration(dimensions, window=window)
    (folder / "configs" / "inference.json").write_text(json.dumps(tree))
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    torch.save(network(tree).state_dict(), folder / "models" / "model.pt")
    return folder


def network(tree: dict[str, Any]) -> nn.Module:
    """The RetinaNet with weights that find what is bright."""
    from monai.bundle import ConfigParser

    with feature_pyramids.buildable():
        made: nn.Module = ConfigParser(tree).get_parsed_content("network_def")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        _pass_on(made)
        centre = (slice(None), *[1] * tree["network_def"]["spatial_dims"])
        logits = made.classification_head.cls_logits
        logits.weight[BRIGHT, 0][centre[1:]] = SURE
        logits.bias[:] = -50.0
        logits.bias[BRIGHT] = -THRESHOLD * SURE
        dimensions = tree["network_def"]["spatial_dims"]
        for axis, size in enumerate(ANCHOR[:dimensions]):  # MONAI's anchors lie half a stride on
            made.regression_head.bbox_reg.bias[axis] = -(STRIDE // 2) / size
    return made


def _pass_on(made: Any) -> None:
    """The image's own values, slightly smoothed, in every channel as far as the heads."""
    body, fpn = made.feature_extractor.body, made.feature_extractor.fpn
    _identity(body.conv1)
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)):
        norm.weight.fill_(1.0)
    for norm in (m for m in made.modules() if isinstance(m, nn.GroupNorm)):
        norm.weight.fill_(1.0)
    for convolution in _convolutions(fpn.inner_blocks):
        _identity(convolution)
    for convolution in _convolutions(fpn.layer_blocks):
        _smoothing(convolution)
    for layer in (*made.classification_head.conv, *made.regression_head.conv):
        if not isinstance(layer, nn.GroupNorm | nn.ReLU):
            _identity(layer)


def _convolutions(blocks: nn.Module) -> list[Any]:
    return [one for one in blocks.modules() if isinstance(one, nn.Conv2d | nn.Conv3d)]


def _smoothing(convolution: Any) -> None:
    """Each output is its input, weighted 1, 2, 1 along each axis."""
    kernel = torch.ones(())
    for _ in convolution.kernel_size:
        kernel = kernel[..., None] * torch.tensor([1.0, 2.0, 1.0]) / 4
    for channel in range(convolution.out_channels):
        convolution.weight[channel, channel] = kernel


def _identity(convolution: Any) -> None:
    """Each output is an input, in the middle of the kernel."""
    weight = convolution.weight
    middle = tuple(size // 2 for size in weight.shape[2:])
    for channel in range(weight.shape[0]):
        weight[(channel, channel % weight.shape[1], *middle)] = 1.0
