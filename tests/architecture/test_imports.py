"""The picture of the architecture is true: who imports whom, and what each role loads when it runs.

Not covered: what the modules do.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import unused_port

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("service", "inference", "storage")
SCIENCE = ("torch", "monai", "inference", "highdicom", "scipy", "skimage")

LIVE_AND_STOP = """
import json, sys
from pathlib import Path
from service import config, node
from service.stopping import Stop

configuration = config.load(Path(sys.argv[1]))
node.prepare(configuration)
stop = Stop()
node.BUILDERS[sys.argv[2]](configuration, node.Life(stop=stop, ready=stop.ask))
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""

CONFIGURATION = """
[application_entity]
port = {port}
[web]
port = {web_port}
[storage]
minimum_free_gib = 0
[[destinations]]
name = "pacs"
kind = "dicom"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[[models]]
name = "lung"
kind = "lung_ct"
[[routes]]
name = "chest"
models = ["lung"]
destinations = ["pacs"]
select = "best"
"""


def python_files() -> list[Path]:
    """Every file of ours."""
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def test_the_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("role", ["receive", "deliver", "maintain", "web"])
def test_a_role_that_does_not_infer_loads_no_science(role: str, tmp_path: Path) -> None:
    port, web_port = unused_port(), unused_port()
    file = tmp_path / "node.toml"
    file.write_text(CONFIGURATION.format(port=port, web_port=web_port))
    done = subprocess.run(
        [sys.executable, "-c", LIVE_AND_STOP, file, role],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "service" in loaded
    assert sorted(set(loaded) & set(SCIENCE)) == []


def test_check_loads_neither_science_nor_network_nor_database(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(CONFIGURATION.format(port=1, web_port=2))
    program = (
        "import sys; from service.cli import main; code = main(sys.argv[1:]);"
        "print(code, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "check", file], cwd=ROOT, capture_output=True, text=True
    )
    code, *loaded = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    unwanted = {*SCIENCE, "pynetdicom", "sqlalchemy", "starlette", "rich", "structlog"}
    assert sorted(set(loaded) & unwanted) == []


@pytest.mark.parametrize("file", python_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_import_is_for_type_checkers_only(file: Path) -> None:
    names = {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.Attribute)
    }
    assert "TYPE_CHECKING" not in names
