"""TorchScript that does more than compute is refused, unrun; what computes passes.

Not covered: operators of other packages, a flaw of torch's own reader of archives.
"""

import io
import warnings
import zipfile
from collections.abc import Callable
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


def repacked(
    content: bytes, name: Callable[[str], str], old: bytes = b"", new: bytes = b""
) -> bytes:
    """An archive whose records have other names, or whose code has another text."""
    written = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as target,
    ):
        for one in source.namelist():
            code = one.endswith(".py")
            record = source.read(one)
            target.writestr(name(one), record.replace(old, new) if code else record)
        target.writestr("archive/code/more.py", "pass")
    return written.getvalue()


@pytest.mark.parametrize(("old", "new"), [("/code/", "/CODE/"), (".py", ".PY"), (".py", ".pY")])
def test_code_under_a_name_that_torch_finds_without_regard_to_case_is_read(
    old: str, new: str
) -> None:
    content = repacked(archive(RunsOnLoading()), lambda name: name.replace(old, new))
    try:
        torch.jit.load(io.BytesIO(content))
        assert Path(PROOF).exists(), "torch runs it"
        Path(PROOF).unlink()
        assert torchscript_policy.violations(content)
        assert not Path(PROOF).exists()
    finally:
        Path(PROOF).unlink(missing_ok=True)


class Adds(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def hook(module: nn.Module, given: tuple[torch.Tensor], found: torch.Tensor) -> torch.Tensor:
    torch.ops.aten.save(found, "/tmp/hounsfield-torchscript-proof")  # noqa: S108
    return found


def test_a_hook_that_writes_is_read_however_it_names_the_operator() -> None:
    """The graph of a method does not have what is called after it."""
    hooked = Adds()
    hooked.register_forward_hook(hook)  # type: ignore[arg-type]
    content = repacked(archive(hooked), str, b"torch.save", b"torch.autograd.save")
    try:
        torch.jit.load(io.BytesIO(content))(torch.zeros(1))
        assert Path(PROOF).exists(), "torch runs it"
        found = torchscript_policy.violations(content)
        assert any(one.endswith("calls aten::save") for one in found)
    finally:
        Path(PROOF).unlink(missing_ok=True)


def test_bytes_that_are_an_archive_and_another_format_too_are_refused() -> None:
    """torch loads what the first bytes say, and the archive behind them is never run."""
    with warnings.catch_warnings(action="ignore"):
        flatbuffer = torch._C._save_jit_module_to_bytes(torch.jit.script(Adds())._c, {})
    written = io.BytesIO(flatbuffer)
    written.seek(0, io.SEEK_END)
    harmless = archive(nn.ReLU())
    with (
        zipfile.ZipFile(written, "a") as target,
        zipfile.ZipFile(io.BytesIO(harmless)) as source,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert torch.jit.load(io.BytesIO(written.getvalue()))(torch.zeros(1)) == 1
    assert any("no archive" in one for one in torchscript_policy.violations(written.getvalue()))


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


@pytest.mark.parametrize("size", [0, 21, 4096, 4097, 5000, 11_357, 70_000])
def test_what_is_no_archive_is_no_program(size: int) -> None:
    assert not torchscript_policy.is_program(b"x" * size)


@pytest.mark.parametrize("size", [0, 4096, 4096 + 2000, 10_000, 60_000])
def test_a_program_before_other_bytes_is_one_wherever_torch_loads_it(size: int) -> None:
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.ReLU()), script)  # type: ignore[no-untyped-call]
    content = script.getvalue() + b"x" * size
    try:
        torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    except RuntimeError:
        loads = False
    else:
        loads = True
    assert torchscript_policy.is_program(content) == loads
