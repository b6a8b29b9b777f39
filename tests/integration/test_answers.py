"""What a model's process answers is read as data: asked for, declared, of a size, and never code.

Not covered: a process that says it (test_worker.py).
"""

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from service import answers, processes
from service.answers import NoAnswerError
from service.tasks import (
    Analysed,
    Answer,
    Computed,
    Durations,
    Failed,
    FeatureVector,
    Ready,
    ResultObject,
    Unreadable,
)
from tests.hostile_bundles.pickled import Call

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


def test_an_answer_is_never_code(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    good = Analysed(verdict="measured", reason=None, objects=(), vectors=(), durations=Durations())
    touches = Call(Path.touch, proof)
    for hostile in (touches, replace(good, reason=touches)):  # type: ignore[arg-type]
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
