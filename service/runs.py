"""A run of a model is admitted, measured and timed, and what need not wait for it goes beside it.

That is the next study, read into memory that the run leaves, and the feature vectors.
"""

import time
from concurrent.futures import Executor, Future

from inference import features, pipeline
from inference.engine.device import free_host_bytes
from inference.engine.residency import Residents
from inference.features import Mask, View
from inference.findings import Findings, Image, PlanarImage
from inference.models import Model
from inference.pipeline import Analysis, Given
from inference.requirements import Requirements
from service.read_ahead import ReadAhead
from service.tasks import Computed, Durations

MOST_AHEAD_BYTES = 2 << 30
SHARE_AHEAD = 0.25  # of the free memory


class Admitted:
    """A loaded model on its device: a run that will not fit is refused, what one took is kept.

    Beside it the next study is read, into memory that it leaves; what it takes is measured alone.
    """

    def __init__(
        self, name: str, model: Model, residents: Residents[Model], ahead: ReadAhead[Given]
    ) -> None:
        self._name = name
        self._model = model
        self._residents = residents
        self._ahead = ahead
        self.computed = Computed()

    @property
    def requirements(self) -> Requirements:
        """The model's."""
        return self._model.requirements

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the model says; raises ModelRefused for an image that memory will not hold."""
        values = image.pixels if isinstance(image, PlanarImage) else image.volume.array
        place = self._residents.device
        self._residents.admit(self._name, values.size)
        place.begin()
        with self._ahead.beside(self._room(values.size)):
            findings = self._model.predict(image)
        peak = place.peak_bytes()
        if not (self._ahead.company and place.is_host):
            self._residents.ran(self._name, values.size, peak)
        self.computed = Computed(
            device=place.name,
            arithmetic=None if findings.computed is None else findings.computed.arithmetic,
            peak_bytes=peak,
        )
        return findings

    def _room(self, voxels: int) -> int:
        """Bytes for the next study; what is held of it goes when this run may want them."""
        room = min(MOST_AHEAD_BYTES, int(free_host_bytes() * SHARE_AHEAD))
        if not self._residents.device.is_host:
            return room
        spare = self._residents.spare(self._name, voxels)
        if self._ahead.size > spare:
            self._ahead.want(None)
        return min(room, spare)


class Watched:
    """A model whose time is taken; beside it and after it goes what the feature vectors need."""

    def __init__(self, model: Model, beside: Executor) -> None:
        self._model = model
        self._beside = beside
        self._asked: tuple[float, float] | None = None  # from, until
        self._view: Future[View] | None = None
        self._outlines: Future[tuple[Mask, ...]] | None = None

    @property
    def requirements(self) -> Requirements:
        """The model's."""
        return self._model.requirements

    def predict(self, image: Image | PlanarImage) -> Findings:
        """What the model says; of planar images it is asked once for each."""
        began = time.monotonic()
        if isinstance(image, PlanarImage):
            findings = self._model.predict(image)
            self._asked = (self._asked[0] if self._asked else began, time.monotonic())
            return findings
        self._view = self._beside.submit(features.look, image)
        findings = self._model.predict(image)
        self._asked = (began, time.monotonic())
        self._outlines = self._beside.submit(features.outlines, findings, image.volume)
        return findings

    def describe(self, analysis: Analysis) -> tuple[features.FeatureVector, ...]:
        """The feature vectors: of a stack, and of planar images if the model was asked of any."""
        if analysis.views is not None and self._asked is not None:
            return pipeline.describe_views(analysis.views)
        if analysis.stack is None:
            return ()
        if self._view is None or self._outlines is None:  # (not what the model requires)
            view = features.look(analysis.stack.image)
            return pipeline.describe(analysis.stack, analysis.findings, view, ())
        return pipeline.describe(
            analysis.stack, analysis.findings, self._view.result(), self._outlines.result()
        )

    def durations(self, *, began: float, encoded: float) -> Durations:
        """Of an analysis that began and had its objects then, and its feature vectors now."""
        if self._asked is None:
            return Durations(read=encoded - began)
        asked, answered = self._asked
        return Durations(
            read=asked - began,
            model=answered - asked,
            encode=encoded - answered,
            describe=time.monotonic() - encoded,
        )
