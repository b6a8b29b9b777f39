"""Bytes in a folder: a file is whole or absent, and after `sync` it survives a power cut."""

import os
import shutil
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from storage.errors import MissingBytes, StorageError, file_errors

_FOLDER_MODE = 0o750


class LocalBackend:
    """Files under `root`; a key is the path below it, with `/`. All are on one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def adopt(self, part: Path, key: str) -> None:
        """fsync of the file, then rename; durable only after `sync`. An equal key is replaced."""
        target = self.path(key)
        with file_errors("keeping a received object"):
            _sync_file(part)
            self._make_folder(target.parent)
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

    def delete(self, key: str) -> None:
        """Removes the bytes; a key that is not there changes nothing."""
        with file_errors("deleting an object"):
            self.path(key).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """What an unprivileged process may still write, in bytes."""
        with file_errors("asking for free space"):
            return shutil.disk_usage(self.root).free

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """fsync of a folder: the names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def older_than(file: Path, moment: datetime) -> bool:
    """Whether the file's last change is before the moment; False when it is gone."""
    try:
        return file.stat().st_mtime < moment.timestamp()
    except FileNotFoundError:
        return False


def _sync_file(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["LocalBackend", "MissingBytes", "older_than", "sync_folder"]
