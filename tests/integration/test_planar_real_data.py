"""Every file of real scanners is read as planar images or refused by name, with true values.

Peer: SimpleITK's reader (GDCM, which turns MONOCHROME1 as we do and converts colours itself).
Not covered: rare colour spaces and tables (tests/unit/test_planar_values.py), speed.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset

from inference import attributes, view_features
from inference.errors import InputRefused
from tests import pictures
from tests.pictures import labelled

pytestmark = pytest.mark.shared_data

SHAPES = {  # of what must be read: (views, rows, columns[, colours])
    "cr-chest-dicom/JPEG2000/RG1_J2KI.dcm": (1, 1955, 1841),
    "cr-chest-dicom/JPEGLS/RG1_JLSN.dcm": (1, 1955, 1841),
    "mg-siemens/OutOfBoundsOverlay.dcm": (1, 788, 1318),
    "transfer-syntaxes-more/HTJ2KLossless_08_RGB.dcm": (1, 480, 640, 3),
    "transfer-syntaxes-more/HTJ2K_08_RGB.dcm": (1, 480, 640, 3),
    "transfer-syntaxes-more/JPGLosslessP14SV1_1s_1f_8b.dcm": (1, 768, 1024),
    "transfer-syntaxes/GDCMJ2K_TextGBR.dcm": (1, 400, 400, 3),
    "transfer-syntaxes/JPEG2000.dcm": (1, 1024, 256),
    "transfer-syntaxes/JPEGLSNearLossless_16.dcm": (1, 50, 10),
    "transfer-syntaxes/JPGExtended.dcm": (1, 1024, 256),
    "transfer-syntaxes/SC_rgb_jpeg_dcmtk.dcm": (1, 100, 100, 3),
    "transfer-syntaxes/SC_rgb_rle.dcm": (1, 100, 100, 3),
    "transfer-syntaxes/examples_ybr_color.dcm": (30, 240, 320, 3),
    "transfer-syntaxes/image_dfl.dcm": (1, 512, 512),
    "us-multiframe/Issue16.dcm": (34, 430, 480, 3),
}
CHARSETS = "charsets"  # small captures, and radiographs without pixel data


def loose_files(data: Path) -> Iterator[tuple[str, Dataset]]:
    """Every readable DICOM file that is not in an archive, by its place."""
    for path in sorted(data.rglob("*")):
        if path.is_file():
            with contextlib.suppress(InputRefused):
                yield str(path.relative_to(data)), attributes.parse(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the files are odd on purpose
def test_every_file_is_read_or_refused_by_name(data: Path) -> None:
    shapes, refusals = {}, {}
    for name, dataset in loose_files(data):
        try:
            views = pictures.read([dataset]).views
        except InputRefused as refusal:
            refusals[name] = str(refusal)
        else:
            shapes[name] = (len(views), *views[0].image.pixels.shape)
    captures = {name: shape for name, shape in shapes.items() if name.startswith(CHARSETS)}
    assert set(captures.values()) == {(1, 32, 32)}
    assert {name: shape for name, shape in shapes.items() if name not in captures} == SHAPES
    assert len(refusals) > 250
    for name, reason in refusals.items():
        assert reason.startswith("no planar images: 1 x "), name
        no_pixels = name.startswith(CHARSETS) and reason.endswith("no pixel data")
        assert no_pixels or reason.endswith(": not a planar image"), name


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_values_and_colours_are_those_of_gdcm(data: Path, name: str) -> None:
    views = pictures.read([attributes.parse(data / name)]).views
    found = np.stack([view.image.pixels for view in views])
    peer = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(data / name)))
    assert np.array_equal(found, peer.reshape(found.shape))


def test_the_real_radiograph_is_upright(data: Path) -> None:
    """MONOCHROME1: after turning, the air around the patient is darker than the spine."""
    path = data / "cr-chest-dicom/JPEGLS/RG1_JLSN.dcm"
    (view,) = pictures.read([attributes.parse(path)]).views
    image = view.image
    assert (image.view, image.spacing, image.acquisition.modality) == ("PA", None, "CR")
    right_lung, middle = image.pixels[600:900, 350:600], image.pixels[900:1300, 850:1000]
    assert np.median(right_lung) < np.median(middle)


def test_spacing_of_real_headers(data: Path) -> None:
    def spacing(name: str) -> tuple[tuple[float, float] | None, bool]:
        image = pictures.read([attributes.parse(data / name)]).views[0].image
        return image.spacing, image.at_detector

    magnified = 0.085 / 1.0433386837881
    assert spacing("mg-siemens/OutOfBoundsOverlay.dcm") == (pytest.approx((magnified,) * 2), False)
    echo, at_detector = spacing("us-multiframe/Issue16.dcm")
    assert echo == pytest.approx((0.2286, 0.2857), abs=1e-4)
    assert not at_detector


def test_chests_are_nearer_to_chests_than_to_anything_else(data: Path) -> None:
    folder = data / "cxr-labelled-nih-png" / "No_findings"
    chests = [labelled(path) for path in sorted(folder.glob("*.png"))[:4]]
    others = ["mg-siemens/OutOfBoundsOverlay.dcm", "us-multiframe/Issue16.dcm"]
    others.append("transfer-syntaxes/SC_rgb_rle.dcm")
    described = []
    for dataset in [*chests, *(attributes.parse(data / name) for name in others)]:
        images = [view.image for view in pictures.read([dataset]).views]
        found = {vector.kind: vector.values for vector in view_features.vectors(images, "")}
        described.append(found)
    for kind in ("view_intensity", "view_edges"):
        rows = np.stack([found[kind] for found in described])
        distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
        assert distances[:4, :4].max() < distances[:4, 4:].min(), kind
