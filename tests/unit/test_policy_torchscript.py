"""TorchScript that does more than compute is refused, unrun; what computes passes.

Not covered: operators of other packages, a flaw of torch's own reader of archives.
"""

import io
import warnings
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from inference import torchscript_policy
from inference.errors import ModelRefused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch 2.13 on torch.jit
PROOF = "/tmp/hounsfield-torchscript-proof"  # noqa: S108  (written out below, too: TorchScript knows no globals)


class Saves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.save(x, "/tmp/hounsfield-torchscript-proof")  # noqa: S108
        return x


class SavesInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(), Saves())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", False, 4)


class RunsOnLoading(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.zeros(2)

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.ops.aten.save(state[0], "/tmp/hounsfield-torchscript-proof")  # noqa: S108
        self.weight = state[0]
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Helper:
    def __init__(self, path: str) -> None:
        self.path = path

    def act(self, x: torch.Tensor) -> None:
        torch.ops.aten.save(x, self.path)


class UsesAClass(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Helper("/tmp/hounsfield-torchscript-proof").act(x)  # noqa: S108
        return x


class InALoop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            if bool(x.sum() > 0):
                torch.ops.aten.save(x, "/tmp/hounsfield-torchscript-proof")  # noqa: S108
        return x


def archive(module: nn.Module) -> bytes:
    with warnings.catch_warnings(action="ignore"):
        scripted = (
            module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
        )
        written = io.BytesIO()
        torch.jit.save(scripted, written)
    return written.getvalue()


@pytest.mark.parametrize("hostile", [Saves, SavesInside, Reads, RunsOnLoading, UsesAClass, InALoop])
def test_a_network_that_reaches_out_is_refused_and_not_run(hostile: type[nn.Module]) -> None:
    content = archive(hostile())
    Path(PROOF).unlink(missing_ok=True)
    with pytest.raises(
        ModelRefused, match=r"the strict policy refuses TorchScript: .*--trust NAME"
    ):
        torchscript_policy.check(content)
    assert not Path(PROOF).exists()


def test_the_effect_would_have_happened() -> None:
    """Or the test above would prove nothing."""
    try:
        torch.jit.load(io.BytesIO(archive(RunsOnLoading())))
        assert Path(PROOF).exists()
    finally:
        Path(PROOF).unlink(missing_ok=True)


def test_networks_pass_scripted_traced_and_frozen() -> None:
    network = UNet(2, 1, 2, [4, 8], [2], num_res_units=1).eval()
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(network, torch.zeros(1, 1, 16, 16))
        frozen = torch.jit.freeze(torch.jit.script(network))
    for one in (network, traced, frozen):
        torchscript_policy.check(archive(one))


def test_what_is_no_archive_is_refused() -> None:
    content = archive(nn.ReLU())
    for broken in (b"", b"PK", content[:500], content[: len(content) // 2]):
        assert torchscript_policy.violations(broken)


def test_a_quantised_network_needs_trust_and_says_why() -> None:
    with warnings.catch_warnings(action="ignore"):
        network = torch.ao.quantization.quantize_dynamic(
            nn.Sequential(nn.Linear(4, 4)), {nn.Linear}
        )
        found = torchscript_policy.violations(archive(network))
    assert any("C++ classes" in one for one in found)
