"""What TID 1500 reports say, read item by item."""

from collections.abc import Iterator

from pydicom import Dataset

MEASUREMENT_GROUP = "125007"
TRACKING_IDENTIFIER, TRACKING_UID = "112039", "112040"
CERTAINTY = "111012"
NOT_ANSWERS = {"276214006", "121071", "130400", "363698007"}  # category, finding, purpose, site


def concept(item: Dataset) -> str:
    """The code of its name, "" without."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def items(container: Dataset) -> Iterator[Dataset]:
    """All items below, depth first."""
    for item in container.get("ContentSequence", ()):
        yield item
        yield from items(item)


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups in order."""
    return [item for item in items(report) if concept(item) == MEASUREMENT_GROUP]


def of_type(group: Dataset, value_type: str) -> list[Dataset]:
    """The items of a group of one value type."""
    return [item for item in group.ContentSequence if item.ValueType == value_type]


def values(group: Dataset) -> dict[str, float]:
    """The numbers of a group by the meaning of their names."""
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(
            item.MeasuredValueSequence[0].NumericValue
        )
        for item in of_type(group, "NUM")
    }


def certainty(group: Dataset) -> float | None:
    """Certainty of Finding, percent."""
    return values(group).get("Certainty of Finding")


def tracking(group: Dataset) -> tuple[str, str]:
    """Identifier and UID."""
    by_name = {concept(item): item for item in group.ContentSequence}
    return str(by_name[TRACKING_IDENTIFIER].TextValue), str(by_name[TRACKING_UID].UID)


def said(group: Dataset) -> dict[str, str]:
    """The qualitative evaluations of a group: question to answer, as codes."""
    return {
        concept(item): str(item.ConceptCodeSequence[0].CodeValue)
        for item in of_type(group, "CODE")
        if concept(item) not in NOT_ANSWERS
    }
