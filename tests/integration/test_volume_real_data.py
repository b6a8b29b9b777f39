"""Every series of real scanners is read or refused with a reason; real compressed pixels are exact.

Peers: DCMTK's decoders and encoders, SimpleITK's series reader (GDCM) for positions and values.
Not covered here: whether a refusal was necessary; colour images (no model takes them).
"""

import contextlib
import io
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset

from inference import attributes, pixels, volume
from inference.errors import DecodeError, InputRefused
from inference.phantom import Scan, datasets, thorax
from tests.peers import debian_program

pytestmark = pytest.mark.shared_data

READ = {  # series that must be read: (folder, modality): shapes
    ("ct-pet-mr-with-rtstruct-STS_003", "CT"): {(51, 158, 154)},
    ("ct-pet-mr-with-rtstruct-STS_003", "MR"): {(47, 138, 121)},
    ("ct-pet-mr-with-rtstruct-STS_003", "PT"): {(51, 30, 29)},
    ("mr-liver-siemens", "MR"): {(30, 256, 256)},
    ("seg-pixelmed", "MR"): {(4, 4, 5)},
    ("seg-sr-dcmqi", "CT"): {(3, 38, 23), (3, 38, 24), (3, 512, 512)},
    ("siemens-fruit-studies", "CT"): {(4, 512, 512)},
    ("siemens-fruit-studies", "MR"): {
        (4, 160, 160),
        (4, 256, 160),
        (4, 256, 232),
        (4, 384, 276),
    },
}

ONE_BIT_RLE = "pixel data cannot be decoded (RLE Lossless, 1.2.840.10008.1.2.5)"
DEFLATED_FRAMES = (
    "pixel data cannot be decoded (Deflated Image Frame Compression, 1.2.840.10008.1.2.8.1)"
)
DAMAGED = "pixel data cannot be decoded (Explicit VR Little Endian, 1.2.840.10008.1.2.1)"
UNDECODED = {  # 1-bit segmentations, which no library here decodes, and damaged files
    "liver_rle.dcm": ONE_BIT_RLE,
    "liver_nonbyte_aligned_rle.dcm": ONE_BIT_RLE,
    "liver_deflate.dcm": DEFLATED_FRAMES,
    "liver_nonbyte_aligned_deflate.dcm": DEFLATED_FRAMES,
    "MR_truncated.dcm": DAMAGED,
    "badVR.dcm": DAMAGED,
    "meta_missing_tsyntax.dcm": "no Transfer Syntax UID is stated",
}


def loose_files(data: Path) -> Iterator[tuple[Path, Dataset]]:
    """Every readable DICOM file that is not in an archive."""
    for path in sorted(data.rglob("*")):
        if path.is_file():
            with contextlib.suppress(InputRefused):
                yield path, attributes.parse(path)


def packed(data: Path, name: str) -> list[Dataset]:
    """The data sets of an archive."""
    with tarfile.open(data / name, "r:xz") as archive:
        files = [archive.extractfile(member) for member in archive if member.isfile()]
        return [attributes.parse(io.BytesIO(file.read())) for file in files if file is not None]


def test_every_series_is_read_or_refused_with_a_reason(data: Path):
    found: dict[tuple[str, str, str], list[Dataset]] = defaultdict(list)
    for path, dataset in loose_files(data):
        folder = path.relative_to(data).parts[0]
        uid = attributes.text(dataset, "SeriesInstanceUID") or ""
        found[folder, uid, attributes.text(dataset, "Modality") or ""].append(dataset)
    shapes: dict[tuple[str, str], set[tuple[int, ...]]] = defaultdict(set)
    for (folder, _, modality), items in found.items():
        try:
            stack = volume.read(items)
        except InputRefused as refusal:
            reason = str(refusal)
        else:
            shapes[folder, modality].add(stack.image.volume.spatial_shape)
            assert len(stack.sources) == stack.image.volume.spatial_shape[0]
            continue
        assert reason.startswith(("no slice images: ", "a single slice has no spacing"))
    assert shapes == READ
    assert len(found) > 60


@pytest.mark.parametrize(
    ("name", "slices", "spacing", "padded"),
    [
        ("ct-chest-ge.tar.xz", 100, (2.5, 0.898438, 0.898438), 0.2128),
        ("ct-abdomen-pelvis-ge-lowdose.tar.xz", 99, (4.25, 0.976562, 0.976562), 0.2128),
    ],
)
def test_real_ct_against_simpleitk(data: Path, tmp_path: Path, name, slices, spacing, padded):
    items = packed(data, name)
    for number, item in enumerate(items):
        item.save_as(tmp_path / f"{number:03}.dcm")
    stack = volume.read(items)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    peer = reader.Execute()
    values = np.maximum(SimpleITK.GetArrayFromImage(peer), -1024)
    assert stack.image.volume.array.dtype == np.int16
    assert np.array_equal(stack.image.volume.array, values)
    assert np.allclose(stack.image.volume.spacing, spacing, atol=1e-6)
    assert stack.image.volume.spatial_shape == (slices, 512, 512)
    assert np.allclose(stack.image.volume.affine[:3, 3], peer.GetOrigin(), atol=1e-3)
    assert stack.image.padding is not None
    assert stack.image.padding.array.mean() == pytest.approx(padded, abs=1e-3)


def test_a_real_coronal_stack_is_ordered_from_back_to_front_or_front_to_back(data: Path):
    items = [attributes.parse(path) for path in sorted((data / "mr-liver-siemens").iterdir())]
    stack = volume.read(items)
    normal = stack.image.volume.affine[:3, 0]
    assert abs(normal[1]) == pytest.approx(8.75, abs=1e-3)
    for index, source in enumerate(stack.sources):
        place = stack.image.volume.affine @ [index, 0, 0, 1]
        assert np.allclose(place[:3], source.dataset.ImagePositionPatient, atol=0.05)


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("transfer-syntaxes/MR_small_RLE.dcm", "transfer-syntaxes/MR_small.dcm"),
        ("transfer-syntaxes/MR_small_bigendian.dcm", "transfer-syntaxes/MR_small.dcm"),
        ("transfer-syntaxes/MR_small_implicit.dcm", "transfer-syntaxes/MR_small.dcm"),
        ("transfer-syntaxes/MR_small_jp2klossless.dcm", "transfer-syntaxes/MR_small.dcm"),
        ("transfer-syntaxes/MR_small_jpeg_ls_lossless.dcm", "transfer-syntaxes/MR_small.dcm"),
        ("transfer-syntaxes-more/693_J2KR.dcm", "transfer-syntaxes-more/693_UNCR.dcm"),
        (
            "transfer-syntaxes-more/emri_small_jpeg_ls_lossless.dcm",
            "transfer-syntaxes-more/emri_small.dcm",
        ),
    ],
)
def test_lossless_files_decode_to_the_plain_ones(data: Path, compressed, plain):
    found, wanted = (attributes.parse(data / name) for name in (compressed, plain))
    frames = range(int(attributes.number(wanted, "NumberOfFrames") or 1))
    pairs = zip(pixels.stored(found, frames), pixels.stored(wanted, frames), strict=True)
    for one, other in pairs:
        assert np.array_equal(one, other)


def test_signed_pixels_in_an_unsigned_jpeg_2000_are_signed(data: Path):
    found = next(
        pixels.stored(attributes.parse(data / "odd-and-broken/J2K_pixelrep_mismatch.dcm"), [0])
    )
    assert found.min() == -2000


@pytest.mark.filterwarnings("ignore::UserWarning")  # the files are odd on purpose
def test_every_image_is_decoded_or_the_transfer_syntax_named(data: Path):
    undecoded = {}
    for path, dataset in loose_files(data):
        if "PixelData" not in dataset:
            continue
        frames = range(int(attributes.number(dataset, "NumberOfFrames") or 1))
        try:
            assert len(list(pixels.stored(dataset, frames))) == len(frames)
        except DecodeError as error:
            undecoded[path.name] = str(error)
    assert undecoded == UNDECODED


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    "name", ["mg-siemens/OutOfBoundsOverlay.dcm", "transfer-syntaxes/JPGExtended.dcm"]
)
def test_jpeg_lossless_and_extended_against_dcmtk(data: Path, tmp_path: Path, name):
    plain = tmp_path / "plain.dcm"
    subprocess.run([debian_program("dcmdjpeg", "dcmtk"), data / name, plain], check=True)
    peer = next(pixels.stored(attributes.parse(plain), [0]))
    ours = next(pixels.stored(attributes.parse(data / name), [0]))
    assert np.array_equal(ours, peer)


@pytest.mark.dcmtk
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    ("program", "option"), [("dcmcjpeg", "+e1"), ("dcmcjpeg", "+el"), ("dcmcjpls", "+el")]
)
def test_a_ct_series_compressed_by_dcmtk_is_exact(tmp_path: Path, program, option, signed):
    truth = thorax((4, 64, 64), (8.0, 6.0, 6.0))
    encoder = debian_program(program, "dcmtk")
    found = []
    for number, item in enumerate(datasets(truth, Scan(signed=signed))):
        plain, compressed = tmp_path / f"{number}.dcm", tmp_path / f"{number}.jpg.dcm"
        pydicom.dcmwrite(plain, item, enforce_file_format=True)
        subprocess.run([encoder, option, plain, compressed], check=True)
        found.append(attributes.parse(compressed))
    assert found[0].file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(volume.read(found).image.volume.array, truth.hu)
