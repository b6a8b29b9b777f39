"""`models CONFIG --trust NAME` shows what a model would run, and records that a person allows it.

What is recorded are the digests of all its files (service/approvals.py): of exactly these.
"""

import getpass
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from service import approvals, inspection, sandbox
from service.approvals import Approval
from service.config import Artifact, Configuration, Model
from service.exits import FAILURE, SUCCESS, CommandError, UsageError
from service.inspection import InspectionError
from service.model_folder import NoModelError

NOTE = """\
It would run in a process of its own without network, credentials or other files of this machine
(deploy/docs/SECURITY.md). It decides alone what its results say."""


def trust(configuration: Configuration, name: str, *, yes: bool) -> int:
    """Show a model and record the approval; FAILURE when the person says no."""
    model, artifact = _model(configuration, name)
    _refuse_changed(name, artifact)
    limit = configuration.inference.memory_gib
    memory_bytes = None if limit is None else int(limit * 2**30)
    try:
        lines = list(_words(model, artifact, memory_bytes))
    except InspectionError as reason:
        raise CommandError(f"{name}: what it would run cannot be shown: {reason}") from reason
    print("\n".join(map(approvals.visible, lines)))
    print(NOTE)
    if not yes and not _confirmed():
        print("not approved")
        return FAILURE
    file = approvals.file_of(configuration.storage.directory, name)
    approvals.record(file, Approval(files=artifact.sidecar.files, by=_user(), at=datetime.now(UTC)))
    print(f"approved: {file}")
    if not artifact.trusted:
        print('to run it so: trust = "trusted" in its [[models]]')
    return SUCCESS


def _model(configuration: Configuration, name: str) -> tuple[Model, Artifact]:
    for model in configuration.models:
        if model.name == name and model.artifact is not None:
            return model, model.artifact
        if model.name == name:
            raise CommandError(f"{name}: is a part of this program and needs no approval")
    names = ", ".join(model.name for model in configuration.models if model.artifact is not None)
    raise UsageError(f"--trust {name}: no such model; allowed: {names or 'none is configured'}")


def _refuse_changed(name: str, artifact: Artifact) -> None:
    try:
        changed = approvals.since_added(artifact.path, artifact.sidecar.files)
    except NoModelError as reason:
        raise CommandError(f"{name}: {approvals.visible(str(reason))}") from reason
    if changed:
        raise CommandError(
            f"{name}: {changed} changed since it was added; "
            f"first: hounsfield models CONFIG --add {artifact.path}"
        )


def _words(model: Model, artifact: Artifact, memory_bytes: int | None) -> Iterator[str]:
    described = artifact.sidecar
    yield f"{model.name}: {model.kind} {model.version}, {described.name}"
    yield f"  {described.summary}"
    yield f"  licence  {described.licence}"
    yield f"  digest   {approvals.digest_of(described.files)}"
    yield f"  files    {artifact.path}"
    for name, digest in sorted(described.files.items()):
        yield f"    {digest[:16]}  {_place(artifact, name).stat().st_size:>12,} bytes  {name}"
    lacking = sandbox.lacking()
    if lacking is not None:
        yield f"  will not run trusted on this machine: nothing would keep it from {lacking}"
        yield "  what it could do beyond the strict policy is not looked at, for the same reason"
        return
    outside = inspection.beyond_strict(artifact.path, described.files, memory_bytes=memory_bytes)
    yield "  beyond the strict policy" if outside else "  nothing beyond the strict policy"
    yield from (f"    {one}" for one in outside)


def _place(artifact: Artifact, name: str) -> Path:
    return artifact.path / name if artifact.path.is_dir() else artifact.path


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("--trust: asks on a terminal; allowed without one: --yes")
    return input("Allow these files to run? [y/N] ").strip().lower() in ("y", "yes")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user that the machine has no name for
        return str(os.getuid())
