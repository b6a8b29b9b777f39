"""Series as routing sees them, for tests: a chest CT unless told otherwise."""

from datetime import UTC, datetime

from storage.records import SeriesArrival, SeriesState

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def arrival(
    number: int,
    *,
    instances: int = 100,
    modality: str = "CT",
    state: SeriesState = SeriesState.COMPLETE,
    own_result: bool = False,
    **attributes: str | tuple[str, ...],
) -> SeriesArrival:
    """Series `number` of one study; a keyword given as "" is absent."""
    usual: dict[str, str | tuple[str, ...]] = {
        "Modality": modality,
        "SeriesNumber": str(number),
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "SliceThickness": "1.0",
        "ConvolutionKernel": "B31f",
        "ImageOrientationPatient": ("1", "0", "0", "0", "1", "0"),
    }
    stated = usual | attributes
    return SeriesArrival(
        series_id=number,
        study_instance_uid="1.2.3",
        series_instance_uid=f"1.2.3.{number}",
        modality=modality,
        state=state,
        instances=instances,
        conflicts=0,
        first_received_at=NOON,
        last_received_at=NOON,
        attributes={
            keyword: (value,) if isinstance(value, str) else value
            for keyword, value in stated.items()
            if value
        },
        fingerprint=f"fingerprint of {number}",
        own_result=own_result,
    )
