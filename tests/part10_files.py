"""Part 10 files, taken apart without a DICOM library's opinion of the data set."""

import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"}


@dataclass(frozen=True, slots=True)
class Part10:
    """A file, its transfer syntax and SOP UIDs as its file meta says, its data set bytes."""

    name: str
    meta: dict[int, str]
    raw: bytes
    data_set: bytes

    @property
    def transfer_syntax(self) -> str:
        return self.meta.get(0x0010, "")

    @property
    def sop_instance(self) -> str:
        return self.meta.get(0x0003, "")

    @property
    def sop_class(self) -> str:
        return self.meta.get(0x0002, "")


def files(folder: Path) -> Iterator[Part10]:
    """Every Part 10 file under `folder` that names its transfer syntax, sorted by path."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size > 200:
            found = take_apart(path.read_bytes(), str(path))
            if found is not None and found.transfer_syntax:
                yield found


def packed_files(folder: Path) -> Iterator[Part10]:
    """Every Part 10 file in the archives under `folder`."""
    for path in sorted(folder.rglob("*.tar.xz")):
        with tarfile.open(path, "r:xz") as archive:
            for member in archive:
                stream = archive.extractfile(member)
                found = take_apart(stream.read(), member.name) if stream else None
                if found is not None:
                    yield found


def take_apart(raw: bytes, name: str) -> Part10 | None:
    """The parts of a file, or None when it is not Part 10."""
    if raw[128:132] != b"DICM":
        return None
    at, meta = 132, {}
    while raw[at : at + 2] == b"\x02\x00":
        element, vr = struct.unpack_from("<H2s", raw, at + 2)
        start = at + 12 if vr in LONG_FORM else at + 8
        form = "<I" if vr in LONG_FORM else "<H"
        (length,) = struct.unpack_from(form, raw, start - struct.calcsize(form))
        meta[element] = raw[start : start + length].decode("latin-1").strip("\0 ")
        at = start + length
    return Part10(name, meta, raw, raw[at:])
