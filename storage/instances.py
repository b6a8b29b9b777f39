"""Bytes under a key are whole: they arrive by rename, never by writing in place."""

import hashlib
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from storage.backends.local import LocalBackend, sweep
from storage.errors import OutOfSpace, file_errors

_SHARDS = tuple(f"{number:02x}" for number in range(256))
_FOLDERS = (
    *("instances", "results", "quarantine", "incoming"),
    *(f"instances/{shard}" for shard in _SHARDS),
    *(f"results/{shard}" for shard in _SHARDS),
)

_LISTENING = "listening"


class InstanceStore:
    """Objects by digest under `root`. Methods raise OutOfSpace when the disk or a quota is full.

    Keys: `instances/<2 hex>/<digest>.dcm`, `results/<2 hex>/<digest>.dcm`,
    `quarantine/<random>.dcm`.
    """

    def __init__(self, root: Path) -> None:
        self._backend = LocalBackend(root)
        self._backend.make_folders(_FOLDERS)

    @property
    def incoming(self) -> Path:
        """Where receivers write `*.part` files: the same file system, so that a rename does."""
        return self._backend.root / "incoming"

    def new_part(self) -> Path:
        """A name in `incoming` that nobody else has; the file does not exist yet."""
        return self.incoming / f"{uuid.uuid4().hex}.part"

    def adopt(self, part: Path, digest: str) -> str:
        """Makes a received `.part` the bytes of `digest` and gives its key; durable only after
        `sync`.
        """
        key = f"instances/{digest[:2]}/{digest}.dcm"
        self._backend.adopt(part, key)
        return key

    def sync(self, keys: Iterable[str]) -> None:
        """Makes adopted keys survive a power cut: one fsync for each folder of the group."""
        self._backend.sync(keys)

    def write_result(self, data: bytes) -> tuple[str, str, int]:
        """Keeps a result object durably: key, SHA-256 of the bytes, size."""
        digest = hashlib.sha256(data).hexdigest()
        key = f"results/{digest[:2]}/{digest}.dcm"
        self._backend.write(data, key, scratch=self.incoming)
        return key, digest, len(data)

    def quarantine(self, refused: Path | bytes) -> str:
        """Keeps refused bytes durably for a person to see; a `.part` file is moved."""
        key = f"quarantine/{uuid.uuid4().hex}.dcm"
        if isinstance(refused, bytes):
            self._backend.write(refused, key, scratch=self.incoming)
        else:
            self._backend.adopt(refused, key)
            self._backend.sync([key])
        return key

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self._backend.path(key)

    def delete(self, key: str, *, unchanged_since: datetime | None = None) -> bool:
        """Removes the bytes of a key; one that is not there is as good as removed.

        With `unchanged_since` bytes written at or after that moment stay, and the answer is False:
        the same object was received again while it was given up.
        """
        return self._backend.delete(key, unchanged_since=unchanged_since)

    def free_bytes(self) -> int:
        """What may still be written, in bytes."""
        return self._backend.free_bytes()

    def tell_listening(self, now: datetime) -> None:
        """A receiver begins to listen. A full disk is not told: then nothing comes anyway."""
        file = self._backend.path(_LISTENING)
        with suppress(OutOfSpace), file_errors("noting that a receiver listens"):
            file.touch()
            os.utime(file, (now.timestamp(), now.timestamp()))

    def listening_since(self) -> datetime | None:
        """When a receiver last began to listen; None when none ever did."""
        try:
            moment = self._backend.path(_LISTENING).stat().st_mtime
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(moment, UTC)

    def sweep_incoming(self, older_than: datetime) -> int:
        """Removes `.part` files last written before then, whose sender got no Success; their
        number.
        """
        return sweep(self.incoming, "*.part", unchanged_since=older_than)
