"""What a confined process cannot do, tried for real: no effect happens, and what models need works.

Not covered: a GPU's devices, aarch64, kernels without Landlock or seccomp, a flaw of the kernel,
what a confined process says (test_answers.py), what a model says in its results.
"""

import multiprocessing
import os
import platform
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from service import model_folder, sandbox
from service.child import Child, ChildEnded
from service.sandbox import Bounds
from service.scratch import Scratch
from service.tasks import (
    Ready,
    Setup,
)
from tests.hostile_bundles import attempts
from tests.hostile_bundles.attempts import ATTEMPTS, NEEDED, Aims

pytestmark = pytest.mark.skipif(
    sandbox.lacking() is not None or platform.machine() != "x86_64",
    reason=f"this machine cannot confine: {sandbox.lacking()}",
)
SUCCEEDED = "succeeded"


def confined(pipe: Connection, aims: Aims) -> None:
    """In a process of its own."""
    bounds = Bounds(readable=(aims.readable.parent,), writable=aims.scratch, package="tests.x")
    assert sandbox.confine(bounds) is None
    pipe.send(attempts.what_works(aims))


@pytest.fixture
def aims(tmp_path: Path) -> Iterator[Aims]:
    for name in ("outside", "instances", "scratch", "storage"):
        (tmp_path / name).mkdir()
    (tmp_path / "storage/catalogue.sqlite").write_text("secret")
    (tmp_path / "instances/one.dcm").write_text("pixels")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        yield Aims(
            folder=tmp_path / "outside",
            secret=tmp_path / "storage/catalogue.sqlite",
            readable=tmp_path / "instances/one.dcm",
            scratch=tmp_path / "scratch",
            port=listener.getsockname()[1],
            parent=os.getpid(),
        )
        with pytest.raises(TimeoutError):
            listener.accept()  # nobody came


def test_nothing_that_was_given_up_works_and_everything_needed_does(
    aims: Aims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://node:swordfish@db/catalogue")
    monkeypatch.setenv("PGPASSWORD", "swordfish")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=confined, args=(theirs, aims))
    with monkeypatch.context() as started:
        for name in set(os.environ) - set(sandbox.environment(os.environ, aims.scratch)):
            started.delenv(name)
        process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    assert {name: found[name] for name in NEEDED} == dict.fromkeys(NEEDED, SUCCEEDED)
    assert [name for name in ATTEMPTS if found[name] == SUCCEEDED] == []
    assert process.exitcode == 0
    assert list(aims.folder.iterdir()) == []
    assert aims.readable.read_text() == "pixels"
    assert aims.readable.stat().st_mode & 0o400


def test_the_attempts_work_where_nothing_keeps_them(aims: Aims) -> None:
    """Or the test above would prove nothing: those that harm nobody, without a sandbox."""
    for name in ("write", "read_secret", "list_folder", "unix_socket", "netlink", "run_program",
                 "read_environment_of_parent", "limit_parent", "link_secret", "large_file",
                 "change_mode", "signal_parent_through_a_pipe",
                 "hold_an_instance_by_a_lease"):  # fmt: skip
        ATTEMPTS[name](aims)


def test_the_environment_of_a_child_has_no_credentials(tmp_path: Path) -> None:
    kept = sandbox.environment(
        {
            "PATH": "/bin", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2",
            "PGPASSWORD": "x", "AWS_SECRET_ACCESS_KEY": "x", "DATABASE_URL": "x", "HF_TOKEN": "x",
            "TMPDIR": "/elsewhere",
        },
        tmp_path,
    )  # fmt: skip
    assert kept.keys() & {"PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"} == {
        "PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    }  # fmt: skip
    assert not kept.keys() & {"PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "HF_TOKEN"}
    assert kept["TMPDIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [("OMP_WAIT_POLICY", "PASSIVE", "ACTIVE"), ("MALLOC_MMAP_MAX_", "0", "65536")],
)
def test_how_threads_wait_and_memory_is_kept_unless_told_otherwise(
    name: str, ours: str, theirs: str, tmp_path: Path
) -> None:
    assert sandbox.environment({}, tmp_path)[name] == ours
    assert sandbox.environment({name: theirs}, tmp_path)[name] == theirs
    assert sandbox.environment({name: theirs}, tmp_path, limited=True)[name] == theirs


def test_a_limit_counts_no_memory_that_is_kept_for_later(tmp_path: Path) -> None:
    assert not sandbox.KEEPING.keys() & sandbox.environment({}, tmp_path, limited=True).keys()


SWAPS = ("nothing", "file", "folder", "above", "pipe")


def swapped(model: Path, secret: Path, swap: str) -> None:
    """What somebody does between the look at a model's files and the rules for them."""
    inside = model / "models"
    match swap:
        case "file":
            (inside / "model.pt").unlink()
            (inside / "model.pt").symlink_to(secret)
        case "folder":
            (inside / "model.pt").unlink()
            (inside / "model.pt").symlink_to(secret.parent)
        case "above":
            inside.rename(model / "away")
            inside.symlink_to(secret.parent)
        case "pipe":
            (inside / "model.pt").unlink()
            os.mkfifo(inside / "model.pt")


def reads_after_a_swap(pipe: Connection, model: Path, secret: Path, swap: str) -> None:
    """In a process of its own."""
    files = tuple(model_folder.pinned(model, {"models/model.pt": ""}))
    swapped(model, secret, swap)
    assert sandbox.confine(Bounds(readable=(), files=files, writable=model.parent / "w")) is None
    found = {}
    for path in (model / "models/model.pt", secret):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:
            found[path.name] = "refused"
        else:
            found[path.name] = os.read(descriptor, 10).decode()
    pipe.send(found)


@pytest.mark.parametrize("swap", SWAPS)
def test_a_link_that_comes_after_the_look_at_a_models_files_opens_nothing(
    tmp_path: Path, swap: str
) -> None:
    model, secret = tmp_path / "model", tmp_path / "storage/model.pt.of.another"
    for folder in (model / "models", secret.parent, tmp_path / "w"):
        folder.mkdir(parents=True)
    (model / "models/model.pt").write_text("weights")
    secret.write_text("secret")
    (secret.parent / "model.pt").write_text("secret")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=reads_after_a_swap, args=(theirs, model, secret, swap))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    assert found == {
        "model.pt": "weights" if swap == "nothing" else "refused",
        secret.name: "refused",
    }


def test_a_real_child_starts_confined_and_its_folder_is_gone_afterwards() -> None:
    child = Child(SETUP)
    folder = child._scratch.path
    try:
        while (said := child.answer(seconds=0.5)) is None:
            assert folder.is_dir()
        status = Path(f"/proc/{child.process_id}/status").read_text()
        environment = Path(f"/proc/{child.process_id}/environ").read_bytes()
        limits = Path(f"/proc/{child.process_id}/limits").read_text()
    finally:
        child.kill()
    assert said == Ready(unavailable={})
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000004" in status or "CapEff:\t0000000000000000" in status
    assert b"PYTEST_CURRENT_TEST" not in environment
    assert most(limits, "core file size") == 0  # which would hold pixels
    assert most(limits, "processes") <= sandbox.MOST_THREADS
    assert most(limits, "file size") <= sandbox.LARGEST_FILE
    assert not folder.exists()


def most(limits: str, what: str) -> float:
    """The hard limit in a process's /proc/PID/limits."""
    (line,) = (line for line in limits.splitlines() if line.startswith(f"Max {what} "))
    _, hard, *_ = line.removeprefix(f"Max {what} ").split()
    return float(hard.replace("unlimited", "inf"))


def test_a_child_that_fills_its_folder_is_ended() -> None:
    child = Child(SETUP)
    child._scratch._most_files = 3
    try:
        for number in range(5):
            (child._scratch.path / str(number)).touch()
        with pytest.raises(ChildEnded, match="more than 3 temporary files"):
            child.answer(seconds=0)
    finally:
        child.kill()


def test_a_folder_says_when_it_holds_too_much() -> None:
    scratch = Scratch(most_bytes=1 << 20)
    try:
        assert scratch.overflown() is None
        (scratch.path / "large").write_bytes(b"1" * (3 << 20))
        assert scratch.overflown() == "wrote more than 1 MiB of temporary files"
    finally:
        scratch.remove()


def test_folders_inside_one_another_are_noticed_and_removed() -> None:
    scratch = Scratch()
    here = os.open(scratch.path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    assert scratch.overflown() == "wrote more than 64 temporary folders inside one another"
    scratch.remove()
    assert not scratch.path.exists()


SETUP = Setup(
    models=(),
    node_name="HOUNSFIELD",
    device_serial="0",
    software_version="0",
    not_for_diagnosis=True,
    report_not_analysed=True,
)
