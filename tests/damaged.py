"""A series that a decoder cannot survive: GDCM ends its process on some damaged JPEG-LS."""

from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGLSLossless

from tests.workplace import slices

START_OF_FRAME = b"\xff\xf7"  # ISO 14495-1: length (2 bytes), then the bits of a sample
IMPOSSIBLE_BITS = 20


def compressed(series: str = "series") -> list[Dataset]:
    """A series in JPEG-LS."""
    made = slices(series)
    for dataset in made:
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    return made


def damage(dataset: Dataset) -> None:
    """Samples of more bits than JPEG-LS has: one byte is another."""
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    frame[frame.index(START_OF_FRAME) + 4] = IMPOSSIBLE_BITS
    dataset.PixelData = encapsulate([bytes(frame)])
