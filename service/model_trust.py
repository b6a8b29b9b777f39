"""`models CONFIG --trust NAME` shows what a model would run, and records that a person allows it.

What is recorded are the digests of all its files (service/approvals.py): of exactly these.
"""

import getpass
import os
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from inference import torchscript_policy
from inference.bundles import configuration as bundle
from inference.errors import ModelRefused
from service import approvals, sandbox, sidecar
from service.approvals import Approval
from service.config import Artifact, Configuration, Model
from service.exits import FAILURE, SUCCESS, CommandError, UsageError

NOTE = """\
It would run in a process of its own without network, credentials or other files of this machine
(deploy/docs/SECURITY.md). It decides alone what its results say."""


def trust(configuration: Configuration, name: str, *, yes: bool) -> int:
    """Show a model and record the approval; FAILURE when the person says no."""
    model, artifact = _model(configuration, name)
    differing = sidecar.changed(artifact.path, artifact.sidecar)
    if differing:
        raise CommandError(
            f"{name}: {approvals.visible(', '.join(differing))} changed since it was added; "
            f"first: hounsfield models CONFIG --add {artifact.path}"
        )
    print("\n".join(map(approvals.visible, _words(model, artifact))))
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


def _words(model: Model, artifact: Artifact) -> Iterator[str]:
    described = artifact.sidecar
    yield f"{model.name}: {model.kind} {model.version}, {described.name}"
    yield f"  {described.summary}"
    yield f"  licence  {described.licence}"
    yield f"  digest   {approvals.digest_of(described.files)}"
    yield f"  files    {artifact.path}"
    for name, digest in sorted(described.files.items()):
        yield f"    {digest[:16]}  {_place(artifact, name).stat().st_size:>12,} bytes  {name}"
    outside = list(_outside(artifact))
    yield "  beyond the strict policy" if outside else "  nothing beyond the strict policy"
    yield from (f"    {one}" for one in outside)
    lacking = sandbox.lacking()
    if lacking is not None:
        yield f"  will not run trusted on this machine: nothing would keep it from {lacking}"


def _place(artifact: Artifact, name: str) -> Path:
    return artifact.path / name if artifact.path.is_dir() else artifact.path


def _outside(artifact: Artifact) -> Iterator[str]:
    """What it could do that the strict policy would refuse, file by file, in words."""
    for name in sorted(artifact.sidecar.files):
        place = _place(artifact, name)
        if name.endswith(".py"):
            yield f"{name}: Python, runs as it is"
        elif name in bundle.NAMES:
            yield from (f"{name}: {what}" for what in _of_bundle(name, place))
        elif zipfile.is_zipfile(place) and _has_code(place):
            found = torchscript_policy.violations(place.read_bytes())
            yield from (f"{name}: {what}" for what in found)


def _of_bundle(name: str, place: Path) -> Iterator[str]:
    from inference.bundles import policy

    try:
        whole = bundle.parse(name, place.read_bytes())
        names = bundle.parts(whole).names
        tree = bundle.edited(bundle.reachable(whole, names))
    except ModelRefused as reason:
        yield str(reason)
        return
    yield from map(str, policy.violations(tree, names))


def _has_code(place: Path) -> bool:
    with zipfile.ZipFile(place) as archive:
        return any("/code/" in name for name in archive.namelist())


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("--trust: asks on a terminal; allowed without one: --yes")
    return input("Allow these files to run? [y/N] ").strip().lower() in ("y", "yes")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user that the machine has no name for
        return str(os.getuid())
