"""Bytes in a folder: a file is whole or absent, and after `sync` it survives a power cut."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from storage.errors import StorageError, file_errors

_FOLDER_MODE = 0o750


class LocalBackend:
    """Files under `root`; a key is the path below it, with `/`. All are on one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make_folders(self, names: Iterable[str]) -> None:
        """Makes folders below the root, durably: also those that another process makes just now."""
        with file_errors("making the storage folders"):
            folders = [self.path(name) for name in names]
            for folder in folders:
                folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            for parent in {folder.parent for folder in folders}:
                sync_folder(parent)

    def adopt(self, part: Path, key: str) -> None:
        """fsync of the file, then rename; durable only after `sync`. An equal key is replaced."""
        target = self.path(key)
        with file_errors("keeping a received object"):
            _sync_file(part)
            with _folder_lock(target.parent, fcntl.LOCK_SH):
                part.replace(target)

    def write(self, data: bytes, key: str, *, scratch: Path) -> None:
        """Writes all of `data` or nothing, durably. `scratch`: a folder for the unfinished file."""
        part = scratch / f"{uuid.uuid4().hex}.part"
        with file_errors("writing an object"):
            try:
                part.write_bytes(data)
                self.adopt(part, key)
            finally:
                part.unlink(missing_ok=True)
        self.sync([key])

    def sync(self, keys: Iterable[str]) -> None:
        """fsync of each folder of these keys, once."""
        with file_errors("making objects durable"):
            for folder in {self.path(key).parent for key in keys}:
                sync_folder(folder)

    def path(self, key: str) -> Path:
        """The file of a key; refuses one that leads out of the root."""
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") for part in parts):
            raise StorageError(f"not a key: {key!r}")
        return self.root.joinpath(*parts)

    def delete(self, key: str, *, unchanged_since: datetime | None = None) -> bool:
        """Removes the bytes; False when they were written at or after `unchanged_since` and stay.

        No `adopt` of the same key can come between the look and the removal.
        """
        file = self.path(key)
        with file_errors("deleting an object"):
            if not file.parent.is_dir():
                return True
            with _folder_lock(file.parent, fcntl.LOCK_EX):
                if unchanged_since is not None and not _older_or_gone(file, unchanged_since):
                    return False
                file.unlink(missing_ok=True)
                return True

    def free_bytes(self) -> int:
        """What an unprivileged process may still write, in bytes."""
        with file_errors("asking for free space"):
            return shutil.disk_usage(self.root).free


def sync_folder(folder: Path) -> None:
    """fsync of a folder: the names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, pattern: str, *, unchanged_since: datetime) -> int:
    """Removes the folder's files of a pattern last written before then; their number."""
    with file_errors("removing unfinished objects"):
        stale = [file for file in folder.glob(pattern) if _older(file, unchanged_since)]
        for file in stale:
            file.unlink(missing_ok=True)
        return len(stale)


@contextmanager
def _folder_lock(folder: Path, how: int) -> Iterator[None]:
    """flock of the folder itself: released by the kernel whatever becomes of the process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _older(file: Path, moment: datetime) -> bool:
    return file.exists() and _older_or_gone(file, moment)


def _older_or_gone(file: Path, moment: datetime) -> bool:
    try:
        return file.stat().st_mtime < moment.timestamp()
    except FileNotFoundError:
        return True


def _sync_file(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
