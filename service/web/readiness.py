"""Ready means that the catalogue answers and the disk takes objects; a check says why not."""

from collections.abc import Callable, Mapping

from service import log
from storage.errors import StorageError

Check = Callable[[], str | None]
"""Gives the reason why the node is not ready, or None."""


def catalogue(count: Callable[[], object]) -> Check:
    """Ready when `count`, a cheap question to the catalogue, is answered."""

    def check() -> str | None:
        try:
            count()
        except StorageError as error:  # its text may name hosts: it goes to the log
            log.failure("failure", error, detail="the catalogue does not answer")
            return "the catalogue does not answer"
        return None

    return check


def disk(free_bytes: Callable[[], int], *, minimum: int) -> Check:
    """Ready when at least `minimum` bytes are free: below it C-STORE is refused."""

    def check() -> str | None:
        free = free_bytes()
        if free >= minimum:
            return None
        return f"{free / 2**30:.1f} GiB are free of the {minimum / 2**30:g} GiB that are kept free"

    return check


def failing(checks: Mapping[str, Check]) -> dict[str, str]:
    """Name of a check -> why it fails, for those that fail."""
    found = {name: check() for name, check in checks.items()}
    return {name: reason for name, reason in found.items() if reason is not None}
