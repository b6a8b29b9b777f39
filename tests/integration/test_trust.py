"""A trusted model runs with exactly the files that were approved: commands, child and worker.

Not covered: a person's answer on a terminal, an approval by somebody who may not give one (whoever
may write the storage directory may approve).
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service import approvals, cli, config, model_states
from service.analysis import Analyst
from service.node import child_setup
from service.tasks import Failed, Setup, Task
from service.worker import Worker
from tests.workplace import Workplace, slices

HARMLESS = "def predict(array, **facts):\n    return {'mask': (array > 300).astype('uint8')}\n"
CONFIGURATION = """\
[storage]
directory = "{directory}"

[[models]]
name = "mine"
kind = "python"
path = "mine"
trust = "{trust}"
"""
HOSTILE = """\
import os, signal, socket, subprocess
from pathlib import Path

def attempt(action):
    try:
        action()
    except OSError:
        return

attempt(lambda: Path({proof!r}).write_text("was here"))
attempt(lambda: Path({proof!r}).write_text(Path({secret!r}).read_text()))
attempt(lambda: subprocess.run(["touch", {proof!r}]))
attempt(lambda: os.kill(os.getppid(), signal.SIGKILL))
attempt(lambda: socket.create_connection(("127.0.0.1", {port})).close())
attempt(lambda: [os.fork() for _ in range(3)])

def predict(array, **facts):
    raise RuntimeError("still here")
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A configuration with a Python model that was added, not yet approved."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "storage").mkdir()
    (tmp_path / "mine/model.py").write_text(HARMLESS)
    file = tmp_path / "hounsfield.toml"
    file.write_text(CONFIGURATION.format(directory=tmp_path / "storage", trust="trusted"))
    assert cli.main(["models", str(file), "--add", str(tmp_path / "mine")]) == 0
    return file


def approve(file: Path) -> None:
    assert cli.main(["models", str(file), "--trust", "mine", "--yes"]) == 0


def state(file: Path) -> str:
    loaded = config.load(file)
    return model_states.state(loaded, loaded.models[0]) or ""


def test_a_trusted_model_is_stopped_until_its_files_are_approved(toml: Path) -> None:
    assert state(toml).startswith("stopped: trusted, but not approved")
    approve(toml)
    assert state(toml).startswith("trusted: approved by ")
    kept = approvals.read(approvals.file_of(toml.parent / "storage", "mine"))
    assert kept is not None
    assert list(kept.files) == ["model.py"]


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


@pytest.mark.parametrize(
    ("name", "text"),
    [("model.py", "import os\n"), ("scripts/new.py", "x = 1\n"), ("model.pt", "weights")],
)
def test_a_file_that_changed_or_came_stops_the_model(toml: Path, name: str, text: str) -> None:
    approve(toml)
    changed = toml.parent / "mine" / name
    changed.parent.mkdir(exist_ok=True)
    changed.write_text(text)
    assert state(toml).startswith(f"stopped: {name} changed since it was added")
    assert cli.main(["models", str(toml), "--add", str(toml.parent / "mine")]) == 0
    assert state(toml).startswith(f"stopped: {name} changed since it was approved")
    approve(toml)
    assert state(toml).startswith("trusted")


def test_a_strict_model_is_stopped_by_a_changed_file_too(toml: Path) -> None:
    toml.write_text(toml.read_text().replace('"trusted"', '"strict"'))
    assert state(toml) == "strict"
    (toml.parent / "mine/model.py").write_text("x = 1\n")
    assert state(toml).startswith("stopped: model.py changed since it was added")


@pytest.mark.parametrize(
    "damaged", ["{", "[]", '{"files": {}}', '{"files": 3, "by": "", "at": ""}']
)
def test_a_damaged_approval_approves_nothing(toml: Path, damaged: str) -> None:
    approve(toml)
    approvals.file_of(toml.parent / "storage", "mine").write_text(damaged)
    assert state(toml).startswith("stopped: trusted, but not approved")


def test_check_models_and_status_say_what_is_stopped(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert cli.main(["check", str(toml)]) == 0
    assert "model 'mine' is stopped: trusted, but not approved" in capsys.readouterr().err
    assert cli.main(["models", str(toml), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["trust"].startswith("stopped")
    assert listed["licence"] == "unknown"
    assert len(listed["files_digest"]) == 64


def test_a_warm_child_notices_that_a_file_changed(toml: Path) -> None:
    approve(toml)
    analyst = Analyst(child_setup(config.load(toml)))
    assert analyst.preload() == {}
    assert analyst._model("mine") is analyst._model("mine")
    (toml.parent / "mine/model.py").write_text("x = 1\n")
    answer = analyst.answer(TASK)
    assert isinstance(answer, Failed)
    assert answer.final
    assert answer.reason.startswith("the model mine is stopped: model.py changed")
    (toml.parent / "mine/model.py").write_text(HARMLESS)
    assert analyst._model("mine").requirements.modalities == ("CT",)


def test_a_warm_child_notices_that_an_approval_was_taken_back(toml: Path) -> None:
    approve(toml)
    analyst = Analyst(child_setup(config.load(toml)))
    assert analyst.preload() == {}
    approvals.file_of(toml.parent / "storage", "mine").unlink()
    answer = analyst.answer(TASK)
    assert isinstance(answer, Failed)
    assert "not approved" in answer.reason


def test_trusted_code_does_not_run_where_nothing_would_keep_it(toml: Path) -> None:
    approve(toml)
    setup = replace(child_setup(config.load(toml)), unconfined="files")
    answer = Analyst(setup).answer(TASK)
    assert isinstance(answer, Failed)
    assert answer.reason == "trusted code does not run: nothing would keep it from files"


def test_results_name_digest_and_licence_of_the_model(toml: Path) -> None:
    approve(toml)
    loaded = config.load(toml)
    provenance = Analyst(child_setup(loaded))._provenance(TASK, "float32 on cpu")
    artifact = loaded.models[0].artifact
    assert artifact is not None
    assert provenance.model_digest == approvals.digest_of(artifact.sidecar.files)
    assert provenance.model_licence == "unknown"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path / "work")
    yield made
    made.database.close()


def worked(place: Workplace, setup: Setup) -> tuple[str, int, str]:
    """State, attempts and reason of a job of `mine`, by a worker with a real child."""
    place.receive(slices())
    place.close("mine", destinations=())
    worker = place.worker("mine", attempts=3)
    mine = replace(setup.models[0], version="1.0.0", configuration="c" * 64)
    readable = (*worker._setup.readable, *setup.readable)
    worker = replaced(worker, replace(setup, models=(mine,), readable=readable))
    try:
        assert worker.step()
    finally:
        worker.close()
    (outcome,) = place.series()[0].outcomes
    return outcome.state, outcome.attempts, outcome.reason or ""


def replaced(worker: Worker, setup: Setup) -> Worker:
    worker._setup = setup
    worker._models = {model.name: model for model in setup.models}
    return worker


def test_a_job_of_a_stopped_model_fails_at_once_with_the_reason(
    toml: Path, place: Workplace
) -> None:
    state, attempts, reason = worked(place, child_setup(config.load(toml)))
    assert (state, attempts) == ("failed", 1)
    assert reason.startswith("the model mine is stopped: trusted, but not approved")


def test_approved_code_that_is_hostile_has_no_effect(
    toml: Path, place: Workplace, free_port: int
) -> None:
    proof = toml.parent / "proof"
    secret = str(toml)
    hostile = HOSTILE.format(proof=str(proof), secret=secret, port=free_port)
    (toml.parent / "mine/model.py").write_text(hostile)
    assert cli.main(["models", str(toml), "--add", str(toml.parent / "mine")]) == 0
    approve(toml)
    (toml.parent / "storage/trust").mkdir(exist_ok=True)
    _, _, reason = worked(place, child_setup(config.load(toml)))
    assert reason.startswith("RuntimeError at ")  # it ran to its end, and the child lives on
    assert not proof.exists()


def test_a_pickle_with_code_does_not_load_as_weights(tmp_path: Path) -> None:
    from inference.errors import ModelRefused
    from inference.model_files import ModelFiles
    from tests.integration.test_sandbox import Explodes

    proof = tmp_path / "proof"
    torch.save({"weight": Explodes(proof)}, tmp_path / "model.pt")
    files = ModelFiles(
        path=tmp_path, digests={"model.pt": approvals.sidecar.digests(tmp_path)["model.pt"]}
    )
    with pytest.raises(ModelRefused, match="does not load as weights"):
        files.weights("model.pt")
    assert not proof.exists()


TASK = Task(model="mine", paths=(), fingerprint="f", generation=1, predecessor=None)
