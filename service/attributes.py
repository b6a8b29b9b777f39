"""What the header of a series says, as text, numbers and words for a person; nothing is guessed."""

from storage.records import SeriesArrival

IDENTIFYING = frozenset(
    {
        "AccessionNumber",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientID",
        "PatientName",
        "StudyID",
    }
)
"""Keywords whose values never appear in a reason."""

AXIAL_COSINE = 0.85  # a slice normal within 32 degrees of the patient's axis is still axial
DESCRIPTION_LENGTH = 64  # LO


def values(arrival: SeriesArrival, keyword: str) -> tuple[str, ...]:
    """The values of an element that are not empty."""
    stripped = (value.strip() for value in arrival.attributes.get(keyword, ()))
    return tuple(value for value in stripped if value)


def text(arrival: SeriesArrival, keyword: str) -> str | None:
    """The first value of an element, None when there is none."""
    return next(iter(values(arrival, keyword)), None)


def number(arrival: SeriesArrival, keyword: str) -> float | None:
    """The first value of an element as a number, None when it is none."""
    try:
        return float(text(arrival, keyword) or "")
    except ValueError:
        return None


def images(arrival: SeriesArrival) -> int:
    """How many images a series has: its instances, times their frames."""
    frames = number(arrival, "NumberOfFrames") or 1
    return arrival.instances * max(int(frames), 1)


def counted(arrival: SeriesArrival) -> str:
    """How many images, in words: `1 image`, `300 images`."""
    count = images(arrival)
    return f"{count} image{'' if count == 1 else 's'}"


def slice_distance(arrival: SeriesArrival) -> float | None:
    """Millimetres between slices as the header states them, else the slice thickness."""
    stated = number(arrival, "SpacingBetweenSlices")
    return abs(stated) if stated else number(arrival, "SliceThickness")


def axial(arrival: SeriesArrival) -> bool | None:
    """Whether the slices lie across the patient's axis; None when the header does not say."""
    cosines = values(arrival, "ImageOrientationPatient")
    try:
        row_x, row_y, _, column_x, column_y, _ = (float(cosine) for cosine in cosines)
    except ValueError:
        return None
    return abs(row_x * column_y - row_y * column_x) >= AXIAL_COSINE


def called(arrival: SeriesArrival) -> str:
    """A series in words: `series 3 "Thorax 1.0 B31f"`."""
    description = text(arrival, "SeriesDescription")
    if description is None:
        return numbered(arrival)
    return f'{numbered(arrival)} "{description[:DESCRIPTION_LENGTH]}"'


def numbered(arrival: SeriesArrival) -> str:
    """A series by its number: `series 3`."""
    return f"series {text(arrival, 'SeriesNumber') or '…' + arrival.series_instance_uid[-8:]}"
