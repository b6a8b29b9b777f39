"""Segmentations: voxels, references, codes, refusals; read back without our own code.

Not covered: what validators and viewers say (tests/conformance), real series (there too).
"""

import io
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from inference import phantom, volume
from inference.encoding import measurement_report, segmentation, source_headers
from inference.encoding.common import to_bytes
from inference.errors import EncodingError
from inference.findings import Findings, Segment, Verdict
from inference.volume import Stack
from tests import encoded
from tests.volumes import orientations


def read_back(seg: Dataset, datasets: list[Dataset]) -> dict[str, NDArray[np.bool_]]:
    """Masks by label on the data sets in order: pydicom's frames, placed by their references."""
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    places = {dataset.SOPInstanceUID: index for index, dataset in enumerate(datasets)}
    labels = {segment.SegmentNumber: segment.SegmentLabel for segment in seg.SegmentSequence}
    shape = (len(datasets), seg.Rows, seg.Columns)
    found = {str(label): np.zeros(shape, np.bool_) for label in labels.values()}
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = places[source.ReferencedSOPInstanceUID]
        owner = group if "SegmentIdentificationSequence" in group else shared
        number = owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert (
            group.PlanePositionSequence[0].ImagePositionPatient
            == datasets[place].ImagePositionPatient
        )
        found[labels[number]][place] |= frame > 0
    return found


@settings(max_examples=40, deadline=None)
@given(
    orientation=orientations,
    rows=st.integers(3, 19),
    columns=st.integers(3, 19),
    count=st.integers(1, 3),
    seed=st.integers(0, 99),
    backwards=st.booleans(),
)
def test_the_voxels_read_back_are_the_finding_s(
    orientation: tuple[tuple[float, float, float], tuple[float, float, float]],
    rows: int,
    columns: int,
    count: int,
    seed: int,
    backwards: bool,
) -> None:
    grid = phantom.regular(
        (5, rows, columns), (3.0, 2.0, 2.5), right=orientation[0], down=orientation[1]
    )
    datasets = phantom.datasets(phantom.markers(grid))
    received = datasets[::-1] if backwards else datasets
    stack = volume.read(received)
    truth = encoded.masks(stack.image.volume.spatial_shape, count, seed)
    found = encoded.findings(stack, truth)
    (seg,) = segmentation.encode(stack, found, provenance=encoded.PROVENANCE)
    in_order = [source.dataset for source in stack.sources]
    masks = read_back(dcmread_bytes(seg), in_order)
    for segment, mask in zip(found.segments, truth, strict=True):
        assert np.array_equal(masks[segment.definition.label], mask)


def dcmread_bytes(result: Dataset) -> Dataset:
    """The object as another program would get it."""
    return dcmread(io.BytesIO(to_bytes(result)))


@pytest.fixture(scope="module")
def source() -> list[Dataset]:
    return encoded.series()


@pytest.fixture(scope="module")
def stack(source: list[Dataset]) -> Stack:
    return volume.read(source)


@pytest.fixture(scope="module")
def seg(stack: Stack) -> Dataset:
    (result,) = segmentation.encode(stack, encoded.findings(stack), provenance=encoded.PROVENANCE)
    return dcmread_bytes(result)


def test_highdicom_reads_the_same_volume(stack: Stack, seg: Dataset) -> None:
    opened = hd.seg.Segmentation.from_dataset(seg)
    read = opened.get_volume(combine_segments=True).match_geometry(stack.image.volume)
    for number, mask in enumerate(encoded.masks(stack.image.volume.spatial_shape), start=1):
        assert np.array_equal(read.array == number, mask)


def test_no_frame_is_empty_and_no_more_are_there_than_needed(stack: Stack, seg: Dataset) -> None:
    wanted = sum(
        int(mask.any(axis=(1, 2)).sum()) for mask in encoded.masks(stack.image.volume.spatial_shape)
    )
    assert seg.NumberOfFrames == wanted == len(seg.PerFrameFunctionalGroupsSequence)
    assert seg.pixel_array.any(axis=(1, 2)).all()


@pytest.mark.parametrize("thickness", [0.0, -5.0])
def test_a_slice_thickness_that_none_can_have_becomes_the_distance(thickness: float) -> None:
    _, seg, _ = encoded.results(encoded.series(scan=phantom.Scan(thickness_mm=thickness)))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == 3.0


@pytest.mark.parametrize(
    ("stated", "written"),
    [("Chest", "CHEST"), ("CHESTABDOMENPELVIS", None), ("TÊTE", None), ("", None)],
)
def test_a_body_part_is_a_code_string_or_left_out(stated: str, written: str | None) -> None:
    source = encoded.series()
    for dataset in source:
        source_headers.put(dataset, "BodyPartExamined", stated)
    _, seg, _ = encoded.results(source)
    assert seg.get("BodyPartExamined") == written


def test_it_says_what_made_it(seg: Dataset) -> None:
    assert seg.SeriesDescription == "AI: lung_ct 1.0.0 - not for diagnosis"
    assert (seg.Manufacturer, seg.ManufacturerModelName) == ("Hounsfield", "lung_ct")
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lung_ct", "1.0.0")
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert seg.file_meta.ImplementationClassUID.startswith("2.25.")
    models = [e for e in seg.ContributingEquipmentSequence if "DeviceUID" in e]
    assert [model.ManufacturerModelName for model in models] == ["lung_ct"]


def test_segments_are_coded_with_their_side(seg: Dataset) -> None:
    right, left = seg.SegmentSequence
    for segment, side in ((right, "24028007"), (left, "7771000")):
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("39607008", "SCT")
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == side
        assert len(segment.RecommendedDisplayCIELabValue) == 3
    assert right.TrackingUID != left.TrackingUID


def test_it_may_be_used_for_diagnosis_only_when_configured(stack: Stack) -> None:
    cleared = replace(encoded.PROVENANCE, not_for_diagnosis=False)
    (result,) = segmentation.encode(stack, encoded.findings(stack), provenance=cleared)
    assert result.SeriesDescription == "AI: lung_ct 1.0.0"


def test_a_long_model_name_keeps_the_warning() -> None:
    named = replace(encoded.PROVENANCE, model_name="m" * 90)
    assert named.described.endswith(" - not for diagnosis")
    assert len(named.described) == 64


def test_nothing_segmented_gives_no_object(stack: Stack) -> None:
    nothing = Findings(verdict=Verdict.MEASURED)
    assert segmentation.encode(stack, nothing, provenance=encoded.PROVENANCE) == ()


def with_masks(stack: Stack, *masks: NDArray[np.bool_]) -> Findings:
    return replace(encoded.findings(stack, masks), measurements=())


def test_an_empty_mask_is_refused(stack: Stack) -> None:
    empty = stack.image.volume.with_array(np.zeros(stack.image.volume.spatial_shape, np.bool_))
    segment = Segment(definition=encoded.RIGHT, mask=empty)
    bad = replace(encoded.findings(stack), segments=(segment,))
    with pytest.raises(EncodingError, match="'Right lung' is empty"):
        segmentation.encode(stack, bad, provenance=encoded.PROVENANCE)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), density=st.floats(0.02, 0.6), count=st.integers(2, 6))
def test_overlapping_segments_are_split_and_nothing_is_lost(
    seed: int, density: float, count: int
) -> None:
    source = encoded.series((5, 7, 9))
    stack = volume.read(source)
    random = np.random.default_rng(seed)
    masks = [random.random((5, 7, 9)) < density for _ in range(count)]
    for index, mask in enumerate(masks):
        mask[1, 1, index] = True
    named = [replace(encoded.NODULE, label=f"Nodule {k}") for k in range(count)]
    found = Findings(
        verdict=Verdict.MEASURED,
        segments=tuple(
            Segment(definition=definition, mask=stack.image.volume.with_array(mask))
            for definition, mask in zip(named, masks, strict=True)
        ),
    )
    objects = segmentation.encode(stack, found, provenance=encoded.PROVENANCE)
    again = segmentation.encode(stack, found, provenance=encoded.PROVENANCE)
    assert [to_bytes(one) for one in objects] == [to_bytes(one) for one in again]
    assert len({one.SeriesInstanceUID for one in objects}) == len(objects)  # OHIF: one a series
    assert {one.InstanceNumber for one in objects} == {1}
    read: dict[str, NDArray[np.bool_]] = {}
    for one in objects:
        parts = read_back(dcmread_bytes(one), source)
        assert np.sum(list(parts.values()), axis=0).max() == 1
        assert not read.keys() & parts.keys()
        read |= parts
    for definition, mask in zip(named, masks, strict=True):
        assert np.array_equal(read[definition.label], mask)
    report = measurement_report.encode(
        stack, found, provenance=encoded.PROVENANCE, segmentations=objects
    )
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"


def test_no_more_objects_are_made_than_overlap_needs(stack: Stack) -> None:
    first, second = encoded.masks(stack.image.volume.spatial_shape)
    found = with_masks(stack, first, second, first)
    objects = segmentation.encode(stack, found, provenance=encoded.PROVENANCE)
    labels = [[segment.SegmentLabel for segment in one.SegmentSequence] for one in objects]
    assert labels == [["Right lung", "Left lung"], ["Nodule"]]
    described = [one.SeriesDescription for one in objects]
    assert described[1] == "AI: lung_ct 1.0.0 (2 of 2) - not for diagnosis"
    assert [one.SeriesNumber % 100 for one in objects] == [91, 93]  # the report is 92


def test_a_mask_on_another_grid_is_refused(stack: Stack) -> None:
    found = encoded.findings(stack)
    mask = found.segments[0].mask
    moved = hd.Volume(
        array=mask.array,
        affine=mask.affine + np.array([[0, 0, 0, 0.7], [0] * 4, [0] * 4, [0] * 4]),
        coordinate_system="PATIENT",
        frame_of_reference_uid=mask.frame_of_reference_uid,
    )
    bad = replace(found, segments=(replace(found.segments[0], mask=moved),))
    with pytest.raises(EncodingError, match="not on the grid"):
        segmentation.encode(stack, bad, provenance=encoded.PROVENANCE)


@pytest.mark.parametrize("axes", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_a_flipped_mask_is_turned_back(stack: Stack, seg: Dataset, axes: list[int]) -> None:
    found = encoded.findings(stack)
    turned = tuple(replace(s, mask=s.mask.flip_spatial(axes)) for s in found.segments)
    (result,) = segmentation.encode(
        stack, replace(found, segments=turned), provenance=encoded.PROVENANCE
    )
    assert result.PixelData == seg.PixelData


def test_a_stack_that_is_not_its_sources_is_refused(stack: Stack) -> None:
    swapped = replace(stack, sources=stack.sources[::-1])
    with pytest.raises(EncodingError, match="from its source"):
        segmentation.encode(swapped, encoded.findings(stack), provenance=encoded.PROVENANCE)
    shorter = replace(stack, sources=stack.sources[1:])
    with pytest.raises(EncodingError, match="8 slices, but 7 sources"):
        segmentation.encode(shorter, encoded.findings(stack), provenance=encoded.PROVENANCE)


def test_one_multi_frame_source_is_referred_to_by_frame() -> None:
    grid = phantom.regular((6, 12, 10), (3.0, 2.0, 2.5))
    dataset = phantom.enhanced(phantom.markers(grid))
    stack = volume.read([dataset])
    truth = encoded.masks(stack.image.volume.spatial_shape)
    (seg,) = segmentation.encode(
        stack, encoded.findings(stack, truth), provenance=encoded.PROVENANCE
    )
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    found = [np.zeros_like(mask) for mask in truth]
    places = {source.frame_number: index for index, source in enumerate(stack.sources)}
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == dataset.SOPInstanceUID
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[number - 1][places[image.ReferencedFrameNumber]] = frame > 0
    assert all(np.array_equal(a, b) for a, b in zip(found, truth, strict=True))


def test_the_file_is_a_file(tmp_path: Path, seg: Dataset) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(to_bytes(seg))
    assert dcmread(path) == seg


def test_frames_outside_the_stack_are_left_out() -> None:
    grid = phantom.regular((7, 12, 10), (3.0, 2.0, 2.5))
    whole = volume.read([phantom.enhanced(phantom.markers(grid))])
    image = replace(whole.image, volume=whole.image.volume[2:6])
    stack = replace(whole, image=image, sources=whole.sources[2:6])
    (seg,) = segmentation.encode(stack, encoded.findings(stack), provenance=encoded.PROVENANCE)
    frames = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in seg.PerFrameFunctionalGroupsSequence
    }
    assert frames <= {source.frame_number for source in stack.sources}
