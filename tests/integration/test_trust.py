"""A trusted model runs with exactly the files that were approved: commands, child and worker.

Not covered: what is shown before (test_trust_shown.py), an approval by somebody who may not give
one (whoever may write the storage directory may approve).
"""

import importlib.util
import json
import marshal
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service import approvals, cli, config, model_folder, model_states, sidecar
from service.analysis import Analyst
from service.node import child_setup
from service.tasks import Failed, Setup, Task
from service.worker import Worker
from tests.hostile_bundles.pickled import Call
from tests.trusted import HARMLESS, confinable
from tests.workplace import Workplace, slices

pytest_plugins = ["tests.trusted_fixtures"]

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
    strict = toml.read_text().replace('"trusted"', '"strict"')
    toml.write_text(strict.replace('"python"', '"torchscript"'))
    assert state(toml) == "strict"
    (toml.parent / "mine/model.py").write_text("x = 1\n")
    assert state(toml).startswith("stopped: model.py changed since it was added")


def test_python_that_is_strict_is_stopped_before_any_job(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml.write_text(toml.read_text().replace('"trusted"', '"strict"'))
    assert state(toml) == 'stopped: Python code runs only with trust = "trusted"'
    assert cli.main(["check", str(toml)]) == 0
    assert "model 'mine' is stopped: Python code" in capsys.readouterr().err


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
    digest = listed["files_digest"]
    assert digest == approvals.digest_of(sidecar.read(toml.parent / "mine").files)
    assert cli.main(["models", str(toml)]) == 0
    assert f"\n  digest    {digest}\n" in capsys.readouterr().out


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
    provenance = Analyst(child_setup(loaded))._provenance(TASK)
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
    worker = set_up(place, setup)
    try:
        assert worker.step()
    finally:
        worker.close()
    (outcome,) = place.series()[0].outcomes
    return outcome.state, outcome.attempts, outcome.reason or ""


def set_up(place: Workplace, setup: Setup) -> Worker:
    """A worker of `mine` at this workplace."""
    mine = replace(setup.models[0], version="1.0.0", configuration="c" * 64)
    return place.worker(
        "mine", attempts=3, package=setup.package, setups=[mine], readable=setup.readable
    )


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


READS = """\
import sys
from pathlib import Path

FOLDER = Path({folder!r})
sys.path.insert(0, str(FOLDER))
import helper

def readable(name):
    try:
        return bool((FOLDER / name).read_bytes())
    except PermissionError:
        return False

def predict(array, **facts):
    found = [n for n in {names!r} if readable(n)] + [helper.ORIGIN]
    raise type("Found_" + "_".join(found).replace(".", "").replace("/", ""), (Exception,), {{}})
"""
NOT_PINNED = (".hidden", ".folder/deep", "__pycache__/other.txt")


@confinable
def test_what_is_not_pinned_has_no_influence(toml: Path, place: Workplace) -> None:
    mine = toml.parent / "mine"
    for name in (*NOT_PINNED, "pinned"):
        (mine / name).parent.mkdir(exist_ok=True)
        (mine / name).write_text("a word")
    (mine / "helper.py").write_text("ORIGIN = 'source'\n")
    poisoned(mine / "helper.py", "ORIGIN = 'cache'\n")
    text = READS.format(folder=str(mine), names=(*NOT_PINNED, "pinned"))
    (mine / "model.py").write_text(text)
    assert cli.main(["models", str(toml), "--add", str(mine)]) == 0
    approve(toml)
    _, _, reason = worked(place, child_setup(config.load(toml)))
    assert reason.startswith("Found_pinned_source at ")


def poisoned(source: Path, text: str) -> None:
    """A cache of a module's code that Python would take without a look at the source."""
    code = compile(text, str(source), "exec")
    unchecked = (1).to_bytes(4, "little") + bytes(8)  # PEP 552: a hash, not to be compared
    cache = Path(importlib.util.cache_from_source(str(source)))
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(importlib.util.MAGIC_NUMBER + unchecked + marshal.dumps(code))


@confinable
def test_a_file_that_was_replaced_is_read_by_another_process(toml: Path, place: Workplace) -> None:
    (toml.parent / "mine/model.py").write_text("def predict(array, **facts): raise KeyError\n")
    assert cli.main(["models", str(toml), "--add", str(toml.parent / "mine")]) == 0
    approve(toml)
    worker = set_up(place, child_setup(config.load(toml)))
    try:
        assert not worker.step()  # the child is warm now
        place.receive(slices())
        place.close("mine", destinations=())
        file = toml.parent / "mine/model.py"
        shutil.copy(file, toml.parent / "again")
        (toml.parent / "again").replace(file)  # the same bytes in another file
        assert worker.step()
        (outcome,) = place.series()[0].outcomes
        assert outcome.state == "waiting"
        assert "model.py of the model mine was replaced" in (outcome.reason or "")
        assert worker.step()
        (outcome,) = place.series()[0].outcomes
        assert (outcome.reason or "").startswith("KeyError at ")
    finally:
        worker.close()


def test_a_pickle_with_code_does_not_load_as_weights(tmp_path: Path) -> None:
    from inference.errors import ModelRefused
    from inference.model_files import ModelFiles

    proof = tmp_path / "proof"
    torch.save({"weight": Call(Path.touch, proof)}, tmp_path / "model.pt")
    files = ModelFiles(
        path=tmp_path, digests={"model.pt": model_folder.digests(tmp_path)["model.pt"]}
    )
    with pytest.raises(ModelRefused, match="does not load as weights"):
        files.weights("model.pt")
    assert not proof.exists()


TASK = Task(model="mine", paths=(), fingerprint="f", generation=1, predecessor=None)
