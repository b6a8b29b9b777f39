"""Roles come back when they die and stop in order when told: real processes, real signals.

Not covered: a role that lives but serves no more (the web port's /ready is for that); systemd.
"""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import config, supervisor
from service.node import ROLES, Part, UnknownRoleError, parts
from service.stopping import Stop
from service.supervisor import Supervisor, restart_seconds
from tests.logs import events, logging_to
from tests.node import Node, lung_route, running
from tests.roles import Acting, notes

PARTS = [Part(role=role, number=0) for role in ROLES]


class Running:
    """A supervisor in a thread of this process."""

    def __init__(self, folder: Path, roles: list[Part] = PARTS) -> None:
        self.stop = Stop()
        self.exit_code: int | None = None
        supervising = Supervisor(roles, Acting(folder), stop=self.stop)
        self._thread = threading.Thread(target=lambda: self._run(supervising))
        self._thread.start()

    def _run(self, supervising: Supervisor) -> None:
        self.exit_code = supervising.run()

    def ended(self, seconds: float = 60) -> int | None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the supervisor did not end"
        return self.exit_code


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(*roles: Part) -> Running:
        made.append(Running(tmp_path, list(roles) or PARTS))
        return made[-1]

    with logging_to(tmp_path / "log", role="supervisor"):
        yield start
        for each in made:
            each.stop.ask()
            each.stop.ask()
            each.ended()


def started(folder: Path, name: str) -> list[int]:
    """The process ids under which a part was started."""
    return [int(n.split()[2]) for n in notes(folder) if n.startswith(f"{name} started")]


def eventually(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := check():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def ready(folder: Path) -> bool:
    return bool(events(folder / "log", "node.ready"))


def test_told_to_stop_roles_end_in_order_and_the_node_exits_0(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    running = run()
    eventually(lambda: ready(tmp_path), "ready")
    running.stop.ask()
    assert running.ended() == 0
    stopped = [n.split()[0] for n in notes(tmp_path) if n.endswith("stopped")]
    assert stopped[0] == "receive"
    assert set(stopped[1:3]) == {"infer", "maintain"}
    assert stopped[3:] == ["deliver", "web"]
    assert len(events(tmp_path / "log", "role.stopped")) == 5


def test_a_killed_role_is_started_again_and_the_others_never_notice(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    run()
    eventually(lambda: ready(tmp_path), "ready")
    os.kill(started(tmp_path, "infer")[0], signal.SIGKILL)
    eventually(lambda: len(started(tmp_path, "infer")) == 2, "another infer")
    assert all(len(started(tmp_path, role)) == 1 for role in ROLES if role != "infer")
    (died,) = events(tmp_path / "log", "role.died")
    assert (died["role_name"], died["exit_code"], died["signal"]) == ("infer", -9, "SIGKILL")


def test_a_role_that_keeps_dying_is_started_ever_later(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "web.does").write_text("dies")
    run(PARTS[0], PARTS[-1])
    eventually(lambda: len(started(tmp_path, "web")) >= 3, "three starts")
    assert not ready(tmp_path)
    (tmp_path / "web.does").unlink()
    eventually(lambda: ready(tmp_path), "the node, once the role can run")


def test_the_waits_double_up_to_a_longest() -> None:
    waits = [restart_seconds(deaths) for deaths in range(1, 40)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert max(waits) == waits[-1] == supervisor.LONGEST_RESTART_SECONDS


def test_a_role_that_cannot_run_as_configured_ends_the_node(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "receive.does").write_text("refuses")
    assert run().ended() == 1


def test_a_second_signal_hastens_all(run: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "infer.does").write_text("hurries")
    running = run()
    eventually(lambda: ready(tmp_path), "ready")
    running.stop.ask()
    eventually(lambda: "maintain stopped" in notes(tmp_path), "maintain stopped")
    running.stop.ask()
    assert running.ended() == 0
    assert "infer stopped" in notes(tmp_path)


def test_a_role_that_does_not_stop_is_killed_and_the_exit_says_so(
    run: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 4.0)
    (tmp_path / "deliver.does").write_text("ignores")
    running = run()
    eventually(lambda: ready(tmp_path), "ready")
    running.stop.ask()
    assert running.ended() == 1
    (killed,) = events(tmp_path / "log", "role.killed")
    assert killed["role_name"] == "deliver"
    assert "web stopped" in notes(tmp_path)


def _supervise(folder: Path) -> None:
    Supervisor(PARTS[:2], Acting(folder), stop=Stop()).run()


def test_roles_stop_in_order_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_supervise, args=(tmp_path,))
    process.start()
    eventually(lambda: len(notes(tmp_path)) == 2, "two roles")
    time.sleep(0.3)
    process.kill()
    process.join()
    eventually(lambda: sum(n.endswith("stopped") for n in notes(tmp_path)) == 2, "both stopped")


def test_roles_are_checked_and_multiplied_by_the_configuration(tmp_path: Path) -> None:
    text = '[application_entity]\nreceivers = 2\n[[models]]\nname = "b"\nkind = "body_outline"\n'
    configuration = config.parse(text, file=tmp_path / "node.toml")
    assert [part.name for part in parts(configuration, [])] == [
        "receive",
        "receive-1",
        "infer",
        "deliver",
        "maintain",
        "web",
    ]
    assert [part.name for part in parts(configuration, ["web"])] == ["web"]
    with pytest.raises(UnknownRoleError, match="'inver' is unknown; allowed: receive, infer"):
        parts(configuration, ["inver"])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with running(Node(folder, extra=lung_route((), model="body_outline"))) as made:
        eventually(lambda: "ready: " in made.tail(99), "ready")
        yield made


def test_a_node_says_ready_with_its_roles(node: Node) -> None:
    assert "ready: receive, infer, deliver, maintain, web\n" in node.log.read_text()


def test_light_roles_load_no_science(node: Node) -> None:
    """Measured on the running processes: no library of the science is mapped into them."""
    light = {
        each["role_name"]: each["process_id"]
        for each in events_of(node, "role.ready")
        if each["role_name"] != "infer"
    }
    assert set(light) == {"receive", "deliver", "maintain", "web"}
    for role, process_id in light.items():
        mapped = Path(f"/proc/{process_id}/maps").read_text()
        assert not re.search(r"/(torch|monai|scipy|skimage)/", mapped), role


def test_the_worker_loads_no_science_either_its_child_does(node: Node) -> None:
    (infer,) = [e for e in events_of(node, "role.ready") if e["role_name"] == "infer"]
    (child,) = events_of(node, "child.started")
    assert "/scipy/" not in Path(f"/proc/{infer['process_id']}/maps").read_text()
    assert "/scipy/" in Path(f"/proc/{child['process_id']}/maps").read_text()
    assert Path(f"/proc/{child['process_id']}/oom_score_adj").read_text() == "1000\n"


def test_a_port_that_is_taken_ends_the_node_with_one_line(node: Node) -> None:
    second = subprocess.run(
        [Path(sys.executable).parent / "hounsfield", "run", node.config, "--role", "receive"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert second.returncode == 1
    said = [line for line in second.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert re.search(r"application_entity\.port: .*:\d+ cannot be listened on", said[0])


def test_a_node_that_is_told_to_stop_exits_0_within_seconds(node: Node) -> None:
    """The last of those that share the node. The associations that probed its port are over."""
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < 20
    assert [e["exit_code"] for e in events_of(node, "node.stopped")] == [0]


def test_nothing_of_a_node_outlives_its_killed_supervisor(tmp_path: Path) -> None:
    with running(Node(tmp_path, extra=lung_route((), model="body_outline"))) as node:
        eventually(lambda: "ready: " in node.tail(99), "ready")
        everyone = node.processes()
        assert len(everyone) >= 7, "supervisor, five roles, the child of infer"
        os.kill(everyone[0], signal.SIGKILL)
        eventually(lambda: all(map(_gone, everyone)), "nobody left")


def _gone(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def events_of(node: Node, name: str) -> list[dict[str, Any]]:
    lines = [line for line in node.log.read_text().splitlines() if line.startswith("{")]
    return [each for each in map(json.loads, lines) if each["event"] == name]
