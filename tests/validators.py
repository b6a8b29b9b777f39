"""Independent programs judge a result as it lies in a file; one that is missing skips by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import debian_program

VENV = Path(sys.executable).parent
TOOLS = Path(__file__).resolve().parents[2] / "shared" / "tools"
PIXELMED = Path("/usr/share/java/pixelmed.jar")
JAVA_LIMITS = ("xpathExprGrpLimit", "xpathExprOpLimit", "xpathTotalOpLimit")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """A program to its end, two minutes at most."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=120
    )


def assert_dciodvfy_finds_no_error(file: Path) -> None:
    """dicom3tools: modules and attributes of any object."""
    done = run(debian_program("dciodvfy", "dicom3tools"), "-new", file)
    said = f"{file.name}: {done.stdout}{done.stderr}"
    assert "Error" not in said
    assert done.returncode == 0, said


def said_by_pixelmed(file: Path) -> list[str]:
    """PixelMed's lines on the templates of a report."""
    java = debian_program("java", "default-jre-headless")
    if not PIXELMED.is_file():
        pytest.skip("PixelMed is missing: apt-get install libpixelmed-java")
    limits = [f"-Djdk.xml.{limit}=0" for limit in JAVA_LIMITS]
    validator = "com.pixelmed.validate.DicomSRValidator"
    done = run(java, "-Xmx2g", *limits, "-cp", PIXELMED, validator, file)
    return (done.stdout + done.stderr).splitlines()


def assert_the_shared_check_passes(report: Path, tools: Path = TOOLS) -> None:
    """What the shared tools ask of a report, DCMTK's dsrdump among them."""
    check = tools / "check_sr.py"
    if not check.is_file():
        pytest.skip(f"the shared tools are not there: {tools}")
    search = os.pathsep.join([str(VENV), str(debian_program("dsrdump", "dcmtk").parent)])
    done = subprocess.run(
        [sys.executable, check, report],
        env={**os.environ, "PATH": search},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"{report.name}: {done.stdout}{done.stderr}"
