"""Where the time goes from a scanner's first byte to the last result stored at the PACS.

Run: python -P benchmarks/end_to_end.py [--rounds 3] [--slices 300] [--sender dcmsend]
     [--folder DIR]

A real node (`hounsfield run`, SQLite) receives a phantom of 512 x 512 x 300 (157 MB) from DCMTK,
runs lung_ct and delivers to DCMTK's storescp. Every round is another study; the medians are
printed. Aim: beyond the quiet period and the model's own computation under 3 s on 2 cores.

What the peer needs for the same, beyond its model, is derived from the figures that MONAI Deploy
publishes: about 90 s. They were measured on another machine, so the ratio says the order only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from service.ports import free_ports

AIM_SECONDS = 3.0
PEER_SECONDS = 90.0
QUIET_SECONDS = 2.0
SENDERS: Mapping[str, Sequence[str]] = {
    "dcmsend": ("/usr/bin/dcmsend", "--no-uid-checks", "--scan-directories", "-aec", "HOUNSFIELD"),
    "storescu": ("/usr/bin/storescu", "--scan-directories", "-aec", "HOUNSFIELD"),
}
STORESCP = "/usr/bin/storescp"
RESULTS = 2  # objects a study: segmentation and report
START_SECONDS, RESULT_SECONDS, LOOK_SECONDS = 120.0, 300.0, 0.05

CONFIGURATION = """\
[application_entity]
ae_title = "HOUNSFIELD"
host = "127.0.0.1"
port = {port}

[storage]
directory = "{folder}/node"
minimum_free_gib = 0

[web]
host = "127.0.0.1"
port = {web_port}

[completion]
kind = "quiet_period"
seconds = {quiet}
study_seconds = {quiet}

[[destinations]]
name = "pacs"
kind = "dicom"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
results = ["segmentation", "measurement_report"]

[[models]]
name = "model"
kind = "lung_ct"

[[routes]]
name = "chest CT"
match = {{ Modality = "CT" }}
models = ["model"]
destinations = ["pacs"]
"""

Event = Mapping[str, Any]

PHANTOM = """\
import sys
from pathlib import Path
from inference import phantom
slices, rounds, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
thorax = phantom.thorax((slices, 512, 512), (300 / slices, 0.76, 0.76), seed=7, noise_hu=40.0)
for number in range(rounds):
    name = f"round {number}"
    series = phantom.datasets(thorax, phantom.Scan(study=name, series=name))
    (folder / str(number)).mkdir()
    for place, dataset in enumerate(series):
        dataset.save_as(folder / str(number) / f"{place:04}.dcm", enforce_file_format=True)
"""
"""In a process of its own: the benchmark itself loads no science."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One node, its PACS and its log."""

    folder: Path
    port: int
    web_port: int
    pacs_port: int

    @property
    def log(self) -> Path:
        """What the node wrote."""
        return self.folder / "node.log"

    @property
    def pacs(self) -> Path:
        """Where the PACS keeps objects."""
        return self.folder / "pacs"

    def events(self) -> list[Event]:
        """The lines of the log so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@contextmanager
def process(command: Sequence[str], *, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process for as long as the context lasts, two threads at most for its mathematics."""
    with log.open("wb") as out:
        running = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | {"OMP_NUM_THREADS": "2"}
        )
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def until(check: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """The first true answer of `check`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := check():
            return answer
        time.sleep(LOOK_SECONDS)
    raise SystemExit(f"not within {seconds:.0f} s: {what}")


def arrived(setting: Setting) -> list[Path]:
    """The objects at the PACS."""
    return sorted(setting.pacs.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def measure(
    setting: Setting, images: Path, sender: Sequence[str], earlier: int
) -> dict[str, float]:
    """Send one study; seconds of each step until the last of its results is a file of the PACS."""
    before = len(setting.events())
    subprocess.run(
        [*sender, "127.0.0.1", str(setting.port), str(images)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wanted = (earlier + 1) * RESULTS

    def delivered() -> list[Event] | None:
        found = setting.events()[before:]
        count = sum(event["event"] == "delivery" for event in found)
        return found if count >= RESULTS else None

    events = until(delivered, seconds=RESULT_SECONDS, what=f"{wanted} results at the PACS")
    return steps(events, stored=arrived(setting)[wanted - 1].stat().st_mtime)


def steps(events: Sequence[Event], *, stored: float) -> dict[str, float]:
    """Step -> seconds, from the canonical lines of one study and the time of its last result."""
    association, complete, job = (
        next(event for event in events if event["event"] == name)
        for name in ("association", "series.complete", "job")
    )
    if (association["refused"], job["outcome"]) != (0, "done"):
        raise SystemExit(f"not analysed: {job['outcome']} {job['reason']}")
    sent, routed, done = moment(association), moment(complete), moment(job)
    inside = {
        "read": job["read_seconds"],
        "model": job["model_seconds"],
        "encode": job["encode_seconds"],
        "features": job["describe_seconds"],
    }
    return {
        "receive": association["seconds"],
        "quiet period": QUIET_SECONDS,
        "route": routed - sent - QUIET_SECONDS,
        "claim": done - job["seconds"] - routed,
        **inside,
        "complete": job["seconds"] - sum(inside.values()),
        "deliver": stored - done,
    }


def moment(event: Event) -> float:
    """Unix time of a line of the log."""
    return datetime.fromisoformat(event["time"]).timestamp()


MEANING = {
    "receive": "first byte to last Success, durable",
    "quiet period": "as configured",
    "route": "series found complete, job made",
    "claim": "job found by the worker",
    "read": "files to a volume",
    "model": "lung_ct's own computation",
    "encode": "segmentation, report, their checks, their bytes",
    "features": "what the model's time did not hide",
    "complete": "hand-over, results durable, one transaction",
    "deliver": "found, associated, sent, stored by the PACS",
}


def report(rounds: Sequence[Mapping[str, float]]) -> int:
    """Print the medians; 1 when the aim is missed."""
    print(f"{'step':<14}{'median s':>10}{'all rounds':>14}")
    for step, meaning in MEANING.items():
        values = [one[step] for one in rounds]
        shown = " ".join(f"{value:.2f}" for value in values)
        print(f"{step:<14}{statistics.median(values):>10.2f}    {shown}    {meaning}")
    total = statistics.median(sum(one.values()) for one in rounds)
    ours = statistics.median(
        sum(one.values()) - one["quiet period"] - one["model"] for one in rounds
    )
    print(f"{'total':<14}{total:>10.2f}")
    print(
        f"{'node alone':<14}{ours:>10.2f}    without quiet period and model; "
        f"aim {AIM_SECONDS:.0f} s; MONAI Deploy about {PEER_SECONDS:.0f} s: "
        f"{PEER_SECONDS / ours:.0f} times faster"
    )
    return int(ours > AIM_SECONDS)


def play(folder: Path, *, slices: int, rounds: int, sender: Sequence[str]) -> int:
    """Everything in one folder; the exit status."""
    images = folder / "images"
    images.mkdir()
    print(f"512 x 512 x {slices}, {rounds} rounds, {os.cpu_count()} cores", flush=True)
    subprocess.run(
        [sys.executable, "-c", PHANTOM, str(slices), str(rounds), str(images)], check=True
    )
    port, web_port, pacs_port = free_ports(3)
    setting = Setting(folder=folder, port=port, web_port=web_port, pacs_port=pacs_port)
    setting.pacs.mkdir()
    file = folder / "node.toml"
    file.write_text(
        CONFIGURATION.format(
            folder=folder, port=port, web_port=web_port, pacs_port=pacs_port, quiet=QUIET_SECONDS
        )
    )
    scp = [STORESCP, "-aet", "PACS", "-od", str(setting.pacs), str(pacs_port)]
    node = [sys.executable, "-m", "service.cli", "run", str(file)]
    with process(scp, log=folder / "pacs.log"), process(node, log=setting.log):
        until(
            lambda: any(event["event"] == "node.ready" for event in setting.events()),
            seconds=START_SECONDS,
            what="a node that serves",
        )
        found = [measure(setting, images / str(number), sender, number) for number in range(rounds)]
    return report(found)


def main() -> int:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sender", choices=SENDERS, default="dcmsend")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        return play(
            Path(folder), slices=given.slices, rounds=given.rounds, sender=SENDERS[given.sender]
        )


if __name__ == "__main__":
    sys.exit(main())
