"""The one folder that models may write to: limited in size and number of files, gone afterwards."""

import os
import shutil
import tempfile
from pathlib import Path

MOST_BYTES = 8 << 30
MOST_FILES = 10_000


class Scratch:
    """A folder of its own under the system's folder for temporary files."""

    def __init__(self, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="hounsfield-models-"))
        self._most_bytes = most_bytes
        self._most_files = most_files

    def overflown(self) -> str | None:
        """How it is beyond its limits, in words; None while it is not."""
        size = files = 0
        for folder, folders, names in os.walk(self.path):
            files += len(folders) + len(names)
            if files > self._most_files:
                return f"wrote more than {self._most_files} temporary files"
            size += sum(_size(Path(folder, name)) for name in names)
        if size > self._most_bytes:
            return f"wrote more than {self._most_bytes >> 20} MiB of temporary files"
        return None

    def remove(self) -> None:
        """Whatever is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _size(path: Path) -> int:
    """Bytes on the disk; 0 of a file that has gone meanwhile."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0
