"""Every failure has one DIMSE status, from one table; Success is left when nothing was raised.

Refusal                the input is at fault: its bytes are quarantined
├── DoesNotMatch       0xA900: not the object that the command names (PS3.4 Table B.2-1)
├── CannotUnderstand   0xC000: not a data set, or without what identifies it (same table)
├── InvalidInstance    0x0117: the command has no valid SOP Instance UID (PS3.7 Annex C)
└── ClassNotSupported  0x0122: the SOP class of the command is not stored here (PS3.7 Annex C)
OutOfSpace             0xA700: refused, out of resources (PS3.4 Table B.2-1)
anything else          0x0110: processing failure (PS3.7 Annex C)
"""

from dataclasses import dataclass

from storage.errors import CatalogueUnavailable, OutOfSpace

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
LONGEST_COMMENT = 64  # characters of Error Comment (0000,0902)


class Refusal(Exception):  # noqa: N818  (a refusal with its reason, the standard's word)
    """An object is refused for what it is; `str(error)` is the reason, without its values."""


class DoesNotMatch(Refusal):
    """The data set and the command name different objects."""


class CannotUnderstand(Refusal):
    """The data set cannot be read, or lacks what identifies it."""


class InvalidInstance(Refusal):
    """The command names no instance."""


class ClassNotSupported(Refusal):
    """The command names a SOP class that is not stored here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a C-STORE response says. `comment`: empty, or why, for the log of the peer."""

    status: int
    comment: str = ""

    @property
    def success(self) -> bool:
        """Whether the peer may forget the object."""
        return self.status == SUCCESS


_TABLE: tuple[tuple[type[Exception], int, str], ...] = (
    (DoesNotMatch, 0xA900, ""),
    (CannotUnderstand, 0xC000, ""),
    (InvalidInstance, 0x0117, ""),
    (ClassNotSupported, 0x0122, ""),
    (OutOfSpace, 0xA700, "no room: below the free space that is kept"),
    (CatalogueUnavailable, PROCESSING_FAILURE, "the catalogue does not answer, try again"),
)


def answer(problem: Exception | None) -> Answer:
    """The response for `problem`; Success for None. Texts of foreign exceptions stay here."""
    if problem is None:
        return Answer(SUCCESS)
    for kind, status, comment in _TABLE:
        if isinstance(problem, kind):
            return Answer(status, (comment or str(problem))[:LONGEST_COMMENT])
    return Answer(PROCESSING_FAILURE, "processing failure, see the log of the node")
