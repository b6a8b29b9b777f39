"""A bare network with its options as a model: from an image to findings on the image's own grid.

The steps are the options' in their order: turn, look for the place, resample, scale, pad, run,
activate, cut, back to the source's grid, decide.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from inference import heat_maps
from inference.arrays import answers, inputs, keypoints, locating, results, segmentation, sides
from inference.arrays.inputs import Seen
from inference.arrays.options import Locate, Options
from inference.arrays.placement import Placement
from inference.arrays.running import Runner
from inference.description import Description, Task
from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.requirements import Requirements


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayModel:
    """See the module. `locator`: of `options.locate`."""

    requirements: Requirements
    description: Description
    options: Options
    network: Runner
    locator: Runner | None = None

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the network finds; refused when the coarse network finds no place to look at."""
        arrays = inputs.seen(image, self.description.roles)
        placement = self._placement(arrays)
        if placement is None:
            words = "the coarse network found nothing to look at"
            return Findings(
                verdict=Verdict.NOT_ANALYSED, reason=words, limitations=self.description.limits
            )
        found = TASKS[self.description.task](self, image, placement, self._given(arrays, placement))
        unsure = sides.limits(self.description, self.options.input)
        limitations = (*found.limitations, *unsure, *self.network.limits)
        return replace(found, limitations=limitations, computed=self.network.computed)

    def _placement(self, arrays: Seen) -> Placement | None:
        whole = Placement.whole(
            arrays.shape, affine=arrays.affine, orientation=self.options.input.orientation
        )
        if self.options.input.spacing and arrays.spacing is None:
            raise ModelRefused("options.input.spacing: this image states no spacing")
        locate = self.options.locate
        found = whole if locate is None else self._located(arrays, whole, locate)
        return found and found.resized(
            source_spacing=arrays.spacing or (),
            spacing=self.options.input.spacing,
            size=self.options.input.size,
        )

    def _located(self, arrays: Seen, whole: Placement, locate: Locate) -> Placement | None:
        coarse = whole.resized(source_spacing=(), spacing=(), size=locate.size)
        if self.locator is None:
            raise ModelRefused("options.locate: no network")
        return locating.located(self.locator.whole(self._given(arrays, coarse)), whole, locate)

    def _given(self, arrays: Seen, placement: Placement) -> Tensor:
        """(channel, *space) of the network's grid."""
        return inputs.given(arrays, placement, self.options.input, self.description.roles)


def _segmentation(
    model: ArrayModel, image: Image | PlanarImage, placement: Placement, given: Tensor
) -> Findings:
    description, output = model.description, model.options.output
    if output.form == "label_map":
        found = segmentation.of_label_map(model.network.whole(given), placement)
    else:
        found = model.network.scores(
            given,
            lambda slabs, axis: segmentation.labels(slabs, axis, placement, description, output),
        )
    masks = segmentation.masks(found, description, output)
    return results.segmented(image, description, masks)


def _keypoints(
    model: ArrayModel, image: Image | PlanarImage, placement: Placement, given: Tensor
) -> Findings:
    labels, output, space = model.description.labels, model.options.output, given.shape[1:]
    shape = (*(1 for _ in range(3 - len(space))), *space)
    tops = model.network.scores(
        given,
        lambda slabs, axis: keypoints.tops(slabs, axis, shape[axis], labels, output),
    )
    found = (
        (label, replace(top, place=placement.source_index(top.place[-len(space) :])))
        for label, top in zip(labels, tops, strict=True)
    )
    return heat_maps.findings(found, partial(results.located, image), model.description)


def _classes(
    model: ArrayModel, _image: Image | PlanarImage, _placement: Placement, given: Tensor
) -> Findings:
    outputs = model.network.vector(given)
    if not torch.isfinite(outputs).all():
        raise ModelError("the network's answer is not finite")
    likely = answers.probabilities(outputs, model.description, model.options.output)
    found = answers.classifications(likely, model.description, model.options.output)
    nameless = answers.nameless(likely, model.description)
    return Findings(
        verdict=Verdict.MEASURED,
        classifications=tuple(found),
        limitations=(*model.description.limits, *nameless),
    )


def _numbers(
    model: ArrayModel, _image: Image | PlanarImage, _placement: Placement, given: Tensor
) -> Findings:
    outputs = model.network.vector(given)
    found = answers.measurements(outputs, model.description, model.options.output)
    return Findings(
        verdict=Verdict.MEASURED,
        measurements=tuple(found),
        limitations=model.description.limits,
    )


TASKS: Mapping[Task, Callable[[ArrayModel, Image | PlanarImage, Placement, Tensor], Findings]] = {
    Task.SEGMENTATION: _segmentation,
    Task.KEYPOINTS: _keypoints,
    Task.CLASSIFICATION: _classes,
    Task.REGRESSION: _numbers,
}
