"""Which images make the stack and why the others do not, rule by rule.

Not covered here: where the chosen slices lie (test_volume_geometry), their values
(test_volume_values), what a model asks of an image (tests of the models).
"""

import contextlib
import copy
import io

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from inference import attributes, series, volume
from inference.errors import InputRefused
from inference.phantom import Scan, datasets, enhanced, markers, regular
from tests.volumes import NAMED_ORIENTATIONS, grid

TRUTH = markers(grid())


def part_10(dataset: Dataset) -> io.BytesIO:
    """The data set as a file."""
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    file.seek(0)
    return file


def reasons(chosen: series.Chosen) -> list[str]:
    """Why instances were set aside."""
    return [item.reason for item in chosen.set_aside]


def test_a_plain_series_is_chosen_whole():
    plain = datasets(TRUTH)
    chosen = series.choose(plain)
    assert chosen.datasets == tuple(plain)
    assert chosen.set_aside == ()
    assert chosen.notes == ()


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], "a localizer, not a slice image"),
        (
            "ImageType",
            ["DERIVED", "SECONDARY", "MIP"],
            "a maximum intensity projection, not a slice image",
        ),
        ("ImageType", ["DERIVED", "PRIMARY", "AXIAL"], "derived, beside original images"),
        (
            "SOPClassUID",
            SecondaryCaptureImageStorage,
            "Secondary Capture Image Storage: not a slice image",
        ),
        ("SOPClassUID", SegmentationStorage, "Segmentation Storage: not a slice image"),
        ("SOPClassUID", None, "an object without SOP class: not a slice image"),
        ("PixelData", None, "no pixel data"),
        ("NumberOfFrames", 5, "5 frames in a single-frame image"),
        ("PhotometricInterpretation", "RGB", "not a greyscale image (RGB)"),
        ("ImagePositionPatient", None, "no usable Image Position (Patient)"),
        ("ImagePositionPatient", [0, 0], "no usable Image Position (Patient)"),
        ("ImageOrientationPatient", None, "no usable Image Orientation (Patient)"),
        (
            "ImageOrientationPatient",
            [1, 0, 0, 1, 0, 0],
            "Image Orientation (Patient) is not two perpendicular unit vectors",
        ),
        ("PixelSpacing", None, "no usable Pixel Spacing"),
        ("PixelSpacing", [0, 1], "27 rows and 24 columns, (0.0, 1.0) mm apart"),
        ("Rows", 12, "another matrix than the stack"),
        ("PixelSpacing", [1.6, 1.7], "another pixel spacing than the stack"),
        ("FrameOfReferenceUID", "1.2.3", "another Frame of Reference than the stack"),
        (
            "ImageOrientationPatient",
            [1, 0, 0, 0, 0, -1],
            "another orientation than the stack",
        ),
    ],
)
def test_an_odd_image_is_set_aside_with_its_reason(keyword, value, reason):
    plain = datasets(TRUTH)
    odd = copy.deepcopy(plain[0])
    odd.SOPInstanceUID = "1.2.3.4"
    if value is None:
        delattr(odd, keyword)
    else:
        setattr(odd, keyword, value)
    chosen = series.choose([odd, *plain])
    assert chosen.datasets == tuple(plain)
    assert chosen.set_aside == (series.SetAside(sop_instance_uid="1.2.3.4", reason=reason),)


def test_an_image_without_sop_instance_uid_is_set_aside():
    odd = copy.deepcopy(datasets(TRUTH)[0])
    del odd.SOPInstanceUID
    assert reasons(series.choose([odd, *datasets(TRUTH)])) == ["no SOP Instance UID"]


def test_a_wholly_derived_series_is_read_and_noted():
    derived = datasets(TRUTH, Scan(image_type=("DERIVED", "SECONDARY", "AXIAL")))
    assert volume.read(derived).notes == ("all images are derived (Image Type)",)


def test_a_missing_frame_of_reference_is_noted():
    plain = datasets(TRUTH)
    for item in plain:
        del item.FrameOfReferenceUID
    stack = volume.read(plain)
    assert stack.notes == ("no Frame of Reference UID",)
    assert stack.image.volume.frame_of_reference_uid is None


def test_lossy_compression_is_noted():
    plain = datasets(TRUTH)
    plain[4].LossyImageCompression = "01"
    assert volume.read(plain).notes == (
        "lossy compression (0028,2110) was applied before the images came",
    )


@pytest.mark.parametrize(
    ("keyword", "what"), [("PatientID", "patients"), ("StudyInstanceUID", "studies")]
)
def test_two_patients_or_studies_in_one_series_are_refused(keyword, what):
    mixed = datasets(TRUTH)
    setattr(mixed[3], keyword, "1.2.3")
    with pytest.raises(InputRefused, match=rf"^the instances name 2 different {what}$"):
        series.choose(mixed)


def test_nothing_to_stack_in_words():
    scouts = datasets(TRUTH, Scan(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")))
    del scouts[0].PixelData
    with pytest.raises(InputRefused) as refusal:
        series.choose(scouts)
    assert str(refusal.value) == (
        "no slice images: 1 x no pixel data; 19 x a localizer, not a slice image"
    )


def test_no_instances():
    with pytest.raises(InputRefused, match=r"^no instances$"):
        series.choose([])


def test_another_frame_of_reference_on_every_slice_is_called_what_it_is():
    with pytest.raises(InputRefused) as refusal:
        series.choose(datasets(TRUTH, Scan(frame_of_reference="each")))
    assert str(refusal.value) == (
        "the 20 images name 20 different Frames of Reference: positions in different frames "
        "cannot be combined (a de-identification that replaces this UID on every image does this)"
    )


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 20), order=st.randoms(use_true_random=False))
def test_two_stacks_are_told_apart_only_when_one_has_more_than_twice_the_images(count, order):
    coronal = markers(grid(NAMED_ORIENTATIONS["coronal"])).keeping(range(count))
    mixed = datasets(TRUTH) + datasets(coronal, Scan(series="coronal"))
    order.shuffle(mixed)
    if 2 * count < len(TRUTH.hu):
        chosen = series.choose(mixed)
        assert len(chosen.frames) == len(TRUTH.hu)
        assert reasons(chosen) == ["another orientation than the stack"] * count
        return
    with pytest.raises(InputRefused) as refusal:
        series.choose(mixed)
    assert str(refusal.value) == (
        f"the series mixes 2 stacks of 20 and {count} images that differ in orientation, "
        "and none is clearly the one meant"
    )


def test_a_multi_frame_whose_frames_are_not_all_described_is_set_aside():
    broken = enhanced(TRUTH)
    broken.NumberOfFrames = 21
    with pytest.raises(InputRefused, match=r"1 x 21 frames stated, 20 described"):
        series.choose([broken])


def test_a_multi_frame_without_functional_groups_is_set_aside():
    broken = enhanced(TRUTH)
    del broken.PerFrameFunctionalGroupsSequence
    with pytest.raises(InputRefused, match="a multi-frame image without functional groups"):
        series.choose([broken])


def test_a_header_keeps_all_but_the_pixel_data():
    dataset = attributes.parse(part_10(datasets(TRUTH)[0]))
    found = attributes.header(dataset)
    assert "PixelData" not in found
    assert "PixelData" in dataset
    assert found.file_meta == dataset.file_meta
    assert len(found) == len(dataset) - 1


@pytest.mark.parametrize("damage", [b"", b"no DICOM", bytes(200), b"\xff" * 5000])
def test_what_is_no_dicom_file_is_refused(damage):
    with pytest.raises(InputRefused, match=r"^not a readable DICOM file: "):
        attributes.parse(io.BytesIO(damage))


def test_sequences_nested_without_end_are_refused():
    file = part_10(datasets(TRUTH)[0]).getvalue()
    start = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    position = file.index(b"\x08\x00\x05\x00CS")
    bomb = file[:position] + start * 20_000
    with pytest.raises(InputRefused, match=r"^not a readable DICOM file: RecursionError"):
        attributes.parse(io.BytesIO(bomb))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_never_another_error(data):
    plain = datasets(TRUTH.keeping([0, 1, 2]))
    file = bytearray(part_10(plain[1]).getvalue())
    header_bytes = len(file) - len(plain[1].PixelData)
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(132, header_bytes - 1))] = data.draw(st.integers(0, 255))
    file = file[: data.draw(st.sampled_from([len(file), header_bytes, header_bytes // 2]))]
    with contextlib.suppress(InputRefused):
        volume.read([plain[0], attributes.parse(io.BytesIO(file)), plain[2]])


def test_an_element_of_unknown_vr_that_nobody_asks_for_does_not_matter():
    plain = datasets(TRUTH.keeping([0, 1, 2]))
    file = part_10(plain[1]).getvalue()
    odd = file.replace(b"\x20\x00\x40\x10LO", b"\x20\x00\x40\x10L\0")
    assert odd != file
    stack = volume.read([plain[0], attributes.parse(io.BytesIO(odd)), plain[2]])
    assert len(stack.sources) == 3


def test_refusals_name_no_patient():
    scan = Scan(patient_id="SECRET1", patient_name="Secret^Name")
    broken = datasets(TRUTH, scan)
    del broken[5]
    with pytest.raises(InputRefused) as refusal:
        volume.read(broken)
    assert "ecret" not in str(refusal.value)
    assert "SECRET" not in str(refusal.value)


def test_pixel_data_of_files_stay_in_the_files(tmp_path):
    truth = markers(regular((3, 200, 200), (3.0, 0.2, 0.2)))
    paths = [tmp_path / f"{number}.dcm" for number in range(3)]
    for path, item in zip(paths, datasets(truth), strict=True):
        path.write_bytes(part_10(item).getvalue())
    lazy = [attributes.parse(path) for path in paths]
    assert np.array_equal(volume.read(lazy).image.volume.array, truth.hu)
    for item in lazy:
        assert item.get_item("PixelData", keep_deferred=True).value is None
