"""What a process was decoding when it ended can be read by the process that started it.

Notes are in a file of the one folder that the other process may write. What is read there was
written by whatever ran there: it is an identifier or nothing. (Shared memory would end its reader
when the other one makes it shorter.)
"""

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom.uid import UID

NAME = "decoding"

SLOTS = 8  # instances that are decoded at once; more are not noted
LENGTH = 64  # characters of a UID (PS3.5 9.1)
SIZE = SLOTS * 2 * LENGTH  # bytes
IDENTIFIER = re.compile(rb"[0-9.]{1,64}")


class DecodingNotes:
    """Handed to the other process when that is started; `folder`: its own."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME

    def writer(self) -> Callable[[str, str], Callable[[], None]]:
        """For the other process: what is told of an instance before it is decoded."""
        return _Writer(self._file).begin

    def words(self) -> str:
        """ " while it decoded instance 1.2.3 (JPEG 2000, 1.2.840...)"; "" when it decoded none."""
        found = " and ".join(_words(*one) for one in self._read())
        return f" while it decoded {found}" if found else ""

    def _read(self) -> Iterator[tuple[str, str]]:
        raw = self._content()
        for start in range(0, len(raw), 2 * LENGTH):
            instance = raw[start : start + LENGTH].rstrip(b"\0")
            syntax = raw[start + LENGTH : start + 2 * LENGTH].rstrip(b"\0")
            if IDENTIFIER.fullmatch(instance) and IDENTIFIER.fullmatch(syntax):
                yield instance.decode(), syntax.decode()

    def _content(self) -> bytes:
        """Of a file that may be gone, or another thing by now, without waiting for it."""
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                return os.read(descriptor, SIZE)
            finally:
                os.close(descriptor)
        except OSError:
            return b""


class _Writer:
    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.pwrite(self._file, bytes(SIZE), 0)  # its place on the disk is taken now
        self._free = list(range(SLOTS))
        self._lock = threading.Lock()

    def begin(self, sop_instance_uid: str, transfer_syntax_uid: str) -> Callable[[], None]:
        """Note an instance; gives what takes the note back."""
        with self._lock:
            if not self._free:
                return lambda: None
            slot = self._free.pop()
        both = (sop_instance_uid, transfer_syntax_uid)
        noted = b"".join(
            uid.encode("ascii", "replace")[:LENGTH].ljust(LENGTH, b"\0") for uid in both
        )
        self._write(slot, noted)

        def end() -> None:
            self._write(slot, bytes(2 * LENGTH))
            with self._lock:
                self._free.append(slot)

        return end

    def _write(self, slot: int, noted: bytes) -> None:
        os.pwrite(self._file, noted, slot * 2 * LENGTH)


def _words(instance: str, syntax: str) -> str:
    return f"instance {instance} ({UID(syntax).name}, {syntax})"
