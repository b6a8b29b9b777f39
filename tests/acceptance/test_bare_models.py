"""A TorchScript, an ONNX and a Python model in one node: from C-STORE to what the PACS received.

Small known functions on a small phantom; what each kind can say is tested in tests/unit. Not
covered: real weights (tests/integration/test_real_weights.py), planar images (test_planar.py).
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
from pydicom import Dataset
from torch import Tensor, nn

from inference import phantom
from service import sidecar
from tests.acceptance import delivered, studies
from tests.array_models import label, scripted
from tests.node import HOUNSFIELD, Node, dicom_destination, running
from tests.peers import dcmtk_storescp, storescu
from tests.unit import test_onnx_model

pytest.importorskip("onnxruntime", reason="pip install 'hounsfield[onnx]'")
pytestmark = pytest.mark.dcmtk

FUNCTION = """
def predict(array, affine, spacing, modality):
    return {"label_map": (array > 300).astype("uint8")}
"""
LABELS = {"torchscript": "Script", "onnx": "Open", "python": "Function"}


class Bright(nn.Module):
    """Two channels, the second larger above 300 HU."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, [0, 0, 0, 0, 0, 0, 1, 0], value=300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the node says of the series and what the PACS has of it."""

    outcomes: dict[str, dict[str, Any]]
    objects: list[Dataset]
    truth: np.ndarray


def added(folder: Path) -> dict[str, Path]:
    """A model of each kind, its sidecar written by the command and completed as a person would."""
    folder.mkdir()
    models = {
        "torchscript": scripted(Bright(), folder / "script.pt"),
        "onnx": folder / "open.onnx",
        "python": folder / "function.py",
    }
    models["onnx"].write_bytes(test_onnx_model.bright())
    models["python"].write_text(FUNCTION)
    for kind, path in models.items():
        done = subprocess.run(
            [HOUNSFIELD, "models", folder / "node.toml", "--add", path],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f"kind = '{kind}'" in done.stdout
        place = sidecar.path_of(path)
        document = tomlkit.parse(place.read_text())
        document["labels"] = [label(1, LABELS[kind])]
        if kind != "python":
            document["options"]["window"]["size"] = [8, 16, 16]  # type: ignore[index]
        place.write_text(tomlkit.dumps(document))
    return models


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("bare")
    made = phantom.markers(phantom.regular((12, 40, 32), (2.6, 1.1, 1.3)))
    with ExitStack() as stack:
        pacs = stack.enter_context(dcmtk_storescp(folder / "pacs"))
        tables = "".join(
            f'[[models]]\nname = "{kind}"\nkind = "{kind}"\npath = "{path}"\n'
            f'trust = "{"trusted" if kind == "python" else "strict"}"\n'
            for kind, path in added(folder / "models").items()
        )
        route = (
            '[[routes]]\nname = "CT"\nmatch = { Modality = "CT" }\n'
            f'models = {list(LABELS)}\ndestinations = ["pacs"]\n'
        )
        node = Node(
            folder / "node",
            extra=dicom_destination(pacs.port, ae_title="STORESCP") + tables + route,
        )
        node.command("models", "--trust", "python", "--yes")
        stack.enter_context(running(node))
        sent = storescu(node.port, studies.written(phantom.datasets(made), folder / "images"))
        assert sent.code == 0, sent.output
        (series,) = node.settled(seconds=120)
        yield Site(
            outcomes={outcome["model"]: outcome for outcome in series["outcomes"]},
            objects=delivered.objects(pacs.received()),
            truth=made.hu > 300,
        )


@pytest.mark.parametrize("kind", list(LABELS))
def test_its_segment_and_its_volume_are_at_the_pacs(kind: str, site: Site) -> None:
    outcome = site.outcomes[kind]
    assert (outcome["state"], outcome["verdict"]) == ("done", "measured"), outcome["reason"]
    segmentations = {
        one.SegmentSequence[0].SegmentLabel: one for one in site.objects if one.Modality == "SEG"
    }
    seg = segmentations[LABELS[kind]]
    assert delivered.voxels(seg) == {LABELS[kind]: int(site.truth.sum())}
    volumes = [delivered.volumes(one) for one in site.objects if one.Modality == "SR"]
    (stated,) = [one[LABELS[kind]] for one in volumes if LABELS[kind] in one]
    assert stated == pytest.approx(
        int(site.truth.sum()) * delivered.voxel_millilitres(seg), rel=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "arithmetic"),
    [("torchscript", ("float32", "bfloat16")), ("onnx", ("float32",)), ("python", (None,))],
)
def test_status_says_what_it_took_and_the_report_in_what_arithmetic(
    kind: str, arithmetic: tuple[str | None, ...], site: Site
) -> None:
    outcome = site.outcomes[kind]
    assert outcome["device"] in ("cpu", "cuda:0")
    assert outcome["arithmetic"] in arithmetic
    assert outcome["peak_bytes"] > 0
    assert outcome["model_seconds"] > 0
    stated = f"computed in {outcome['arithmetic']} on {outcome['device'].partition(':')[0]}"
    (report,) = [
        one
        for one in site.objects
        if one.Modality == "SR" and LABELS[kind] in delivered.volumes(one)
    ]
    assert (stated in report.to_json()) == (kind != "python")
