"""The commands that need no running node: their output, their exit status, their one line of error.

Not covered: run and status (the acceptance tests), similar, demo.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from inference import phantom
from inference.phantom import Scan
from service.cli import main, parser
from tests.node import HOUNSFIELD
from tests.peers import debian_program, process, unused_port

CONFIGURATION = """
[[destinations]]
name = "out"
kind = "folder"
path = "out"
[[models]]
name = "lung"
kind = "lung_ct"
[[routes]]
name = "chest CT"
match = { Modality = "CT" }
models = ["lung"]
destinations = ["out"]
select = "best"
[[routes]]
name = "thin MR"
match = { Modality = "MR", SliceThickness = { max = 3 } }
models = ["lung"]
"""
SMALL = phantom.Phantom(
    hu=phantom.thorax((24, 8, 8), (10.0, 48.0, 48.0), vessels=0).hu,
    grid=phantom.regular((24, 8, 8), (10.0, 48.0, 48.0)),
    seed=7,
)


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A configuration with a route for chest CT."""
    file = tmp_path / "node.toml"
    file.write_text(CONFIGURATION)
    return file


def write(folder: Path, scan: Scan, *, slices: int = 24, **changed: str) -> str:
    """A series of the small phantom as files; its UID."""
    folder.mkdir(parents=True, exist_ok=True)
    series = phantom.datasets(SMALL, scan)[:slices]
    for number, dataset in enumerate(series):
        for keyword, value in changed.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / f"{scan.series} {number}.dcm", enforce_file_format=True)
    return str(series[0].SeriesInstanceUID)


def explained(
    capsys: pytest.CaptureFixture[str], configuration: Path, *paths: Path
) -> dict[str, dict[str, Any]]:
    """Series UID -> what `explain --json` says of it."""
    assert main(["explain", str(configuration), *map(str, paths), "--json"]) == 0
    series: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return {each["series_instance_uid"]: each for each in series}


# explain


def test_explain_chooses_the_right_series_of_a_chest_ct(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    thin = write(study, Scan(series="2", thickness_mm=1.0, kernel="B31f"), SeriesNumber="2")
    sharp = write(study, Scan(series="3", thickness_mm=1.0, kernel="B70f"), SeriesNumber="3")
    thick = write(study, Scan(series="4", thickness_mm=5.0, kernel="B31f"), SeriesNumber="4")
    scout = write(
        study, Scan(series="1", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), slices=2
    )
    said = explained(capsys, configuration, study)
    assert {uid: each["decisions"][0]["models"] for uid, each in said.items()} == {
        thin: ["lung"],
        sharp: [],
        thick: [],
        scout: [],
    }
    (chosen, other) = said[thin]["decisions"]
    assert chosen == {
        "route": "chest CT",
        "matches": True,
        "reason": "chosen: soft kernel B31f against sharp kernel B70f in series 3; "
        "1.0 mm slices against 5.0 mm slices in series 4; 1 set aside",
        "models": ["lung"],
        "destinations": ["out"],
    }
    assert other["reason"].startswith("Modality is CT, the route wants MR")
    assert said[scout]["decisions"][0]["reason"] == "set aside: a localizer"
    assert (said[thin]["modality"], said[thin]["instances"]) == ("CT", 24)


def test_explain_in_words(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "study", Scan(kernel="B31f"))
    (tmp_path / "study" / "notes.txt").write_text("not a DICOM file")
    assert main(["explain", str(configuration), str(tmp_path / "study")]) == 0
    shown = capsys.readouterr()
    assert "A series is complete 30 s after its last instance" in shown.out
    assert re.search(r"\n\nstudy 2\.25\.\d+\n\nseries 1 ", shown.out)
    assert "CT, 24 instances" in shown.out
    assert "route 'chest CT': yes, chosen: the only series that can be used" in shown.out
    assert "runs lung; results go to out" in shown.out
    assert shown.err == f"hounsfield: {tmp_path}/study/notes.txt: skipped: not a DICOM file\n"


def test_explain_counts_an_instance_once(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = write(tmp_path / "one", Scan())
    write(tmp_path / "copy", Scan())
    said = explained(capsys, configuration, tmp_path / "one", tmp_path / "copy", tmp_path / "one")
    assert said[uid]["instances"] == 24


def test_explain_never_takes_our_own_results(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = write(tmp_path / "one", Scan(), Manufacturer="Hounsfield")
    said = explained(capsys, configuration, tmp_path)
    assert {each["reason"] for each in said[uid]["decisions"]} == {
        "one of our own results, come back: never an input"
    }


def test_explain_on_real_studies(
    configuration: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = explained(capsys, configuration, data / "siemens-fruit-studies")
    reasons = {uid: [each["reason"] for each in s["decisions"]] for uid, s in said.items()}
    assert len(said) == 9
    assert all(len(each) == 2 and all(each) for each in reasons.values())
    assert sum(reason[0] == "set aside: a localizer" for reason in reasons.values()) == 1
    thin_mr = [uid for uid, each in said.items() if each["decisions"][1]["matches"]]
    assert {said[uid]["modality"] for uid in thin_mr} == {"MR"}


def test_explain_survives_every_odd_file(
    configuration: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = explained(capsys, configuration, data / "odd-and-broken", data / "transfer-syntaxes")
    assert all(each["decisions"] for each in said.values())


# check


def test_check_prints_what_is_in_force(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(configuration)]) == 0
    shown = capsys.readouterr().out
    assert f'path = "{configuration.parent}/out"' in shown
    assert 'prefer = ["original", "thin_slices", "soft_kernel", "most_instances"]' in shown


def test_check_asks_the_destinations(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, nobody = unused_port(), unused_port()
    storescp = debian_program("storescp", "dcmtk")
    dicom = '[[destinations]]\nname = "{}"\nkind = "dicom"\nae_title = "P"\nhost = "127.0.0.1"\n'
    configuration.write_text(
        CONFIGURATION + dicom.format("pacs") + f"port = {port}\nconnection_seconds = 5\n"
    )
    command: list[str | Path] = [storescp, "-od", tmp_path, str(port)]
    with process(command, log=tmp_path / "log", port=port):
        assert main(["check", str(configuration), "--echo"]) == 0
    assert "# pacs (dicom) answers" in capsys.readouterr().out
    with configuration.open("a") as file:
        file.write(dicom.format("absent") + f"port = {nobody}\n")
    assert main(["check", str(configuration), "--echo"]) == 1
    shown = capsys.readouterr()
    assert "# out (folder) answers" in shown.out
    assert "destination 'absent': " in shown.err


# models, phantom, requeue


def test_models_says_what_each_wants_and_writes(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", str(configuration), "--json"]) == 0
    (lung,) = json.loads(capsys.readouterr().out)
    assert (lung["name"], lung["kind"]) == ("lung", "lung_ct")
    assert len(lung["digest"]) == 64
    assert lung["wants"]["modalities"] == ["CT"]
    assert lung["writes"] == ["measurement_report", "segmentation"]
    assert main(["models", str(configuration)]) == 0
    assert "wants     modalities CT" in capsys.readouterr().out


def test_phantom_is_a_series_that_the_route_takes(
    configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "phantom"
    assert main(["phantom", str(folder)]) == 0
    assert "100 instances" in capsys.readouterr().out
    assert dcmread(folder / "0001.dcm").Modality == "CT"
    (said,) = explained(capsys, configuration, folder).values()
    assert said["decisions"][0]["models"] == ["lung"]
    assert main(["phantom", str(folder)]) == 2
    assert "is not empty; allowed: a new or empty folder" in capsys.readouterr().err


def test_requeue_without_any_analysis(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["requeue", str(configuration), "--failed", "--model", "liver"]) == 2
    assert "'liver' is not a model; allowed: lung" in capsys.readouterr().err


# Errors


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        ([], 2, "hounsfield: the following arguments are required: COMMAND; allowed: see "),
        (["dance"], 2, "hounsfield: argument COMMAND: invalid choice: 'dance'"),
        (["check"], 2, "hounsfield check: the following arguments are required: CONFIG"),
        (["check", "absent.toml"], 2, "hounsfield: absent.toml: cannot be read: No such file"),
        (["check", "{config}", "--ech"], 2, "hounsfield: unrecognized arguments: --ech"),
        (["models", "{config}", "--run", "x"], 2, "hounsfield: unrecognized arguments: --run x"),
        (["run", "{config}", "--role", "infer,cook"], 2, "hounsfield: --role: 'cook' is unknown"),
        (["explain", "{config}", "absent"], 2, "hounsfield: absent: does not exist; allowed"),
        (["explain", "{config}", "{config}"], 1, "hounsfield: {config}: skipped"),
        (["requeue", "{config}"], 2, "hounsfield requeue: one of the arguments --study --failed"),
        (["similar", "{config}", "-k", "x", "--study", "1"], 2, "hounsfield similar: argument -k"),
    ],
)
def test_errors_are_a_line_and_a_status(
    words: list[str], status: int, line: str, configuration: Path
) -> None:
    asked = [word.format(config=configuration) for word in words]
    done = subprocess.run(
        [HOUNSFIELD, *asked], capture_output=True, text=True, cwd=configuration.parent
    )
    assert (done.returncode, done.stdout) == (status, "")
    first, *more = done.stderr.splitlines()
    assert first.startswith(line.format(config=configuration))
    assert len(more) == (1 if "skipped" in first else 0)


def test_the_reader_may_leave_early(configuration: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [HOUNSFIELD, "check", configuration], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "check", "status", "explain", "similar", "requeue", "models"):
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([command, "--help"])
        assert ended.value.code == 0
        assert "CONFIG" in capsys.readouterr().out
