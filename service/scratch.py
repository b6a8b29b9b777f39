"""The one folder that models may write to: limited in size and number of files, gone afterwards."""

import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 8 << 30
MOST_FILES = 10_000
DEEPEST = 64


class Scratch:
    """A folder of its own under the system's folder for temporary files."""

    def __init__(self, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="hounsfield-models-"))
        self._most_bytes = most_bytes
        self._most_files = most_files

    def overflown(self) -> str | None:
        """How it is beyond its limits, in words; None while it is not."""
        size = files = 0
        waiting = [(str(self.path), 0)]
        while waiting:
            folder, depth = waiting.pop()
            if depth > DEEPEST:
                return f"wrote more than {DEEPEST} temporary folders inside one another"
            entries = _entries(folder)
            files += len(entries)
            if files > self._most_files:
                return f"wrote more than {self._most_files} temporary files"
            waiting += [(one.path, depth + 1) for one in entries if _is_folder(one)]
            size += sum(_size(Path(one.path)) for one in entries if not _is_folder(one))
        if size > self._most_bytes:
            return f"wrote more than {self._most_bytes >> 20} MiB of temporary files"
        return None

    def remove(self) -> None:
        """Whatever is in it, however deep."""
        with suppress(OSError):
            while self._lifted():
                pass
        shutil.rmtree(self.path, ignore_errors=True)

    def _lifted(self) -> bool:
        """Whether there were folders in its folders: they are beside them now, and can go next."""
        lifted = False
        for folder in filter(_is_folder, _entries(str(self.path))):
            Path(folder.path).chmod(0o700)
            inside = [one for one in _entries(folder.path) if _is_folder(one)]
            for one in inside:
                Path(one.path).rename(self.path / f".{uuid.uuid4().hex}")
            lifted = lifted or bool(inside)
            if not inside:
                shutil.rmtree(folder.path, ignore_errors=True)
        return lifted


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing if it has gone meanwhile."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _size(path: Path) -> int:
    """Bytes on the disk; 0 of a file that has gone meanwhile."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0
