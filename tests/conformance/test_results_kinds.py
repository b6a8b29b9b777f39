"""What independent programs say of detections, points, answers, overlap and planar images.

dicom3tools, PixelMed, DCMTK and dcmqi read what `test_results` does not have. Not covered: OHIF
itself in a browser, cornerstone3D; dcmqi on segmentations that lie nowhere in the patient, which it
refuses ("Plane Orientation (Patient) is missing").
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import Dataset
from pydicom.sr.coding import Code

from inference import planar, regions, volume
from inference.encoding import measurement_report, segmentation
from inference.findings import (
    Box,
    Classification,
    Detection,
    Findings,
    Keypoint,
    Measurement,
    Segment,
    Verdict,
)
from tests import encoded, validators
from tests.pictures import CINE, CR, DX, PHOTO, SC, picture
from tests.validators import VENV, run

PIXELMED_IS_OLDER = (
    # It has TID 310 row 5 (uncertainty) and a row for numbers that others are inferred from, and
    # holds every number below a number to both.
    "measurement uncertainty",
    # CID 100 has had it since: "XR unspecified body region"
    "(43468-8,LN,",
)
PRESENT = Code("52101004", "SCT", "Present")
ANSWERS = tuple(
    Classification(question=question, answer=PRESENT, probability=probability)
    for question, probability in (
        (Code("233604007", "SCT", "Pneumonia"), 0.612),
        (Code("60046008", "SCT", "Pleural effusion"), 0.07),
    )
)
NUMBER = Measurement(
    name=Code("63932-8", "LN", "Bone age"),
    value=12.3,
    unit=Code("a", "UCUM", "year"),
    interval=(10.0, 14.9),
)
PROVENANCE = replace(encoded.PROVENANCE, model_digest="ab" * 32, model_licence="Apache-2.0")


def in_stack() -> dict[str, Dataset]:
    """Everything at once in two slices, and each kind alone."""
    stack = volume.read(encoded.series((2, 16, 16)))
    image = stack.image.volume
    masks = [np.zeros((2, 16, 16), np.bool_) for _ in range(3)]
    masks[0][:, 3:9, 2:7] = masks[1][:, 3:12, 9:14] = masks[2][:, 5:10, 5:11] = True
    segments = tuple(
        Segment(definition=definition, mask=image.with_array(mask), probability=0.8)
        for definition, mask in zip(encoded.DEFINITIONS, masks, strict=True)
    )
    point = tuple(map(float, image.map_indices_to_reference(np.array([[0.4, 8.2, 7.1]]))[0]))
    boxes = [
        Box(centre=point, edges=((8.0, 0, 0), (0, 6.0, 0), (0, 0, 4.0))),
        Box(centre=point, edges=((4.0, 1.0, 0), (-1.0, 4.0, 1.0), (0, -1.0, 4.0))),
    ]
    detections = tuple(Detection(definition=encoded.NODULE, box=b, probability=0.9) for b in boxes)
    keypoints = (Keypoint(definition=encoded.LEFT, position=point, probability=0.5),)
    measured = Findings(verdict=Verdict.MEASURED)
    kinds = {
        "all": replace(
            measured,
            segments=segments,
            detections=detections,
            keypoints=keypoints,
            classifications=ANSWERS,
            measurements=(NUMBER,),
        ),
        "detections": replace(measured, detections=detections),
        "detection": replace(measured, detections=detections[:1], classifications=ANSWERS),
        "keypoints": replace(measured, keypoints=keypoints),
        "answers": replace(measured, classifications=ANSWERS),
        "number": replace(measured, measurements=(NUMBER,)),
    }
    made: dict[str, Dataset] = {}
    for name, found in kinds.items():
        segs = segmentation.encode(stack, found, provenance=PROVENANCE)
        made |= {f"{name}_seg{n}": seg for n, seg in enumerate(segs, start=1)}
        made[f"{name}_report"] = measurement_report.encode(
            stack, found, provenance=PROVENANCE, segmentations=segs
        )
    return made


def in_pictures() -> dict[str, Dataset]:
    """Overlapping segments, boxes, points and answers in each kind of planar image."""
    grey, colour = np.zeros((10, 13), np.uint8), np.zeros((10, 13, 3), np.uint8)
    sources = {
        "cr": [picture(grey, CR, name=n, PatientOrientation=["L", "F"]) for n in "12"],
        "dx": [picture(grey, DX, Modality="DX", PixelSpacing=["0.5", "0.25"])],
        "cine": [picture(np.zeros((3, 10, 13), np.uint8), CINE, frames=3, Modality="US")],
        "photo": [picture(colour, PHOTO, colour=True, Modality="XC")],
        "sc": [picture(grey, SC, Modality="OT")],
    }
    made: dict[str, Dataset] = {}
    for name, datasets in sources.items():
        views = planar.read(datasets)
        found = [_in_view() for _ in views.views]
        segs = segmentation.encode_views(views, found, provenance=PROVENANCE)
        made |= {f"{name}_seg{n}": seg for n, seg in enumerate(segs, start=1)}
        made[f"{name}_report"] = measurement_report.encode_views(
            views, found, provenance=PROVENANCE, segmentations=segs
        )
    return made


def _in_view() -> Findings:
    masks = [np.zeros((10, 13), np.bool_) for _ in range(3)]
    masks[0][2:5, 2:7] = masks[1][6:9, 2:7] = masks[2][4:7, 3:9] = True
    box = Box(centre=(6.0, 5.0), edges=((4.0, 0.0), (0.0, 3.0)))
    return Findings(
        verdict=Verdict.MEASURED,
        segments=tuple(
            Segment(definition=definition, mask=regions.of_mask(mask))  # type: ignore[arg-type]
            for definition, mask in zip(encoded.DEFINITIONS, masks, strict=True)
        ),
        detections=(Detection(definition=encoded.NODULE, box=box, probability=0.7),),
        keypoints=(Keypoint(definition=encoded.LEFT, position=(3.2, 4.9)),),
        classifications=ANSWERS,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return encoded.written(tmp_path_factory.mktemp("kinds"), **in_stack(), **in_pictures())


@pytest.mark.dicom3tools
def test_dciodvfy_finds_no_error(files: dict[str, Path]) -> None:
    for path in files.values():
        validators.assert_dciodvfy_finds_no_error(path)


def reports(files: dict[str, Path]) -> list[Path]:
    return [path for name, path in files.items() if name.endswith("report")]


@pytest.mark.pixelmed
@pytest.mark.parametrize("name", ["all_report", "dx_report"])
def test_pixelmed_finds_no_error(files: dict[str, Path], name: str) -> None:
    lines = validators.said_by_pixelmed(files[name])
    assert any("Root Template Validation Complete" in line for line in lines)
    errors = [line for line in lines if line.startswith("Error")]
    assert [e for e in errors if not any(known in e for known in PIXELMED_IS_OLDER)] == []


@pytest.mark.dcmtk
def test_dcmtk_and_the_shared_check_read_the_reports(files: dict[str, Path]) -> None:
    for path in reports(files):
        validators.assert_the_shared_check_passes(path)


def test_dcmqi_reads_segments_of_several_objects(files: dict[str, Path], tmp_path: Path) -> None:
    counts = []
    for name in ("all_seg1", "all_seg2"):
        target = tmp_path / name
        target.mkdir()
        done = run(
            VENV / "segimage2itkimage",
            *("--inputDICOM", files[name], "--outputDirectory", target, "-t", "nrrd"),
            *("--prefix", "s", "--mergeSegments"),
        )
        assert done.returncode == 0, done.stderr + done.stdout
        (file,) = target.glob("*.nrrd")
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
        counts += np.bincount(array.ravel())[1:].tolist()
    assert counts == [2 * 6 * 5, 2 * 9 * 5, 2 * 5 * 6]


def test_dcmqi_reads_certainties_and_answers(files: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    done = run(
        VENV / "tid1500reader", "--inputDICOM", files["all_report"], "--outputMetadata", target
    )
    assert done.returncode == 0, done.stderr + done.stdout
    groups = json.loads(target.read_text())["Measurements"]
    certain = {
        group["TrackingIdentifier"]: float(item["value"])
        for group in groups
        for item in group["measurementItems"]
        if item["quantity"]["CodeMeaning"] == "Certainty of Finding"
    }
    assert certain["Nodule 1"] == 90.0
    assert certain["Pneumonia"] == 61.2
    assert {"Left lung", "Nodule 2", "Pleural effusion"} <= certain.keys()
