"""What is in an archive of torch.save or torch.jit.save, without taking it for what it says it is.

Such archives come from others and are looked at where nothing confines: lists and records longer
than any honest one are not read, records that are packed neither (torch packs none), and what is no
archive has nothing in it.
"""

import io
import struct
import zipfile
from pathlib import Path

MOST_BYTES = 16 << 20  # of the list of what is in it, and of one record
ENCRYPTED = 1  # bit of a record's flags
DAMAGED = (
    zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, EOFError, OSError,
)  # fmt: skip


def names(path: Path) -> tuple[str, ...]:
    """The names of the records in a file; none for a file that is no archive."""
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            return tuple(archive.namelist())
    except DAMAGED:
        return ()


def record(path: Path, name: str) -> bytes:
    """The content of the one record whose name ends so; empty when there is none, or several."""
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            found = [one for one in archive.infolist() if one.filename.endswith(name)]
            return archive.read(found[0]) if len(found) == 1 and _is_plain(found[0]) else b""
    except DAMAGED:
        return b""


def _is_plain(found: zipfile.ZipInfo) -> bool:
    """Whether as many bytes are read as it says, a packed one may become any number."""
    packed = found.compress_type != zipfile.ZIP_STORED or found.flag_bits & ENCRYPTED
    return not packed and found.file_size == found.compress_size <= MOST_BYTES


class _Bounded(io.FileIO):
    """A file of which nothing long is read at once, however long it says that something is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file; zipfile.BadZipFile for more than MOST_BYTES."""
        wanted = MOST_BYTES + 1 if size is None or size < 0 else size
        if wanted > MOST_BYTES + 1:
            raise zipfile.BadZipFile("too long")
        found = super().read(wanted)
        if found is None or len(found) > MOST_BYTES:
            raise zipfile.BadZipFile("too long")
        return found
