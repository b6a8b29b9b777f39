"""Labels with a side of networks that are given the scanner's order: said by check and by reports.

Not covered: nnU-Net, which says it of unusual slices (test_nnunet_model.py).
"""

from pathlib import Path
from typing import Any

import pytest
import tomlkit
from torch import Tensor, nn

from inference.arrays import sides
from inference.findings import Findings
from inference.models import torchscript
from service import check, cli, config, sidecar
from tests.array_models import artifact, label, oblique, planar, scripted

LEFT = ["7771000", "SCT", "Left"]
BILATERAL = ["51440002", "SCT", "Right and left"]
SIDED = [
    label(0, "Left lung"),
    label(0, "lung_RIGHT"),
    label(0, "Kidney", modifier=LEFT),
    label(0, "K") | {"type": ["K", "99TEST", "Right kidney"]},
]
OTHERS = [
    label(0, "Cleft"),
    label(0, "Bright"),
    label(0, "Lungs", modifier=BILATERAL),
    label(0, "Spleen"),
]


class Same(nn.Module):
    """What it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def found(folder: Path, one: dict[str, Any], *, dimensions: int = 3, **options: Any) -> Findings:
    file = scripted(Same(), folder / "net.pt")
    made = artifact(
        file,
        [one],
        options={"input": options},
        overlapping=True,
        dimensions=dimensions,
        modalities=["CT", "DX"],
    )
    seen = oblique() if dimensions == 3 else planar(oblique().volume.array[8])
    return torchscript.load({}, made).predict(seen)


def doubts(findings: Findings) -> list[str]:
    return [one for one in findings.limitations if "left and right are exchanged" in one]


@pytest.mark.parametrize("one", SIDED, ids=lambda one: one["name"])
def test_a_report_says_that_nobody_vouches_for_a_side(one: dict[str, Any], tmp_path: Path) -> None:
    (said,) = doubts(found(tmp_path, one))
    assert f"({one['name']})" in said


@pytest.mark.parametrize("one", OTHERS, ids=lambda one: one["name"])
def test_a_label_without_a_side_needs_nobody(one: dict[str, Any], tmp_path: Path) -> None:
    assert not doubts(found(tmp_path, one))


def test_letters_settle_it_and_planar_images_have_no_order(tmp_path: Path) -> None:
    assert not doubts(found(tmp_path, SIDED[0], orientation="RAS"))
    assert not doubts(found(tmp_path, SIDED[0], dimensions=2))


def test_check_warns_of_the_same_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = scripted(Same(), tmp_path / "net.pt")
    toml = tmp_path / "node.toml"
    toml.write_text(
        f'[storage]\ndirectory = "{tmp_path / "data"}"\n'
        f'[[models]]\nname = "lungs"\nkind = "torchscript"\npath = "{model}"\n'
    )
    assert cli.main(["models", str(toml), "--add", str(model)]) == 0
    place = sidecar.path_of(model)
    document = tomlkit.parse(place.read_text())
    named = [one | {"value": value} for value, one in enumerate([*SIDED, *OTHERS])]
    document["labels"] = named
    place.write_text(tomlkit.dumps(document))
    capsys.readouterr()
    assert cli.main(["check", str(toml)]) == 0
    expected = [one["name"] for one in SIDED]
    assert f"left and right of {', '.join(expected)} are right only" in capsys.readouterr().err
    assert check.unsure_of_sides(config.load(toml)) == {"lungs": tuple(expected)}
    assert sides.sided(artifact(model, named).description.labels) == tuple(expected)
    document["options"]["input"]["orientation"] = "LPS"  # type: ignore[index]
    place.write_text(tomlkit.dumps(document))
    assert cli.main(["check", str(toml)]) == 0
    assert "left and right" not in capsys.readouterr().err
