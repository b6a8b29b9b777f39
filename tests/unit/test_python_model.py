"""Python models: what the function is given, what it may return, and that it runs only if trusted.

The first test is the example of deploy/models/README.md, taken from there. Not covered: what keeps
the code in its process (tests of the sandbox), HD-BET (tests/integration/test_real_weights.py).
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch

from inference import description, phantom, regions
from inference.errors import ModelError, ModelRefused
from inference.findings import Findings, Image, PlanarImage, Verdict
from inference.model_files import ModelFiles
from inference.models import Artifact, python
from service import model_add, model_folder, sidecar
from service.validation import Place
from tests.array_models import artifact, image, label, oblique, planar

README = Path(__file__).resolve().parents[2] / "deploy" / "models" / "README.md"
BOX = {"label": "One", "lower": (2, 2, 2), "upper": (2, 3, 4), "probability": 1}
QUESTION = ["246456000", "SCT", "Episodicity"]


def block(language: str, containing: str) -> str:
    """A code block of the document."""
    found = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    (text,) = [one for one in found if containing in one]
    return str(text)


def documented(folder: Path) -> Artifact:
    """The document's example as a person would copy it."""
    file = folder / "dense.py"
    file.write_text(block("python", "def predict"))
    raw = tomllib.loads(block("toml", "[[labels]]")) | {"files": model_folder.digests(file)}
    parsed = description.parse(sidecar.parse(raw, Place(file=file)).plain)
    files = ModelFiles(path=file, digests=parsed.files)
    return Artifact(description=parsed, files=files, trusted=True)


def test_the_documented_example_works(tmp_path: Path) -> None:
    seen = oblique()
    found = python.load({}, documented(tmp_path)).predict(seen)
    assert found.verdict is Verdict.MEASURED
    (segment,) = found.segments
    mask = regions.on_grid(segment.mask, seen.volume).whole()
    assert np.array_equal(mask, seen.volume.array > 300)
    (point,) = found.keypoints
    nearest = min(np.linalg.norm(np.subtract(point.position, m)) for m in phantom.MARKERS)
    assert nearest < 2.6  # within a voxel
    (detection,) = found.detections
    assert detection.probability == 0.9
    assert detection.definition.label == "Region"
    (answer,) = found.classifications
    assert (answer.answer.meaning, answer.probability) == ("Present", 0.97)
    volume, peak = found.measurements
    assert (volume.segment, peak.value) == ("Calcification", float(seen.volume.array.max()))
    assert peak.interval == (290.0, 3071.0)
    assert found.limitations == ("An example; for no patient.", "Contrast agent is dense, too.")
    dark = image(np.zeros((3, 4, 5), np.int16), np.eye(4))
    refused = python.load({}, documented(tmp_path)).predict(dark)
    assert refused.verdict is Verdict.NOT_ANALYSED
    assert refused.reason == "nothing is denser than 300 HU"


def written(file: Path, code: str) -> Path:
    file.write_text(code)
    return file


def returning(
    answer: str, folder: Path, seen: Image | PlanarImage, *labels: dict[str, Any], **described: Any
) -> Findings:
    code = f"BOX = {BOX}\n\ndef predict(array, affine, spacing, modality):\n    {answer}\n"
    made = artifact(written(folder / "mine.py", code), labels, trusted=True, **described)
    return python.load({}, made).predict(seen)


def test_a_box_lies_around_its_voxels_in_the_patient(tmp_path: Path) -> None:
    seen = oblique()
    found = returning(
        'return {"boxes": [dict(label="Node", lower=(2, 3, 4), upper=(5, 9, 7), probability=1)]}',
        tmp_path,
        seen,
        label(1, "Node"),
    )
    (detection,) = found.detections
    affine = np.asarray(seen.volume.affine)
    corner = np.asarray(detection.box.centre) - np.sum(detection.box.edges, axis=0) / 2
    assert corner == pytest.approx((affine @ [1.5, 2.5, 3.5, 1])[:3])
    lengths = np.linalg.norm(detection.box.edges, axis=1)
    assert lengths == pytest.approx([4 * 2.6, 7 * 1.1, 4 * 1.3])


def test_planar_places_are_column_and_row(tmp_path: Path) -> None:
    found = returning(
        'return {"points": {"Tip": ((5, 20), 0.5)}, '
        '"boxes": [dict(label="Node", lower=(1, 2), upper=(1, 5), probability=0.5)], '
        '"label_map": (array > 0) * 1}',
        tmp_path,
        planar(np.eye(30, 40, dtype=np.float32)),
        label(1, "Tip"),
        label(2, "Node"),
        dimensions=2,
        modalities=["DX"],
    )
    assert (found.keypoints[0].position, found.keypoints[0].probability) == ((20.0, 5.0), 0.5)
    assert found.detections[0].box.centre == (3.5, 1.0)
    assert found.detections[0].box.edges == ((4.0, 0.0), (0.0, 1.0))
    assert found.segments[0].mask.whole().sum() == 30


def test_what_the_function_is_given(tmp_path: Path) -> None:
    seen = oblique()
    found = returning(
        "return {'limitations': [f'{array.dtype} {array.shape} {affine.shape} {spacing[0]:.1f} "
        "{modality} {array.flags.writeable}']}",
        tmp_path,
        seen,
        label(1, "One"),
    )
    assert found.limitations[1] == "int16 (16, 40, 32) (4, 4) 2.6 CT True"


def test_it_cannot_change_the_image(tmp_path: Path) -> None:
    seen = oblique()
    before = seen.volume.array.copy()
    returning("array[:] = 0; affine[:] = 0; return {}", tmp_path, seen, label(1, "One"))
    assert np.array_equal(seen.volume.array, before)
    assert np.linalg.norm(seen.volume.affine) > 1


def test_series_by_their_roles(tmp_path: Path) -> None:
    one = image(np.zeros((3, 4, 5), np.int16), np.eye(4), "MR")
    both = Image(
        volume=one.volume,
        acquisition=one.acquisition,
        roles={"t1": one.volume, "t2": one.volume.with_array(one.volume.array + 1)},
    )
    found = returning(
        'return {"masks": {"Lesion": array["t2"] > array["t1"]}}',
        tmp_path,
        both,
        label(1, "Lesion"),
        modalities=["MR"],
        roles=["t1", "t2"],
    )
    assert isinstance(found.segments[0].mask, hd.Volume)
    assert found.segments[0].mask.geometry_equal(both.volume)
    assert found.segments[0].mask.array.all()


def test_random_numbers_start_at_the_same_place(tmp_path: Path) -> None:
    code = (
        "import random, numpy as np, torch\n"
        "def predict(array, affine, spacing, modality):\n"
        "    said = (random.random(), np.random.rand(), float(torch.rand(1)))\n"
        "    return {'limitations': [str(said)]}\n"
    )
    made = artifact(written(tmp_path / "mine.py", code), [label(1, "One")], trusted=True)
    model, seen = python.load({}, made), oblique()
    before = torch.random.get_rng_state()
    assert model.predict(seen) == model.predict(seen)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("return None", "predict returned NoneType; allowed: a dict with label_map, masks, boxes"),
        ('return {"mask": 1}', r"predict returned \['mask'\]"),
        ('return {"masks": {"Two": array > 0}}', "masks: 'Two' is no label; allowed: One"),
        (
            'return {"masks": {"One": array[1:] > 0}}',
            r"masks: One: bool of \(15, 40, 32\); allowed",
        ),
        ('return {"masks": {"One": array}}', "masks: One: int16 of .* allowed: booleans of"),
        ('return {"label_map": array / 2}', "label_map: float64 of .* allowed: integers of"),
        ('return {"points": {"One": (1, 2)}}', r"points: One: \(1.0, 2.0\) is no index into"),
        ('return {"points": {"One": (1, 2, 99)}}', "points: One: .* is no index into"),
        ('return {"points": {"One": ((1, 2, 3), 2)}}', "points: One: 2.0 is no probability"),
        ('return {"boxes": [{"label": "One"}]}', "boxes: allowed: label, lower, upper and prob"),
        (
            'return {"boxes": [{**BOX, "lower": (9, 9, 9)}]}',
            "boxes: lower lies above upper",
        ),
        ('return {"classes": {"One": float("nan")}}', "classes: One: nan is no number"),
        ('return {"numbers": {"One": (1, 2)}}', "numbers: One: allowed: a value, or"),
        ('return {"numbers": {"One": "high"}}', "numbers: One: str is no number"),
    ],
)
def test_what_is_not_as_documented_is_the_models_fault(
    answer: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words) as wrong:
        returning(
            answer,
            tmp_path,
            oblique(),
            label(1, "One", question=QUESTION, unit=["1", "UCUM", "no units"]),
        )
    assert "\n" not in str(wrong.value)


def test_it_runs_only_if_trusted(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\ndef predict(**image): return {{}}\n"
    file = written(tmp_path / "mine.py", code)
    assert python.propose(file) is not None
    with pytest.raises(ModelRefused, match=r"mine\.py is Python code .* trust = \"trusted\""):
        python.load({}, artifact(file, [label(1, "One")]))
    assert not ran.exists()
    python.load({}, artifact(file, [label(1, "One")], trusted=True))
    assert ran.exists()


def test_only_the_pinned_bytes_run(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.py", "def predict(**image): return {}\n")
    made = artifact(file, [label(1, "One")], trusted=True)
    file.write_text("raise RuntimeError\n")
    with pytest.raises(ModelRefused, match=r"mine\.py changed since the model was added"):
        python.load({}, made)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\n", r"mine\.py has no function predict, and no load that returns one"),
        ("def predict(:\n", r"mine\.py line 1: "),
        ("import absent_package\n", r"mine\.py needs absent_package, which is not installed"),
    ],
)
def test_files_that_cannot_run_are_refused(code: str, words: str, tmp_path: Path) -> None:
    file = written(tmp_path / "mine.py", code)
    with pytest.raises(ModelRefused, match=words):
        python.load({}, artifact(file, [label(1, "One")], trusted=True))


def test_a_folder_with_weights_and_a_second_file(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save({"level": torch.tensor(300.0)}, folder / "level.pth")
    written(folder / "rules.py", "def above(array, level): return array > level\n")
    written(
        folder / "model.py",
        "def load(files):\n"
        "    level = float(files.weights('level.pth')['level'])\n"
        "    rules = files.module('rules.py')\n"
        "    def predict(array, **rest):\n"
        "        return {'masks': {'One': rules.above(array, level)}}\n"
        "    return predict\n",
    )
    seen = oblique()
    assert model_add.proposal(folder)[0] == "python"
    made = artifact(folder, [label(1, "One")], trusted=True)
    (segment,) = python.load({}, made).predict(seen).segments
    mask = regions.on_grid(segment.mask, seen.volume).whole()
    assert np.array_equal(mask, seen.volume.array > 300)
    (folder / "rules.py").write_text("def above(array, level): return array < level\n")
    with pytest.raises(ModelRefused, match=r"rules\.py changed since the model was added"):
        python.load({}, made)
