"""What can go wrong with bytes and facts: one family, so that the service translates each once.

StorageError
├── OutOfSpace             the disk, a quota or the database is full: later, after space was made
├── CatalogueUnavailable   the database does not answer: may be tried again
├── CatalogueTooNew        the database was written by a newer version of this program
└── MissingBytes           the catalogue names bytes that are not in the store
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class StorageError(Exception):
    """Base of all errors of this package."""


class OutOfSpace(StorageError):  # noqa: N818  (DIMSE status 0xA700 says it with these words)
    """No space left for bytes or rows; nothing of the object was kept."""


class CatalogueUnavailable(StorageError):  # noqa: N818  (a state of the peer, not a fault of ours)
    """The database cannot be reached, is locked for too long or broke the connection."""


class CatalogueTooNew(StorageError):  # noqa: N818  (same)
    """The schema of the database is not known to this version."""


class MissingBytes(StorageError):  # noqa: N818  (same)
    """A key names no bytes."""


@contextmanager
def file_errors(doing: str) -> Iterator[None]:
    """Translates an OSError of the wrapped file work: ENOSPC and EDQUOT to OutOfSpace, others to
    StorageError.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingBytes(f"{doing}: {error.strerror}") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        kind = OutOfSpace if full else StorageError
        raise kind(f"{doing}: {error.strerror}") from error
