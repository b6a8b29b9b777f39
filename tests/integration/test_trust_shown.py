"""Before a model is trusted it is shown what it would run, and its files cannot harm who looks.

Not covered: a person's answer on a terminal.
"""

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from service import cli
from tests.trusted import HARMLESS, confinable

pytest_plugins = ["tests.trusted_fixtures"]
DEEP = 2_000_000  # lists in lists


def test_the_command_shows_what_it_would_run_before_it_records(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", str(toml), "--trust", "mine"]) == 2  # no terminal to ask on
    said = capsys.readouterr()
    assert "model.py: Python, runs as it is" in said.out
    assert "licence  unknown" in said.out
    assert f"{len(HARMLESS)} bytes" in said.out
    assert "--yes" in said.err
    assert not (toml.parent / "storage/trust").exists()
    assert cli.main(["models", str(toml), "--trust", "mina", "--yes"]) == 2


@confinable
def test_a_file_that_kills_its_reader_does_not_kill_the_command(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crashing_torchscript(toml.parent / "mine/model.pt")
    assert cli.main(["models", str(toml), "--add", str(toml.parent / "mine")]) == 0
    assert cli.main(["models", str(toml), "--trust", "mine", "--yes"]) == 1
    said = capsys.readouterr().err
    assert "mine: what it would run cannot be shown: its process crashed (SIGSEGV)" in said
    assert not (toml.parent / "storage/trust").exists()


class Doubles(torch.nn.Module):
    """Whose script has a text."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2


def crashing_torchscript(file: Path) -> None:
    """An archive whose text is harmless and whose constants are lists too deep to take apart."""
    script = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch 2.13
        torch.jit.save(torch.jit.script(Doubles()), script)  # type: ignore[no-untyped-call]
    reader: Any = torch._C.PyTorchFileReader(io.BytesIO(script.getvalue()))
    writer: Any = torch._C.PyTorchFileWriter(str(file))
    deep = b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b"."
    wanted = [name for name in reader.get_all_records() if name.endswith((".pkl", ".py"))]
    for name in wanted:
        record = deep if name == "constants.pkl" else reader.get_record(name)
        writer.write_record(name, record, len(record))
    writer.write_end_of_file()


class Opens(torch.nn.Module):
    """Which would have a file of the machine for its weights."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + torch.from_file("/etc/passwd", shared=False, size=10)


@confinable
@pytest.mark.parametrize("hidden", [False, True])
def test_a_program_is_shown_in_an_archive_that_only_torch_reads(
    toml: Path, capsys: pytest.CaptureFixture[str], *, hidden: bool
) -> None:
    script = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch 2.13
        torch.jit.save(torch.jit.script(Opens()), script)  # type: ignore[no-untyped-call]
    content = script.getvalue()
    if hidden:  # a comment that looks like the end of an archive, where Python looks for one
        content = content[:-2] + b"\4\0PK\5\6"
    (toml.parent / "mine/model.pt").write_bytes(content)
    assert cli.main(["models", str(toml), "--add", str(toml.parent / "mine")]) == 0
    assert cli.main(["models", str(toml), "--trust", "mine", "--yes"]) == 0
    assert ".py calls aten::from_file" in capsys.readouterr().out


@confinable
def test_a_licence_of_some_pages_is_no_program(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toml.parent / "mine/LICENSE").write_text("You may. " * 1_262)  # 11 KB, as Apache-2.0
    assert cli.main(["models", str(toml), "--add", str(toml.parent / "mine")]) == 0
    capsys.readouterr()
    assert cli.main(["models", str(toml), "--trust", "mine", "--yes"]) == 0
    assert "beyond the strict policy\n    model.py: Python" in capsys.readouterr().out


def test_the_command_loads_no_reader_of_models_itself(toml: Path) -> None:
    script = f"""
import sys
from service import cli
assert cli.main(["models", {str(toml)!r}, "--trust", "mine", "--yes"]) == 0
assert not {{"torch", "inference.torchscript_policy"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
