"""A trusted model runs only while its files are those that an administrator approved, all of them.

Approvals lie outside the models' folders, in `<storage.directory>/trust/<name>.json`. A file that
changed, went or came since stops the model, be it trusted or strict, and the reason says which.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service import model_folder
from service.model_folder import NoModelError

FOLDER = "trust"
MOST_NAMED = 5  # files in a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who approved which files (path inside the model -> SHA-256), and when (UTC)."""

    files: Mapping[str, str]
    by: str
    at: datetime


def file_of(directory: Path, name: str) -> Path:
    """Where the approval of a model is kept, `directory` being that of the storage."""
    return directory / FOLDER / f"{name}.json"


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 of a model's files: of their names and digests in order."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def record(file: Path, approval: Approval) -> None:
    """Keep an approval durably: all of it or none."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    document = {
        "files": dict(approval.files),
        "by": approval.by,
        "at": approval.at.astimezone(UTC).isoformat(timespec="seconds"),
    }
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as opened:
        json.dump(document, opened, indent=2, sort_keys=True)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(file: Path) -> Approval | None:
    """The approval in a file; None when there is none: a damaged one approves nothing."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return Approval(
            files={str(name): str(digest) for name, digest in document["files"].items()},
            by=str(document["by"]),
            at=datetime.fromisoformat(document["at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def stopped(
    path: Path, pinned: Mapping[str, str], *, trusted: bool, approval: Approval | None
) -> str | None:
    """Why a model must not run, in words; None when it may. Reads all of its files.

    `pinned`: the digests in its sidecar, from when it was added. Raises OutOfReachError in a
    confined process for a file that came after it was.
    """
    if trusted and approval is None:
        return "trusted, but not approved: hounsfield models CONFIG --trust NAME"
    if trusted and approval is not None and (since := _differing(pinned, approval.files)):
        return f"{since} changed since it was approved: hounsfield models CONFIG --trust NAME"
    try:
        since = since_added(path, pinned)
    except NoModelError as reason:
        return f"it {reason}"
    if since:
        return f"{since} changed since it was added: hounsfield models CONFIG --add PATH"
    return None


def since_added(path: Path, pinned: Mapping[str, str]) -> str:
    """The files that are not as pinned, by name, "" when all are; reads none if some came or went.

    Raises NoModelError and OutOfReachError as `model_folder.digests` does.
    """
    if not path.exists():
        return _differing({}, pinned)
    there = model_folder.names(path)
    if there != pinned.keys():
        return _listed(there ^ pinned.keys())
    return _differing(model_folder.digests(path), pinned)


def state(path: Path, pinned: Mapping[str, str], *, trusted: bool, file: Path) -> str:
    """Whether and how a model runs, in words that begin with stopped, strict or trusted."""
    approval = read(file) if trusted else None
    reason = stopped(path, pinned, trusted=trusted, approval=approval)
    if reason is not None:
        return f"stopped: {reason}"
    if approval is None:
        return "strict"
    return f"trusted: approved by {approval.by} on {approval.at:%Y-%m-%d}"


def _differing(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """The files that are not the same in both, by name; "" when all are."""
    return _listed(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def _listed(files: Iterable[str]) -> str:
    names = sorted(files)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(visible, names[:MOST_NAMED])) + more


def visible(text: str) -> str:
    """A text for a terminal: what would move, colour or hide something is written out."""
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def appearance(path: Path, approval: Path | None = None) -> tuple[object, ...]:
    """How a model's files and its approval look unread: while it stays the same, they are."""
    try:
        files = [path / name for name in model_folder.files(path)] if path.is_dir() else [path]
    except NoModelError as reason:
        return (str(reason),)
    watched = files if approval is None else [*files, approval]
    return tuple((str(one), _look(one)) for one in watched)


def _look(path: Path) -> tuple[int, int, int]:
    """Inode, size and time of the last change of the inode, which no program can set."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_ctime_ns)
