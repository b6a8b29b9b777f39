"""What libraries load at their first use is loaded before the first patient waits for it.

A small synthetic chest goes the way of every study: read, found, encoded, described.
"""

from inference import coding, features, phantom, pipeline
from inference.encoding import Provenance
from inference.encoding.common import to_bytes
from inference.findings import Findings, Image, Measurement, Segment, SegmentDefinition, Verdict
from inference.requirements import Requirements

SHAPE = (6, 48, 48)
SPACING = (40.0, 8.0, 8.0)  # mm
DENSE_HU = -300
BODY = SegmentDefinition(
    label="Body", category=coding.ANATOMICAL_STRUCTURE, type=coding.ANATOMICAL_STRUCTURE
)
PROVENANCE = Provenance(
    model_name="rehearsal", model_version="0", configuration="0", fingerprint="0"
)


def rehearse() -> None:
    """Analyse the chest; nothing of it is kept. Raises what an analysis raises."""
    chest = phantom.datasets(phantom.thorax(SHAPE, SPACING))
    analysis = pipeline.analyse(chest, _StandIn(), PROVENANCE, pipeline.Options())
    for _, result in analysis.objects:
        to_bytes(result)
    if analysis.stack is not None:
        features.describe(analysis.stack.image, analysis.findings, "rehearsal")


class _StandIn:
    """A model that finds whatever is dense."""

    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        dense = image.volume.with_array(image.volume.array > DENSE_HU)
        length = Measurement(
            name=coding.LONG_AXIS, value=1.0, unit=coding.MILLIMETRE, segment=BODY.label
        )
        return Findings(
            verdict=Verdict.MEASURED,
            segments=(Segment(definition=BODY, mask=dense),),
            measurements=(length,),
        )
