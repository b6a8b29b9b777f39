"""A folder: a file is wholly there and durable, or not there; its name is the SOP Instance UID."""

import errno
import filecmp
import os
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.destinations import Answer, DestinationError, Outcome, Outgoing, broken, in_order

UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 section 9.1


SETTINGS = {"path": {"type": "path", "about": "the folder; made when it does not exist"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of `SETTINGS`."""

    path: str


def destination(settings: Mapping[str, Any], *, calling_ae_title: str) -> "Destination":
    """The destination of a configuration's settings; a folder does not care who writes."""
    del calling_ae_title
    return Destination(Path(Settings(**settings).path))


@dataclass(frozen=True, slots=True)
class Destination:
    """Writes `<SOP Instance UID>.dcm`; writing the same object again changes nothing."""

    directory: Path

    def send(self, results: Sequence[Outgoing]) -> Generator[Outcome, None, None]:
        """Yield COMMITTED per object once file and directory entry are on the disk."""
        return in_order(results, self._deliver)

    def echo(self) -> None:
        """Raise `DestinationError` when the folder cannot be written."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DestinationError(_in_words(error)) from error
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise DestinationError("the folder cannot be written by this user")

    def _deliver(self, outgoing: Outgoing) -> Outcome:
        if (failure := broken(outgoing)) is not None:
            return failure
        if UID.fullmatch(outgoing.sop_instance_uid) is None:
            note = "the SOP Instance UID cannot be a file name"
            return Outcome(outgoing=outgoing, answer=Answer.UNSENDABLE, note=note)
        try:
            _place(outgoing.path, self.directory / f"{outgoing.sop_instance_uid}.dcm")
        except OSError as error:
            return Outcome(outgoing=outgoing, answer=Answer.TRANSIENT, note=_in_words(error))
        return Outcome(outgoing=outgoing, answer=Answer.COMMITTED)


def _place(source: Path, target: Path) -> None:
    """Copy durably: `.part`, fsync, rename, fsync of the directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.exists() and filecmp.cmp(source, target, shallow=False)):
        part = target.with_name(f".{target.name}.part")
        try:
            _copy(source, part)
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    _sync_directory(target.parent)


def _copy(source: Path, part: Path) -> None:
    with source.open("rb") as reader, part.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _in_words(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, "error")
    return f"the folder cannot be written: {error.strerror or error} ({name})"
