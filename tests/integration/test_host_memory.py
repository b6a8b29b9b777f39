"""What a model's process has freed serves its next layer, and goes back when a study is done."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from service import sandbox

ROOT = Path(__file__).resolve().parents[2]
LARGE = 256 << 20  # bytes, of which 32-bit numbers are made
SCRIPT = f"""
import torch
from inference.engine import device

cpu = device.Cpu()
resident = lambda: device._proc_bytes(device.STATUS, "VmRSS")
before = resident()
values = torch.ones({LARGE >> 2})
full = resident()
del values
freed = resident()
device.give_back_host()
print(before, full, freed, resident(), cpu.used_bytes())
"""

HOLED = f"""
import torch
from inference.engine import device
from service import processes

processes.limit_memory(device._proc_bytes(device.STATUS, "VmData") + 3 * {LARGE})
first, kept = torch.empty({LARGE * 3 // 2 >> 2}), torch.ones(1 << 18)
del first
device.give_back_host()
torch.empty({LARGE * 5 // 2 >> 2})
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_until_it_is_given_back(tmp_path: Path) -> None:
    environment = sandbox.environment(os.environ, tmp_path) | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    before, full, freed, back, used = map(int, said.stdout.split())
    assert full - before >= LARGE
    assert freed - before >= LARGE, "the next layer would have to ask the system again"
    assert back - before < LARGE / 8
    assert used - before < LARGE / 8


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_was_freed_does_not_count_towards_a_limit(tmp_path: Path) -> None:
    environment = sandbox.environment(os.environ, tmp_path, limited=True)
    subprocess.run(
        [sys.executable, "-c", HOLED], env=environment | {"PYTHONPATH": str(ROOT)}, check=True
    )
