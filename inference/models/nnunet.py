"""Models trained with nnU-Net v2, TotalSegmentator's among them: the labels are nnU-Net's own.

The folder `<Trainer>__<plans>__<configuration>` of the results, or the data set's folder above
several of those. nnU-Net learns arrays, not anatomy: it is given slices, rows and columns as they
come, which for an axial series is what a file converted from it has; where the training images were
turned first, the plans or `options.orientation` say so, and the image is turned alike. The result
is on the image's own grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from inference import measurement, regions
from inference.description import Description, Label, Task
from inference.engine import device
from inference.errors import InputRefused, ModelError, ModelRefused
from inference.findings import Findings, Image, PlanarImage, Segment, Verdict
from inference.models import Artifact, Model
from inference.nnunet import arithmetic, loading, options, postprocessing, proposal
from inference.nnunet.options import Options
from inference.nnunet.plans import Configuration
from inference.nnunet.postprocessing import Step
from inference.nnunet.prediction import Segmenter, Trained
from inference.nnunet.restoration import HALF
from inference.regions import Region
from inference.requirements import Requirements

VERSION = "1.0.0"

TRAINED_ORIENTATION = "RAS"  # of readers that turn images
PICTURE_SPACING = (999.0, 1.0, 1.0)  # nnU-Net's, of a picture without one
SLICE_BY_PIXEL = 999.0  # likewise, of a single slice by its larger pixel spacing
COLOURS = 3
NAMED = 5  # structures in a sentence
USUAL = "HPL"  # where slices, rows and columns of axial images of a supine patient lead
AS_IT_COMES = (
    "The slices are not axial ones of a supine patient and were given to the network as they lie: "
    "if it learnt others, structures may be missed or have their sides exchanged."
)

Labelled = NDArray[np.int16]


def propose(path: Path) -> Mapping[str, Any] | None:
    """See `proposal.propose`."""
    return proposal.propose(path)


def check(artifact: Artifact) -> None:
    """Raise ModelRefused for options that are not allowed, and for another task."""
    description = artifact.description
    if description.task is not Task.SEGMENTATION:
        raise ModelRefused(f"task: nnU-Net answers no {description.task}; allowed: segmentation")
    loading.refuse_absent(artifact.files, options.parse(description.options))


def lacking(artifact: Artifact) -> tuple[str, ...]:
    """Nothing: its networks are built here."""
    del artifact
    return ()


def load(settings: Mapping[str, object], artifact: Artifact) -> Model:  # noqa: ARG001
    """The networks with the weights of all folds; raises ModelRefused."""
    check(artifact)
    description = artifact.description
    said = options.parse(description.options)
    members = loading.members(artifact.files, said)
    last = members[0][-1]
    thresholds = _thresholds(description, last)
    _refuse_odd_labels(description, last)
    for member in members:
        _refuse_odd_input(description, member[-1].configuration)
    members = tuple((*member[:-1], member[-1].with_thresholds(thresholds)) for member in members)
    chosen = device.choose(artifact.device)
    choice = arithmetic.chosen(members, chosen, bound=said.agreement)
    return NnUnet(
        requirements=artifact.requirements,
        description=description,
        segmenter=Segmenter(members, chosen, choice),
        steps=loading.steps(artifact.files, said, last.labels),
        orientation=_orientation(said, last.configuration),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NnUnet:
    """A nnU-Net that was loaded. `orientation`: of the axes it learned; None: as they come.

    `steps`: what follows segmenting.
    """

    requirements: Requirements
    description: Description
    segmenter: Segmenter
    orientation: str | None
    steps: tuple[Step, ...] = ()

    @property
    def _last(self) -> Trained:
        """What gives the labels; the first of an ensemble, which agree in all that is asked."""
        return self.segmenter.members[0][-1]

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What it segments in one image."""
        try:
            labelled = self.labelled(image)
        except InputRefused as refusal:
            return Findings(verdict=Verdict.NOT_ANALYSED, reason=str(refusal))
        segments = tuple(self._segments(image, labelled))
        volumes = () if isinstance(image, PlanarImage) else map(measurement.volume, segments)
        return Findings(
            verdict=Verdict.MEASURED,
            segments=segments,
            measurements=tuple(volumes),
            limitations=(
                *self.description.limits,
                *_unusual(image, self.orientation),
                *_cut(segments, image),
            ),
            computed=self.segmenter.computed,
        )

    def labelled(self, image: Image | PlanarImage) -> Labelled:
        """The label map: (slice, row, column), or (row, column) of a planar image."""
        if isinstance(image, PlanarImage):
            pixels = np.atleast_3d(image.pixels).transpose(2, 0, 1)[:, None]
            spacing = _planar_spacing(image, self._last.configuration)
            return np.asarray(self._run(list(pixels), spacing)[0])
        roles = self.description.roles
        volumes = [image.roles[role] for role in roles] if roles else [image.volume]
        turned = [_turned(volume, self.orientation) for volume in volumes]
        steps = turned[0].spacing
        spacing = (float(steps[0]), float(steps[1]), float(steps[2]))
        found = self._run([one.array for one in turned], spacing)
        return _turned_back(turned[0].with_array(found), image.volume)

    def _run(self, arrays: Sequence[NDArray[Any]], spacing: tuple[float, ...]) -> Labelled:
        return postprocessing.applied(self.segmenter.segment(arrays, spacing), self.steps)

    def _segments(self, image: Image | PlanarImage, labelled: Labelled) -> Iterator[Segment]:
        for label, region in self._found(labelled):
            if region is not None and region.mask.size:
                yield Segment(definition=label.definition, mask=_placed(region, image))

    def _found(self, labelled: Labelled) -> Iterator[tuple[Label, Region | None]]:
        labels, structures = self.description.labels, self._last.labels.structures
        if self.description.overlapping:
            masks = (structures[label.value].mask(labelled) for label in labels)
            return zip(labels, map(regions.of_mask, masks), strict=True)
        values = [label.value for label in labels]
        return zip(labels, regions.of_labels(labelled, values), strict=True)


def _unusual(image: Image | PlanarImage, orientation: str | None) -> tuple[str, ...]:
    """A sentence when the network is given arrays that few training images are like."""
    if isinstance(image, PlanarImage) or orientation is not None:
        return ()
    found = "".join(one.value for one in image.volume.get_closest_patient_orientation())
    return () if found == USUAL else (AS_IT_COMES,)


def _cut(segments: Sequence[Segment], image: Image | PlanarImage) -> tuple[str, ...]:
    """A sentence for what reaches the first or last slice: its volume is of a part."""
    if isinstance(image, PlanarImage):
        return ()
    names = [
        one.definition.label
        for one in segments
        if regions.on_grid(one.mask, image.volume).reaches_the_ends()
    ]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    if not names:
        return ()
    listed = ", ".join(names[:NAMED])
    return (f"Cut by the first or last slice, so its volume is of a part: {listed}{more}.",)


def _placed(region: Region, image: Image | PlanarImage) -> Any:
    """The mask with its place: a volume, or the region where there is none."""
    return region if isinstance(image, PlanarImage) else region.in_patient(image.volume)


def _turned(volume: hd.Volume, orientation: str | None) -> hd.Volume:
    if orientation is None:
        return volume
    return volume.to_patient_orientation(options.patient_orientation(orientation))


def _turned_back(found: hd.Volume, original: hd.Volume) -> Labelled:
    """The values on the original's grid, exactly."""
    back = found.to_patient_orientation(original.get_closest_patient_orientation())
    if not back.geometry_equal(original):
        raise ModelError("the labels are not on the grid of the image")
    return np.asarray(back.array)


def _planar_spacing(image: PlanarImage, configuration: Configuration) -> tuple[float, ...]:
    if configuration.natural_images:
        return PICTURE_SPACING
    if image.spacing is None:
        raise InputRefused("the image does not say how far its pixels are apart")
    return (max(image.spacing) * SLICE_BY_PIXEL, *image.spacing)


def _orientation(said: Options, configuration: Configuration) -> str | None:
    if said.orientation is not None:
        return said.orientation
    return TRAINED_ORIENTATION if configuration.reoriented else None


def _refuse_odd_labels(description: Description, trained: Trained) -> None:
    """Labels of the sidecar that the model does not have."""
    labels = trained.labels
    if description.overlapping and labels.regions_order is None:
        raise ModelRefused("output.overlapping is for models with regions; this has labels")
    allowed = range(len(labels.structures)) if description.overlapping else labels.foreground
    for label in description.labels:
        if label.value not in allowed:
            raise ModelRefused(
                f"the label {label.definition.label} has the value {label.value}; "
                f"the model's are {min(allowed)} to {max(allowed)}"
            )


def _thresholds(description: Description, trained: Trained) -> tuple[float, ...]:
    """A probability for each region."""
    stated: list[Label] = [one for one in description.labels if one.threshold is not None]
    if not stated:
        return ()
    if trained.labels.regions_order is None or not description.overlapping:
        raise ModelRefused("thresholds are for overlapping regions; here classes compete")
    found = [HALF] * trained.labels.heads
    for label in stated:
        found[label.value] = HALF if label.threshold is None else label.threshold
    return tuple(found)


def _refuse_odd_input(description: Description, configuration: Configuration) -> None:
    """Images that the network cannot take as the sidecar describes them."""
    planar = description.dimensions == len(("row", "column"))
    if planar and len(configuration.patch) > description.dimensions:
        raise ModelRefused(f"input.dimensions is 2; {configuration.name} wants volumes")
    wanted = len(configuration.channels)
    names = ", ".join(channel.name for channel in configuration.channels)
    given = len(description.roles) or 1
    if given != wanted and not (planar and wanted == COLOURS and not description.roles):
        raise ModelRefused(
            f"the network wants {wanted} images ({names}); input.series names {given}"
        )
