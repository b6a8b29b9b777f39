"""What a confined process cannot do, tried for real: no effect happens, and what models need works.

Not covered: a GPU's devices, aarch64, kernels without Landlock or seccomp, a flaw of the kernel,
what a model says in its results.
"""

import multiprocessing
import os
import pickle
import platform
import socket
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from service import answers, model_folder, processes, sandbox
from service.answers import NoAnswerError
from service.child import Child, ChildEnded
from service.sandbox import Bounds
from service.scratch import Scratch
from service.tasks import (
    Analysed,
    Answer,
    Computed,
    Durations,
    Failed,
    FeatureVector,
    Ready,
    ResultObject,
    Setup,
    Unreadable,
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
    ("given", "kept"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_threads_of_a_child_sleep_while_they_wait_unless_told_otherwise(
    given: dict[str, str], kept: str, tmp_path: Path
) -> None:
    assert sandbox.environment(given, tmp_path)["OMP_WAIT_POLICY"] == kept


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


TOKEN = answers.new_token()


def read(message: bytes) -> Answer | Ready:
    """As the answer to what was asked."""
    return answers.read(TOKEN + message, TOKEN)


def test_an_answer_begins_with_the_token_of_the_question() -> None:
    said = Failed(reason="no")
    assert answers.read(bytes(answers.written(said, TOKEN)), TOKEN) == said
    for other in (answers.new_token(), TOKEN[:-1], b""):
        with pytest.raises(answers.UnaskedError):
            answers.read(bytes(answers.written(said, other)), TOKEN)


class Explodes:
    """Calls something when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, (f"touch {self._proof}",)


def test_an_answer_is_never_code(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    good = Analysed(verdict="measured", reason=None, objects=(), vectors=(), durations=Durations())
    for hostile in (Explodes(proof), replace(good, reason=Explodes(proof))):  # type: ignore[arg-type]
        with pytest.raises(NoAnswerError):
            read(pickle.dumps(hostile))
    assert not proof.exists()


def test_an_answer_has_the_types_that_it_declares() -> None:
    made = ResultObject(
        kind="segmentation", sop_class_uid="1", sop_instance_uid="1.2", series_instance_uid="1.3",
        data=b"",
    )  # fmt: skip
    good = Analysed(
        verdict="measured", reason=None, objects=(made,), vectors=(), durations=Durations(read=1.0)
    )
    for message in (good, Failed(reason="no"), Ready(unavailable={"a": "b"})):
        assert read(pickle.dumps(message)) == message
    for bad in (
        replace(good, objects=("x",)),  # type: ignore[arg-type]
        replace(good, verdict=3),  # type: ignore[arg-type]
        replace(good, objects=(replace(made, data="x"),)),  # type: ignore[arg-type]
        Durations(),
        "words",
    ):
        with pytest.raises(NoAnswerError):
            read(pickle.dumps(bad))


MADE = ResultObject(
    kind="segmentation", sop_class_uid="1", sop_instance_uid="1.2", series_instance_uid="1.3",
    data=b"",
)  # fmt: skip
VECTOR = FeatureVector(kind="embedding", version="1", dimensions=2, data=bytes(8))
GOOD = Analysed(
    verdict="measured", reason=None, objects=(MADE,), vectors=(VECTOR,), durations=Durations()
)


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, verdict="believe me"),
        replace(GOOD, durations=Durations(read=float("nan"))),
        replace(GOOD, durations=Durations(model=-1.0)),
        replace(GOOD, durations=Durations(encode=float("inf"))),
        replace(GOOD, durations=Durations(read=10**400)),
        replace(GOOD, computed=Computed(peak_bytes=10**400)),
        replace(GOOD, computed=Computed(device="\x1b[2J")),
        replace(GOOD, objects=(replace(MADE, sop_instance_uid="../../etc/passwd"),)),
        replace(GOOD, objects=(replace(MADE, series_instance_uid="1" * 65),)),
        replace(GOOD, objects=(replace(MADE, kind="a\nb"),)),
        replace(GOOD, objects=(MADE,) * 10_001),
        replace(GOOD, vectors=(replace(VECTOR, dimensions=3),)),
        replace(GOOD, vectors=(replace(VECTOR, kind="x" * 65),)),
        Ready(unavailable={str(at): "" for at in range(10_001)}),
    ],
)
def test_an_answer_that_cannot_be_recorded_is_none(bad: Analysed) -> None:
    assert read(pickle.dumps(GOOD)) == GOOD
    with pytest.raises(NoAnswerError):
        read(pickle.dumps(bad))


NESTED = b"\x80\x04}" + b")" + b"\x85" * 900_000 + b"K\x01s."
"""A table whose key is a tuple in a tuple in a tuple."""
DOUBLED = b"\x80\x04})\x94" + b"".join(b"h%c\x86\x94" % at for at in range(60)) + b"K\x01s."
"""A table whose key has the one before twice, sixty times."""


def doubled_messages() -> bytes:
    """The same of messages instead of tuples."""
    made: Failed = Failed(reason="")
    for _ in range(60):
        made = Failed(reason=made, exhausted=made)  # type: ignore[arg-type]
    return b"\x80\x04}" + pickle.dumps(made, protocol=4)[2:-1] + b"K\x01s."


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "message",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",
        b"\x80\x04(" + b"]" * 60_000_000 + b"l.",
        NESTED,
        DOUBLED,
        doubled_messages(),
    ],
    ids=["memo", "lists", "nested", "doubled", "doubled messages"],
)
def test_an_answer_takes_neither_memory_nor_the_interpreter(message: bytes) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=read_with_little_memory, args=(message,)
    )
    process.start()
    process.join()
    assert process.exitcode == 0


def read_with_little_memory(message: bytes) -> None:
    """In a process that may die of it."""
    processes.limit_memory(2 << 30)
    with pytest.raises(NoAnswerError):
        read(message)


def test_an_answer_may_have_all_the_parts_that_it_may_have() -> None:
    objects = tuple(replace(MADE, sop_instance_uid=f"1.{at}") for at in range(10_000))
    vectors = tuple(replace(VECTOR, kind=f"kind {at}") for at in range(10_000))
    most = replace(GOOD, objects=objects, vectors=vectors)
    assert read(pickle.dumps(most)) == most
    for protocol in (4, 5):
        assert read(pickle.dumps(GOOD, protocol=protocol)) == GOOD


def test_the_words_of_an_answer_fit_on_a_line() -> None:
    hostile = "\x1b]0;pwned\x07\r\n\x00" + "x" * (1 << 20)
    for message in (
        Failed(reason=hostile),
        Unreadable(reason=hostile),
        replace(GOOD, reason=hostile),
        Ready(unavailable={"mine": hostile}),
    ):
        found = read(pickle.dumps(message))
        words = found.unavailable["mine"] if isinstance(found, Ready) else found.reason
        assert words is not None
        assert words.isprintable()
        assert len(words) == answers.LONGEST


SETUP = Setup(
    models=(),
    node_name="HOUNSFIELD",
    device_serial="0",
    software_version="0",
    not_for_diagnosis=True,
    report_not_analysed=True,
)
