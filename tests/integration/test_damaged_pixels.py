"""A decoder that ends its process on damaged pixels costs a stated reason, and never the node.

Found by flipping bits of real compressed files: GDCM aborts on some in JPEG-LS, JPEG 2000 and
12-bit JPEG. Not covered: a decoder that is wrong without saying so.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
from pydicom.uid import JPEGLSLossless

from service.decoding_notes import LENGTH, NAME, SLOTS, DecodingNotes
from tests.damaged import compressed, damage
from tests.workplace import Workplace


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    made = Workplace(tmp_path)
    yield made
    made.database.close()


def test_the_instance_that_ended_the_process_is_named_and_attempts_are_bounded(
    place: Workplace,
) -> None:
    series = compressed()
    damage(series[3])
    place.receive(series)
    place.close("good")
    worker = place.worker("good", attempts=2)
    try:
        assert worker.step()
        assert worker.step()
        assert not worker.step()
    finally:
        worker.close()
    (outcome,) = place.series()[0].outcomes
    assert (outcome.state, outcome.attempts) == ("failed", 2)
    assert outcome.reason == (
        f"its process crashed (SIGABRT) while it decoded instance {series[3].SOPInstanceUID} "
        f"(JPEG-LS Lossless Image Compression, {JPEGLSLossless}); given up after 2 attempts"
    )


def test_undamaged_the_same_series_is_analysed(place: Workplace) -> None:
    place.receive(compressed())
    place.close("good")
    worker = place.worker("good")
    try:
        assert worker.step()
    finally:
        worker.close()
    assert place.series()[0].outcomes[0].state == "done"


def begin_and_end(notes: DecodingNotes) -> None:
    """In another process: one is decoded, one is being decoded when it ends."""
    begin = notes.writer()
    done = begin("1.2.3", JPEGLSLossless)
    begin("1.2.4", JPEGLSLossless)
    done()
    os._exit(3)


def test_only_what_is_being_decoded_is_noted(tmp_path: Path) -> None:
    context = get_context("spawn")
    notes = DecodingNotes(tmp_path)
    assert notes.words() == ""
    process = context.Process(target=begin_and_end, args=(notes,))
    process.start()
    process.join()
    assert process.exitcode == 3
    expected = (
        f" while it decoded instance 1.2.4 (JPEG-LS Lossless Image Compression, {JPEGLSLossless})"
    )
    assert notes.words() == expected


def test_what_is_no_identifier_is_not_repeated(tmp_path: Path) -> None:
    notes = DecodingNotes(tmp_path)
    begin = notes.writer()
    ends = [begin("Doe^John\n", "1.2"), begin("1.2", "x" * LENGTH), begin("", "")]
    assert notes.words() == ""
    for end in ends:
        end()
    more = [begin(f"1.{n}", "1.2") for n in range(SLOTS + 1)]
    assert notes.words().count("instance") == SLOTS
    for end in more:
        end()
    assert notes.words() == ""


def shorten_everything(notes: DecodingNotes) -> None:
    """In another process: whatever it was given that can be made shorter is empty afterwards."""
    notes.writer()("1.2.3", JPEGLSLossless)
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            os.ftruncate(int(one.name), 0)
    os._exit(0)


def test_a_process_that_shortens_what_it_shares_does_not_end_its_reader(tmp_path: Path) -> None:
    """A model's process did so to the memory that it shared with the worker, which died."""
    context = get_context("spawn")
    reader = context.Process(target=read_after, args=(tmp_path,))
    reader.start()
    reader.join()
    assert reader.exitcode == 0


def read_after(folder: Path) -> None:
    """In a process that may die of it: start the other one, read what it noted."""
    context = get_context("spawn")
    notes = DecodingNotes(folder)
    process = context.Process(target=shorten_everything, args=(notes,))
    process.start()
    process.join()
    os._exit(1 if notes.words() else 0)


@pytest.mark.parametrize("what", ["folder", "pipe", "link", "more"])
def test_notes_that_became_something_else_are_none(tmp_path: Path, what: str) -> None:
    notes = DecodingNotes(tmp_path / "own")
    file = tmp_path / "own" / NAME
    (tmp_path / "own").mkdir()
    match what:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "link":
            DecodingNotes(tmp_path).writer()("1.2.3", JPEGLSLossless)
            file.symlink_to(tmp_path / NAME)
        case _:
            with file.open("wb") as opened:
                opened.truncate(1 << 40)
    assert notes.words() == ""
