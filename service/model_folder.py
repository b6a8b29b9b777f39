"""What a model is made of: its plain files, each by its path inside and its SHA-256, within bounds.

Hidden files and Python's caches (`__pycache__`) are no part of it: they are not pinned, and what
runs models cannot open them. Nothing here waits for a pipe, follows a link out of the folder, or
reads without end.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_ISREG

DEEPEST = 32  # folders inside one another
MOST_FILES = 10_000
MOST_ENTRIES = 100_000  # that are looked at, hidden ones and folders among them
MOST_BYTES = 32 << 30  # of all files together
CACHE = "__pycache__"
CHUNK = 1 << 20


class OutOfReachError(Exception):
    """A file that took the place of another after this process was confined; the text names it."""


class NoModelError(Exception):
    """A folder or file that is too much to be a model, or cannot be read; the text says what."""


def files(model: Path) -> dict[str, Path | None]:
    """Every file of a model by its path inside; hidden files and caches are none.

    None in place of what is never read: a link out of the folder, what is no plain file, what lies
    too deep. Raises NoModelError for more than MOST_FILES or MOST_ENTRIES.
    """
    if not model.is_dir():
        return {model.name: model if _is_plain(model) else None}
    found: dict[str, Path | None] = {}
    for name, path in _inside(model):
        found[name] = path
        if len(found) > MOST_FILES:
            raise NoModelError(f"has more than {MOST_FILES} files")
    return dict(sorted(found.items()))


def digests(model: Path) -> dict[str, str]:
    """SHA-256 of every file of a model, by its path inside; "" of what is never read.

    Raises NoModelError for what `files` does, for more than MOST_BYTES, before any is read, and
    for a file that cannot be read or has more in it than its size; OutOfReachError in a confined
    process.
    """
    found = files(model)
    _refuse_too_large(found)
    return {name: "" if path is None else _sha256(name, path) for name, path in found.items()}


def check(model: Path) -> None:
    """Raise NoModelError unless a folder or file is a model's: plain files within the bounds.

    Their names are in UTF-8.
    """
    found = files(model)
    strange = next((name for name, path in found.items() if path is None), None)
    if strange is not None:
        what = "is a link out of the model's folder, no plain file, or too deep in it"
        raise NoModelError(f"{strange!r} {what}")
    unwritable = next((name for name in found if _is_bytes(name)), None)
    if unwritable is not None:
        raise NoModelError(f"{unwritable!r} is no name in UTF-8")
    _refuse_too_large(found)


def _is_bytes(name: str) -> bool:
    """Whether a name is no text: no sidecar could pin it."""
    return any("\ud800" <= one <= "\udfff" for one in name)


def names(model: Path) -> frozenset[str]:
    """The paths inside of all that `digests` is of, unread."""
    return frozenset(files(model))


def pinned(model: Path, expected: Mapping[str, str]) -> Iterator[Path]:
    """The resolved places of the files with these names that lie inside the model and are plain.

    They hold for this moment: whoever opens one later follows no link (`landlock.restrict`).
    """
    root = _resolved(model)
    for name in expected:
        place = _within(model / name if model.is_dir() else model, root)
        if place is not None and _is_plain(place):
            yield place


def _inside(model: Path) -> Iterator[tuple[str, Path | None]]:
    root = _resolved(model)
    waiting, looked_at = [model], 0
    while waiting:
        for path in _listed(waiting.pop(), model):
            looked_at += 1
            if looked_at > MOST_ENTRIES:
                raise NoModelError(f"has more than {MOST_ENTRIES} files and folders")
            steps = path.relative_to(model).parts
            if path.name.startswith(".") or path.name == CACHE:
                continue
            if path.is_dir() and not path.is_symlink():
                if len(steps) > DEEPEST:
                    yield "/".join(steps[:DEEPEST]), None
                else:
                    waiting.append(path)
            elif not path.is_symlink():
                yield "/".join(steps), path if _is_plain(path) else None
            elif not _is_folder(place := _within(path, root)):
                yield "/".join(steps), path if place is not None and _is_plain(place) else None


def _listed(folder: Path, model: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as error:
        name = str(folder.relative_to(model))
        raise NoModelError(f"{name!r} cannot be read: {error.strerror}") from error


def _is_folder(place: Path | None) -> bool:
    """Where a link leads to a folder of the model, whose files have their own names."""
    return place is not None and place.is_dir()


def _within(path: Path, root: Path | None) -> Path | None:
    """Where a path leads, None when that is not inside the model."""
    place = _resolved(path)
    if place is None or root is None:
        return None
    return place if place.is_relative_to(root) else None


def _resolved(path: Path) -> Path | None:
    """Where a path leads; None of a link that leads nowhere, or in circles."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: circles, before Python 3.13
        return None


def _is_plain(path: Path) -> bool:
    try:
        return S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _refuse_too_large(found: Mapping[str, Path | None]) -> None:
    sizes = {name: path.stat().st_size for name, path in found.items() if path is not None}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise NoModelError(
            f"is of {total / 2**30:,.0f} GiB, {largest!r} the largest file; "
            f"at most {MOST_BYTES >> 30} GiB are read"
        )


def _sha256(name: str, path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _digest(name, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if isinstance(error, PermissionError) and os.access(path, os.R_OK):
            raise OutOfReachError(name) from error  # (access(2) asks no Landlock)
        raise NoModelError(f"{name!r} cannot be read: {error.strerror}") from error


def _digest(name: str, descriptor: int) -> str:
    """Of as many bytes as the file says that it has; NoModelError when there are more."""
    status = os.fstat(descriptor)
    if not S_ISREG(status.st_mode):
        raise NoModelError(f"{name!r} is no plain file")
    made, left = hashlib.sha256(), status.st_size
    while left >= 0:
        chunk = os.read(descriptor, min(CHUNK, left + 1))
        if not chunk:
            return made.hexdigest()
        left -= len(chunk)
        made.update(chunk)
    raise NoModelError(f"{name!r} has more in it than its size of {status.st_size:,} bytes")
