"""Numbers of a segment, against values counted by hand.

Not covered: how they are coded in a report.
"""

import highdicom as hd
import numpy as np
import pytest
from pydicom.sr.codedict import codes

from inference.findings import Acquisition, Image, Segment, SegmentDefinition
from inference.measurement import densities, laa950, mean_density, perc15, volume

PART = SegmentDefinition(label="Part", category=codes.SCT.AnatomicalStructure, type=codes.SCT.Lung)
AFFINE = np.diag([2.0, 0.5, 0.5, 1.0])


def made(values: list[int], count: int) -> tuple[Segment, Image]:
    """An image of these values in a row whose first `count` voxels are the segment."""
    array = np.array(values, np.int16).reshape(1, 1, -1)
    volume_ = hd.Volume(array, AFFINE, "PATIENT")
    mask = np.arange(array.size).reshape(array.shape) < count
    segment = Segment(definition=PART, mask=volume_.with_array(mask))
    return segment, Image(volume=volume_, acquisition=Acquisition(modality="CT"))


def test_volume_is_voxels_times_their_size() -> None:
    segment, _ = made([0] * 10, 8)
    measured = volume(segment)
    assert measured.value == pytest.approx(8 * 2.0 * 0.5 * 0.5 / 1000)
    assert measured.unit == codes.UCUM.CubicCentimeter
    assert measured.segment == "Part"


def test_mean_density_leaves_out_what_lies_outside() -> None:
    segment, image = made([-800, -900, 1000], 2)
    measured = mean_density(densities(segment, image), "Part")
    assert measured.value == -850
    assert measured.derivation == codes.SCT.Mean


def test_laa950_counts_below_not_at_the_threshold() -> None:
    segment, image = made([-951, -950, -949, -1000], 4)
    assert laa950(densities(segment, image), None).value == 50.0


def test_perc15_is_the_fifteenth_percentile() -> None:
    segment, image = made(list(range(-1000, -899)), 101)
    measured = perc15(densities(segment, image), "Part")
    assert measured.value == pytest.approx(-985)
    assert measured.unit == codes.UCUM.HounsfieldUnit


def test_millions_of_voxels_lose_no_precision() -> None:
    values = np.full(20_000_000, -850.0, np.float32)
    assert mean_density(values, None).value == -850.0
