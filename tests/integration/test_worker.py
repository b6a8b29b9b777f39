"""What a model does to its process costs one attempt and is said in words: real signals.

Not covered: jobs that change meanwhile (test_worker_claims.py), a GPU out of memory, a process in
uninterruptible sleep, a full disk.
"""

import io
import multiprocessing
import os
import signal
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa

from inference.engine.precision import OUT_OF_MEMORY
from service.stopping import Stop
from storage.records import SeriesState
from tests.logs import logging_to
from tests.working import outcome, wait_for, work
from tests.workplace import Workplace, slices

pytest_plugins = ["tests.maintained_fixtures"]

MIB = 1 << 20


def test_a_job_ends_done_with_its_results_and_deliveries(place: Workplace) -> None:
    place.receive(slices())
    place.close("good", destinations=("pacs",))
    work(place.worker("good"))
    done = outcome(place, "good")
    assert (done.state, done.attempts, done.reason) == ("done", 1, None)
    (report,) = done.results
    read = pydicom.dcmread(io.BytesIO(place.store.path(report.key).read_bytes()))
    assert read.SOPInstanceUID == report.sop_instance_uid
    assert [d.destination for d in done.deliveries] == ["pacs"]


def test_a_job_on_several_series_gives_the_model_each_by_its_role(place: Workplace) -> None:
    one, two = slices("one"), slices("two")
    for brighter in two:
        brighter.RescaleIntercept = float(brighter.RescaleIntercept) + 100
    place.receive([*two, *one])
    roles = {"T1": str(one[0].SeriesInstanceUID), "T2": str(two[0].SeriesInstanceUID)}
    place.close_together("joins", **roles)
    work(place.worker("joins"))
    of = {series.series_instance_uid: series.outcomes for series in place.series()}
    (done,) = of[roles["T1"]]
    said = dict(part.split() for part in str(done.reason).split(", "))
    assert (done.state, list(said)) == ("done", ["T1", "T2"])
    assert int(said["T2"]) - int(said["T1"]) == 100
    assert not of[roles["T2"]]


def test_the_child_stays_warm_between_jobs(place: Workplace) -> None:
    place.receive(slices("one"))
    place.receive(slices("two"))
    place.close("good")
    worker = place.worker("good")
    try:
        assert worker.step()
        first = worker.child_process_id
        assert worker.step()
        assert worker.child_process_id == first is not None
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("segfaults", "its process crashed (SIGSEGV)"),
        ("killed", "its process was killed (SIGKILL), probably out of memory"),
        ("leaves", "its process ended by itself (exit status 3)"),
        ("raises", "ValueError at tests/hostile_models/raises.py:17 predict"),
        ("hangs", "exceeded its deadline of 4 s"),
        ("unloadable", "FileNotFoundError at tests/hostile_models/unloadable.py:11 load"),
        ("exhausts", "ran out of memory"),
        ("compares", OUT_OF_MEMORY),
        ("answers_unasked", "said something that it was not asked for"),
    ],
)
def test_a_broken_model_costs_attempts_and_then_its_series_says_why(
    place: Workplace, model: str, words: str
) -> None:
    place.receive(slices())
    place.close(model, "good")
    worker = place.worker(model, "good", deadline_seconds=4 if model == "hangs" else 60)
    work(worker, jobs=3)
    failed = outcome(place, model)
    assert (failed.state, failed.attempts) == ("failed", 2)
    assert failed.reason == f"{words}; given up after 2 attempts"
    assert outcome(place, "good").state == "done", "another model's job is not harmed"


def test_an_answer_too_many_is_not_the_next_jobs(place: Workplace) -> None:
    """What the model says of its own job it may say; it has stolen that job's token."""
    place.receive(slices())
    place.close("answers_twice", "good")
    worker = place.worker("answers_twice", "good")
    try:
        for _ in range(3):
            worker.step()
    finally:
        worker.close()
    assert outcome(place, "answers_twice").verdict == "withheld"
    good = outcome(place, "good")
    assert (good.state, good.verdict) == ("done", "measured")
    assert good.attempts <= 2


def test_an_answer_too_many_before_the_next_job_costs_nobody_an_attempt(
    place: Workplace, tmp_path: Path
) -> None:
    place.receive(slices())
    place.close("answers_ahead", "good")
    log = tmp_path / "log.jsonl"
    with logging_to(log):
        worker = place.worker("answers_ahead", "good")
        try:
            assert worker.step()
            child = worker._child._child
            assert child is not None
            wait_for(lambda: child.speaks_unasked)
            assert worker.step()
        finally:
            worker.close()
    for model in ("answers_ahead", "good"):
        done = outcome(place, model)
        assert (done.state, done.verdict, done.attempts) == ("done", "measured", 1)
    assert "said something that it was not asked for" in log.read_text()


def test_out_of_memory_below_the_limit_of_the_child(place: Workplace) -> None:
    place.receive(slices())
    place.close("devours", "good")
    work(place.worker("devours", "good", attempts=1, memory_bytes=1500 * MIB), jobs=2)
    assert outcome(place, "devours").reason == "ran out of memory"
    assert outcome(place, "good").state == "done"


def test_a_model_that_takes_the_child_down_while_loading_fails_alone(place: Workplace) -> None:
    place.receive(slices())
    place.close("explodes", "good")
    work(place.worker("explodes", "good", attempts=1), jobs=2)
    assert outcome(place, "explodes").reason == "its process crashed (SIGABRT)"
    assert outcome(place, "good").state == "done"


def test_a_refused_series_is_done_with_its_reason_and_a_report(place: Workplace) -> None:
    datasets = slices()
    del datasets[3]
    place.receive(datasets)
    place.close("good")
    work(place.worker("good"))
    refused = outcome(place, "good")
    assert (refused.state, refused.attempts) == ("not_analysed", 1)
    assert refused.reason is not None
    assert "mm" in refused.reason
    assert [result.kind for result in refused.results] == ["measurement_report"]


def test_bytes_that_are_no_dicom_put_the_series_into_quarantine(place: Workplace) -> None:
    *good, bad = slices()
    place.receive(good)
    place.receive_garbage(bad)
    place.close("good")
    work(place.worker("good"))
    (series,) = place.series()
    assert series.state is SeriesState.QUARANTINED
    assert series.reason is not None
    assert "InvalidDicomError" in series.reason
    assert outcome(place, "good").reason == series.reason


def test_no_patient_identifier_is_in_the_log_of_a_whole_job(
    place: Workplace, tmp_path: Path
) -> None:
    file = tmp_path / "node.log"
    datasets = slices(patient_name="Zwiebelmann", patient_id="QX-7781")
    for dataset in datasets:
        dataset.PatientBirthDate = "19371104"
        dataset.AccessionNumber = "ACC-99812"
        dataset.OtherPatientIDs = "OLD-4711"
    place.receive(datasets)
    place.close("good", "raises", "hangs")
    with logging_to(file, role="infer"):
        worker = place.worker(
            "good", "raises", "hangs", deadline_seconds=2, attempts=1, log_file=file
        )
        work(worker, jobs=3)
    text = file.read_text()
    assert text.count('"event": "job"') == 3
    for identifier in ("Zwiebelmann", "QX-7781", "19371104", "ACC-99812", "OLD-4711", "Ottilie"):
        assert identifier not in text


def _run_worker(folder: Path) -> None:
    place = Workplace(folder, stop=Stop())
    place.worker("hangs").run(ready=lambda: None)


def test_the_child_ends_when_its_worker_is_killed(place: Workplace, tmp_path: Path) -> None:
    place.receive(slices())
    place.close("hangs")
    process = multiprocessing.get_context("spawn").Process(target=_run_worker, args=(tmp_path,))
    process.start()
    try:
        (child,) = wait_for(lambda: place.catalog.overview().running and _children(process.pid))
        os.kill(process.pid or 0, signal.SIGKILL)
        wait_for(lambda: not _alive(child))
    finally:
        process.kill()
        process.join()


def _children(parent: int | None) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = stat.with_name("cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == parent and "spawn_main" in command:
            found.append(int(stat.parent.name))
    return found


def _alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_an_object_of_another_patient_is_no_result(place: Workplace) -> None:
    """What the child says is compared with what came, not believed."""
    place.receive(slices(patient_id="ONE"))
    place.close("good", destinations=("pacs",))
    with place.database.transaction() as connection:
        connection.execute(
            sa.text("UPDATE instances SET header = :header"),
            {"header": '{"Modality": ["CT"], "PatientID": ["TWO"]}'},
        )
    work(place.worker("good"))
    failed = outcome(place, "good")
    assert failed.state == "failed"
    assert failed.reason == "the measurement_report has another PatientID than its source"
    assert not failed.results
