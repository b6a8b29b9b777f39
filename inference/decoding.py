"""Whoever watches knows which instance is being decoded: a decoder may end its process.

Decoders of compressed pixels are libraries in C++. On damaged data some of them abort; then nobody
in this process can say any more what it was at.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset

from inference.attributes import text

End = Callable[[], None]
Watch = Callable[[str, str], End]
"""Told SOP Instance UID and Transfer Syntax UID; gives what to call when that is decoded."""


def _unwatched(sop_instance_uid: str, transfer_syntax_uid: str) -> End:
    del sop_instance_uid, transfer_syntax_uid
    return lambda: None


_watch: Watch = _unwatched


def watch(told: Watch) -> None:
    """From now on, for the whole process, tell `told`."""
    global _watch  # noqa: PLW0603  (set once, when the process starts, as a log is)
    _watch = told


@contextmanager
def announced(dataset: Dataset) -> Iterator[None]:
    """While it lasts, pixels of this instance are being decoded."""
    meta = getattr(dataset, "file_meta", None)
    syntax = "" if meta is None else text(meta, "TransferSyntaxUID") or ""
    end = _watch(text(dataset, "SOPInstanceUID") or "", syntax)
    try:
        yield
    finally:
        end()
