"""A bundle that detects: its network, detector and transforms give boxes at their exact place.

MONAI's own last transforms turn a box into one along the patient's axes by two of its corners: on
an oblique stack its sides are then wrong, and which way "world" runs is the bundle's choice. So
those are left out; a box in the voxels that the network saw becomes three vectors in the patient,
LPS mm, by the affine of the image it was found in. In planar images it becomes two, in pixels.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.bundles import configuration, coverage, feature_pyramids, grids, recipe
from inference.bundles.configuration import DISABLED, ENDINGS, TARGET, Tree, class_name
from inference.bundles.recipe import Sample
from inference.description import Description, Label
from inference.errors import ModelError, ModelRefused
from inference.findings import Box, Detection, Findings, Image, PlanarImage, Verdict, not_found
from inference.model_files import ModelFiles

DETECTOR, OPERATIONS = "detector", "detector_ops"
MOVES = frozenset(
    f"{name}{ending}"
    for name in (
        "AffineBoxToWorldCoordinate",
        "ConvertBoxMode",
        "ConvertBoxToStandardMode",
        "DeleteItems",
        "SelectItems",
    )
    for ending in ENDINGS
)
"""What turns boxes into those of the patient or another notation, or throws the image away."""
STAYS = re.compile(r"(ClipBoxToImage|StandardizeEmptyBox)(d|D|Dict)?")
LPS = np.array([-1.0, -1.0, 1.0])
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A bundle's detector with its weights, and what comes before and after it.

    `detector`: images (channel, *space) to boxes (corner, opposite corner) in their voxels, with
    classes and scores; a bundle's own threshold and non-maximum suppression are part of it.
    """

    detector: Any
    preprocessing: Callable[[Sample], Sample]
    postprocessing: Callable[[Sample], Sample]
    device: torch.device
    image_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """What was found: corners (n, 2, dimension) in the voxels of a grid, classes and scores.

    `affine`: index (x, y[, z]) of that grid to RAS mm, or to the plane of the image; `limits`: what
    a person must know of how they were found.
    """

    corners: Floats
    classes: NDArray[np.int64]
    scores: Floats
    affine: Floats
    limits: tuple[str, ...] = ()


def build(files: ModelFiles, options: Mapping[str, Any], *, trusted: bool, device: str) -> Detector:
    """The bundle on a device; raises ModelRefused with the line that says what it needs or lacks.

    Its `inferer`, often code of its own, is not built: it does what `found` does.
    """
    for name in ("ensemble", "mirror"):
        if options.get(name):
            raise ModelRefused(f"options.{name}: boxes are not averaged; allowed: []")
    whole = recipe.read(files, options)
    parts = configuration.parts(whole)
    if DETECTOR not in whole:
        raise ModelRefused(f"{files.path.name}: its configuration has no {DETECTOR}")
    operations = (OPERATIONS,) if OPERATIONS in whole else ()
    names = (
        parts.network,
        parts.preprocessing,
        parts.postprocessing,
        DETECTOR,
        *operations,
    )
    tree = _unmoved(recipe.allowed(files, whole, names, trusted=trusted), parts.postprocessing)
    with feature_pyramids.buildable():
        built = recipe.parsed(files, tree, names, trusted=trusted, device=device)
    recipe.load_weights(built[parts.network], files, options)
    built[DETECTOR].network.register_forward_hook(_finite)
    return Detector(
        detector=built[DETECTOR].to(device).eval(),
        preprocessing=built[parts.preprocessing],
        postprocessing=built[parts.postprocessing],
        device=torch.device(device),
        image_key=recipe.image_key(whole),
    )


def _finite(_network: torch.nn.Module, _given: Any, said: Any) -> None:
    """What is not finite is above no threshold and would pass for an image without findings."""
    for maps in said.values() if isinstance(said, Mapping) else said:
        for one in maps if isinstance(maps, list | tuple) else [maps]:
            if not torch.isfinite(one).all():
                raise ModelError("the network's answer is not finite")


def _unmoved(tree: Tree, postprocessing: str) -> Tree:
    """Boxes stay in the voxels that the network saw; raises ModelRefused for unknown moves."""
    for name in configuration.targets(tree[postprocessing]):
        short = class_name(name)
        if "Box" in short and short not in MOVES and not STAYS.fullmatch(short):
            raise ModelRefused(f"its {postprocessing} has {short}, which moves boxes elsewhere")
    changed: Tree = _without_moves(tree)
    return changed


def _without_moves(item: Any) -> Any:
    if isinstance(item, Mapping):
        moves = class_name(str(item.get(TARGET))) in MOVES
        table = {key: _without_moves(value) for key, value in item.items()}
        return {TARGET: item[TARGET], DISABLED: True} if moves else table
    return [_without_moves(value) for value in item] if isinstance(item, list) else item


def found(built: Detector, image: Image | PlanarImage, description: Description) -> Boxes:
    """Every box that the bundle keeps, by its own thresholds, the surest first."""
    colours = description.options.get("colours")
    seen = grids.tensor(image, description.roles, colours=colours)
    sample = built.preprocessing({built.image_key: seen})
    prepared = sample[built.image_key]
    values = torch.as_tensor(prepared).as_subclass(torch.Tensor).float().to(built.device)
    detector = built.detector
    with torch.inference_mode():
        (said,) = detector([values], use_inferer=_windowed(detector, values))
    host = {key: value.detach().float().cpu() for key, value in said.items()}
    done = built.postprocessing({**sample, **host})
    dimensions = len(grids.of_image(image).shape)
    boxes = _boxes(
        done[detector.target_box_key],
        done[detector.target_label_key],
        done[detector.pred_score_key],
        _affine(prepared, dimensions),
    )
    return replace(boxes, limits=coverage.limits(prepared))


def _windowed(detector: Any, values: torch.Tensor) -> bool:
    """Whether the image is larger than the window that the bundle sets."""
    if detector.inferer is None:
        return False
    window = detector.inferer.roi_size
    sizes = [window] * (values.ndim - 1) if isinstance(window, int) else window
    return values[0].numel() >= int(np.prod(sizes))


def _affine(prepared: Any, dimensions: int) -> Floats:
    from monai.data.meta_tensor import MetaTensor
    from monai.data.utils import to_affine_nd

    if not isinstance(prepared, MetaTensor):
        raise ModelError("the bundle's preprocessing loses where its image lies")
    return np.asarray(to_affine_nd(dimensions, prepared.affine), np.float64)


def _boxes(boxes: Any, classes: Any, scores: Any, affine: Floats) -> Boxes:
    dimensions = len(affine) - 1
    corners = np.asarray(boxes, np.float64).reshape(-1, 2, dimensions)
    if not len(corners) == len(classes) == len(scores):
        raise ModelError("the bundle's postprocessing leaves boxes without a class or a score")
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    return Boxes(
        corners=corners[order],
        classes=np.rint(np.asarray(classes, np.float64)).astype(np.int64)[order],
        scores=np.asarray(scores, np.float64)[order],
        affine=affine,
    )


def findings(boxes: Boxes, image: Image | PlanarImage, description: Description) -> Findings:
    """The boxes that the sidecar has a label for, those below its threshold left out."""
    detections = tuple(_detections(boxes, image, description.labels))
    named = {one.definition.label for one in detections}
    absent = [one.definition.label for one in description.labels]
    absent = [label for label in absent if label not in named]
    return Findings(
        verdict=Verdict.MEASURED,
        detections=detections,
        limitations=(*description.limits, *not_found(absent), *boxes.limits),
    )


def _detections(
    boxes: Boxes, image: Image | PlanarImage, labels: tuple[Label, ...]
) -> Iterator[Detection]:
    by_value = {label.value: label for label in labels}
    for corners, value, score in zip(boxes.corners, boxes.classes, boxes.scores, strict=True):
        label = by_value.get(int(value))
        if label is not None and (label.threshold is None or score >= label.threshold):
            yield Detection(
                definition=label.definition,
                box=placed(corners, boxes.affine, image),
                probability=float(np.clip(score, 0.0, 1.0)),
            )


def placed(corners: Floats, affine: Floats, image: Image | PlanarImage) -> Box:
    """A box of two corners (2, dimension) in a grid as one of the image, of any orientation."""
    if isinstance(image, PlanarImage):
        step = np.linalg.inv(grids.of_image(image).affine) @ affine
    else:
        step = np.diag([*LPS, 1.0]) @ affine
    middle = step @ [*corners.mean(axis=0), 1.0]
    edges = step[:-1, :-1] * (corners[1] - corners[0])
    return Box(
        centre=tuple(float(one) for one in middle[:-1]),
        edges=tuple(tuple(float(one) for one in edge) for edge in edges.T),
    )
