"""The main job before your eyes: a scanner sends a study, the node answers, a PACS receives.

The node is the real one, in processes of its own, on its embedded default (SQLite, a folder).
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from rich.console import Console

from service import config, demo_pacs, demo_results, phantom, status
from service.config import Configuration
from service.destinations import DestinationError, Outgoing, dicom
from service.exits import SUCCESS, CommandError
from service.ports import free_ports
from storage.overview import Outcome, Overview, SeriesOverview
from storage.records import DeliveryState, SeriesState

AE_TITLE = "HOUNSFIELD"
START_SECONDS = 60
RESULT_SECONDS = 900
POLL_SECONDS = 0.25

TEMPLATE = """\
# The node of a demo: SQLite and this folder. deploy/hounsfield.toml explains every key.
[application_entity]
ae_title = "{ae_title}"
port = {port}

[storage]
directory = "./node"
minimum_free_gib = 0.1

[web]
port = {web_port}

[completion]
kind = "quiet_period"
seconds = 2
study_seconds = 2

[[destinations]]
name = "pacs"
kind = "dicom"
ae_title = "{pacs_ae_title}"
host = "127.0.0.1"
port = {pacs_port}
results = ["segmentation", "measurement_report"]

[[models]]
name = "lung-ct"
kind = "lung_ct"

[[routes]]
name = "chest CT"
match = {{ Modality = "CT" }}
select = "best"
models = ["lung-ct"]
destinations = ["pacs"]
"""


def run(*, study: Path | None, once: bool) -> int:
    """Play it in a new folder below ./data; CommandError with the reason when nothing came back."""
    console = Console(highlight=False, soft_wrap=True)
    folder = Path("data") / f"demo-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    images = study if study is not None else _synthetic(folder / "scanner")
    outgoing = _outgoing(images)
    folder.mkdir(parents=True, exist_ok=True)
    port, pacs_port, web_port = free_ports(3)
    configuration = _configuration(folder, port=port, web_port=web_port, pacs_port=pacs_port)
    with (
        demo_pacs.pacs(folder / "pacs", port=pacs_port) as received,
        _node(configuration, log=folder / "node.log") as node,
    ):
        _Play(console=console, configuration=configuration, node=node).play(outgoing)
        demo_results.show(console, received, images=images, picture=folder / "montage.png")
        console.print(f"\nThe node's page: http://127.0.0.1:{web_port}/")
        console.print(f"Its configuration: {configuration.file}")
        if not once:
            console.print("The node goes on; Ctrl-C stops it.")
            _until_interrupted(node)
    return SUCCESS


def _synthetic(folder: Path) -> Path:
    phantom.write(folder)
    return folder


def _configuration(folder: Path, *, port: int, web_port: int, pacs_port: int) -> Configuration:
    file = folder / "hounsfield.toml"
    file.write_text(
        TEMPLATE.format(
            ae_title=AE_TITLE,
            port=port,
            web_port=web_port,
            pacs_port=pacs_port,
            pacs_ae_title=demo_pacs.AE_TITLE,
        )
    )
    return config.load(file)


@contextmanager
def _node(configuration: Configuration, *, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as out:
        node = subprocess.Popen(  # noqa: S603  (our own command on the file just written)
            [sys.executable, "-m", "service.cli", "run", str(configuration.file)],
            stdout=out,
            stderr=out,
        )
    try:
        yield node
    finally:
        node.terminate()
        node.wait()


def _until_interrupted(node: "subprocess.Popen[bytes]") -> None:
    try:
        node.wait()
    except KeyboardInterrupt:
        return


def _outgoing(folder: Path) -> list[Outgoing]:
    """The DICOM files below a folder, by SOP Instance UID."""
    found: dict[str, Outgoing] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
        except (InvalidDicomError, AttributeError):
            continue
        found[uid] = Outgoing(sop_instance_uid=uid, path=path, size=path.stat().st_size)
    if not found:
        raise CommandError(f"{folder}: holds no DICOM files")
    return list(found.values())


@dataclass
class _Play:
    """The scanner's part, and what the audience is told while the node does its own."""

    console: Console
    configuration: Configuration
    node: "subprocess.Popen[bytes]"
    begun: float = field(default_factory=time.monotonic)

    def play(self, images: Sequence[Outgoing]) -> None:
        """Send, then follow the node until each series has its outcome."""
        with self.console.status("the node starts"):
            scanner = self._scanner()
            self._until_it_answers(scanner)
        self._say("the node answers C-ECHO")
        with self.console.status("the scanner sends"):
            self._send(scanner, images)
        self._say(f"the scanner has sent {len(images)} images, each answered Success")
        with self.console.status("the node works"):
            self._follow()

    def _say(self, what: str) -> None:
        self.console.print(f"{time.monotonic() - self.begun:6.1f} s  {what}")

    def _scanner(self) -> dicom.Destination:
        ours = self.configuration.application_entity
        peer = {"ae_title": ours.ae_title, "host": ours.host, "port": ours.port}
        return dicom.destination(peer, calling_ae_title="SCANNER")

    def _until_it_answers(self, scanner: dicom.Destination) -> None:
        while True:
            try:
                return scanner.echo()
            except DestinationError as error:
                self._check_alive()
                if time.monotonic() > self.begun + START_SECONDS:
                    raise CommandError(f"the node did not start: {error}") from error
            time.sleep(POLL_SECONDS)

    def _check_alive(self) -> None:
        if self.node.poll() is not None:
            log = self.configuration.file.parent / "node.log"
            raise CommandError(f"the node ended with {self.node.returncode}; see {log}")

    def _send(self, scanner: dicom.Destination, images: Sequence[Outgoing]) -> None:
        for outcome in scanner.send(images):
            if not outcome.delivered:
                raise CommandError(f"{outcome.outgoing.path}: not accepted: {outcome.note}")

    def _follow(self) -> None:
        said: set[str] = set()
        end = time.monotonic() + RESULT_SECONDS
        while time.monotonic() < end:
            self._check_alive()
            overview = status.read(self.configuration)
            for line in steps(overview):
                if line not in said:
                    self._say(line)
                    said.add(line)
            if settled(overview):
                return judge(overview)
            time.sleep(POLL_SECONDS)
        raise CommandError(f"no result within {RESULT_SECONDS} s")


def steps(overview: Overview) -> Iterator[str]:
    """What has happened to each series so far, one line a step."""
    for series in (s for study in overview.studies for s in study.series):
        number = next(iter(series.attributes.get("SeriesNumber", ())), "?")
        name = f"series {number} ({series.modality}, {series.instances} images)"
        if series.state is not SeriesState.RECEIVING:
            yield f"{name} is complete"
        for outcome in series.outcomes:
            yield f"{name}: {_progress(outcome)}"
            yield from (
                f"{name}: {delivery.result.kind.replace('_', ' ')} {_delivery(delivery.state)}"
                for delivery in outcome.deliveries
            )


def _progress(outcome: Outcome) -> str:
    words = [outcome.model or "", outcome.state.replace("_", " "), outcome.reason or ""]
    return " · ".join(word for word in words if word)


def _delivery(state: DeliveryState) -> str:
    return "is due at the PACS" if state is DeliveryState.DUE else "is at the PACS"


def settled(overview: Overview) -> bool:
    """True when every series has its outcome and nothing is on its way any more."""
    return bool(overview.studies) and all(
        _series_settled(series) for study in overview.studies for series in study.series
    )


def _series_settled(series: SeriesOverview) -> bool:
    if series.state is SeriesState.QUARANTINED:
        return True
    return bool(series.outcomes) and all(
        outcome.state in ("done", "failed", "not_analysed")
        and all(delivery.state is not DeliveryState.DUE for delivery in outcome.deliveries)
        for outcome in series.outcomes
    )


def judge(overview: Overview) -> None:
    """Return when a result came back; CommandError with the reasons when none did."""
    outcomes = [o for study in overview.studies for s in study.series for o in s.outcomes]
    arrived = (DeliveryState.SENT, DeliveryState.COMMITTED)
    if any(delivery.state in arrived for o in outcomes for delivery in o.deliveries):
        return
    reasons = dict.fromkeys(o.reason for o in outcomes if o.reason)
    raise CommandError("no result came back: " + "; ".join(reasons))
