"""TorchScript files: what is loaded and run, what is not, and how one is added.

What its networks answer: test_bare_masks.py, test_bare_keypoints.py, test_bare_answers.py. Not
covered: what the static policy refuses (test_policy_torchscript.py), a GPU.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference.arrays.options import DEFAULTS
from inference.errors import ModelRefused
from inference.findings import Verdict
from inference.models import torchscript
from service import model_add, sidecar
from tests.array_models import artifact, image, label, oblique, scripted
from tests.bare_networks import (
    Ask,
    Bright,
    Identity,
)

pytest_plugins = ["tests.bare_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")


class Writes(nn.Module):
    """Writes a file when it runs."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.file)
        return x


def test_an_image_of_another_modality_is_not_analysed(ask: Ask) -> None:
    seen = image(np.zeros((3, 4, 5), np.int16), np.eye(4), "MR")
    found = ask(Bright(), seen, label(1, "Bright"))
    assert (found.verdict, found.reason) == (Verdict.NOT_ANALYSED, "not a CT image but MR")


def test_a_network_that_writes_is_refused_unless_trusted(tmp_path: Path, ask: Ask) -> None:
    written = tmp_path / "written"
    network, seen = Writes(str(written)), oblique()
    with pytest.raises(ModelRefused, match="aten::save"):
        ask(network, seen, label(0, "One"), overlapping=True)
    assert not written.exists()
    ask(network, seen, label(0, "One"), overlapping=True, trusted=True)
    assert written.exists()


def test_files_that_are_no_torchscript(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    file.write_bytes(b"no archive")
    made = artifact(file, [label(1, "One")], trusted=True)
    with pytest.raises(ModelRefused, match=r"net\.pt does not load as TorchScript"):
        torchscript.load({}, made)
    torch.save({"weight": torch.ones(2)}, file)
    assert torchscript.propose(file) is None
    assert torchscript.propose(tmp_path) is None


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    file = scripted(Bright(), tmp_path / "net.pt")
    made = artifact(file, [label(1, "One")])
    scripted(Identity(), file)
    with pytest.raises(ModelRefused, match=r"net\.pt changed since the model was added"):
        torchscript.load({}, made)


def test_added_by_the_command_with_every_option_to_be_seen(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    scripted(Bright(), folder / "a.ts")
    scripted(Bright(), folder / "model.ts")
    assert model_add.proposal(folder)[0] == "torchscript"
    model_add.add(folder)
    plain = sidecar.read(folder).plain
    assert plain["options"] == {"file": "model.ts", **DEFAULTS}
    made = artifact(folder, [label(1, "One")], options=plain["options"])
    assert torchscript.load({}, made).predict(oblique()).segments
