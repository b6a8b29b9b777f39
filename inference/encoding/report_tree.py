"""The content of a report: what was measured where, and in words what was not and why (TID 1500).

The groups are those of `report_groups`. Sentences are comments among the qualitative evaluations
(TID 1500 row 14).
"""

from collections.abc import Sequence

import highdicom as hd
from pydicom.sr.coding import Code

from inference import coding, uids
from inference.encoding import Provenance, common
from inference.encoding.report_groups import Group
from inference.encoding.source_headers import Source


def tree(
    groups: Sequence[Group], lines: Sequence[str], *, source: Source, provenance: Provenance
) -> hd.sr.ContainerContentItem:
    """TID 1500. Without a measurement its title is one that viewers show as text."""
    root = hd.sr.ContainerContentItem(
        name=coding.MEASUREMENT_REPORT if groups else coding.TEXT_REPORT, template_id="1500"
    )
    root.ContentSequence = hd.sr.ContentSequence()
    root.ContentSequence.extend(
        hd.sr.LanguageOfContentItemAndDescendants(common.concept(coding.ENGLISH))
    )
    root.ContentSequence.extend(_observer(provenance))
    root.ContentSequence.append(
        hd.sr.CodeContentItem(
            name=coding.PROCEDURE_REPORTED,
            value=coding.procedure(source.modality),
            relationship_type=hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    root.ContentSequence.append(_measurements(groups))
    if lines:
        comments = hd.sr.ContentSequence([_comment(line) for line in lines])
        root.ContentSequence.append(_container(coding.QUALITATIVE_EVALUATIONS, comments))
    return root


def _observer(provenance: Provenance) -> hd.sr.ObservationContext:
    """The node as device observer (TID 1004), running the model that each group names."""
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=common.concept(coding.DEVICE),
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=uids.device_uid(
                    node_name=provenance.node_name, serial=provenance.device_serial
                ),
                name=provenance.node_name,
                manufacturer_name=common.MANUFACTURER,
                model_name=provenance.model_name,
                serial_number=provenance.device_serial,
            ),
        )
    )


def _container(name: Code, content: hd.sr.ContentSequence) -> hd.sr.ContainerContentItem:
    container = hd.sr.ContainerContentItem(
        name=common.concept(name), relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = content
    return container


def _measurements(groups: Sequence[Group]) -> hd.sr.ContainerContentItem:
    items = [item for group in groups for item in group] or [_comment("No measurements.")]
    return _container(coding.IMAGING_MEASUREMENTS, hd.sr.ContentSequence(items))


def _comment(line: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(
        name=coding.COMMENT,
        value=line,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
