"""What a child sends is the answer to its question or nothing: none of it is code in the worker.

Before each answer stands the token that came with the question: what was said ahead of it, or in
addition, has another one.
A pickle may name any callable, and a few bytes of one may take any memory or nest until the
interpreter dies. Here it has no more than messages need: it may name those of `service.tasks`, has
so many opcodes of the kinds that write plain values, and what comes out must have the types that
those declare.
"""

import dataclasses
import io
import pickle
import pickletools
import re
import secrets
import types
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any, Union, get_args, get_origin, get_type_hints

from service import tasks
from service.tasks import (
    Analysed,
    Answer,
    Failed,
    FeatureVector,
    Ready,
    ResultObject,
    Unreadable,
)
from storage.records import Verdict

LARGEST = 8 << 30  # bytes of one message
TOKEN = 16  # bytes
MOST_PARTS = 10_000  # of one kind in a message
LONGEST = 2_000  # characters of a reason
MOST_BYTES = 1 << 62
MOST_SECONDS = 1e9
MOST_OPCODES = 1_000_000  # of a message with as many parts as there may be
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
OPCODES = {
    *TUPLES, "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET", "EMPTY_TUPLE",
    "EMPTY_LIST", "EMPTY_DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "NONE", "NEWTRUE",
    "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE",
    "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "STACK_GLOBAL", "NEWOBJ", "BUILD",
}  # fmt: skip
FLOAT = 4  # bytes of a number of a feature vector
UID = re.compile(r"[0-9.]{1,64}")
SHORT = re.compile(r"[ -~]{1,64}")
MESSAGES = (Analysed, Unreadable, Failed, Ready)
ALLOWED: Mapping[str, Any] = {
    name: found
    for name, found in vars(tasks).items()
    if isinstance(found, type) and dataclasses.is_dataclass(found)
}


class NoAnswerError(Exception):
    """Bytes that are none of the messages a child sends."""


class UnaskedError(NoAnswerError):
    """Bytes that begin with another token than that of the question."""


def new_token() -> bytes:
    """What nobody can know who was not told."""
    return secrets.token_bytes(TOKEN)


def written(answer: Answer | Ready, token: bytes) -> memoryview:
    """The bytes that `read` takes for this answer, of the question that had this token."""
    message = io.BytesIO()
    message.write(token)
    pickle.dump(answer, message)
    return message.getbuffer()


def read(message: bytes, token: bytes) -> Answer | Ready:
    """The answer in these bytes to the question that had this token; NoAnswerError else."""
    opened = io.BytesIO(message)
    if not secrets.compare_digest(opened.read(TOKEN), token):
        raise UnaskedError
    try:
        _refuse_excess(opened)
        opened.seek(TOKEN)
        found = _Reader(opened).load()
    except MemoryError:
        raise
    except Exception as error:  # (whatever an unpickler meets in bytes that are not trusted)
        raise NoAnswerError(type(error).__name__) from error
    if not isinstance(found, MESSAGES) or not is_sound(found, type(found)):
        raise NoAnswerError(type(found).__name__)
    if isinstance(found, Analysed) and not _is_possible(found):
        raise NoAnswerError("values that no analysis has")
    return _told(found)


def _refuse_excess(message: IO[bytes]) -> None:
    """Raise ValueError for more than a message has; nothing of it is made.

    What has a table has one message around it and no tuples: a key could be nothing but text, and
    hashing what has itself inside many times would never end, or end the process.
    """
    found: Counter[str] = Counter()
    for count, (opcode, _, _) in enumerate(pickletools.genops(message)):
        if opcode.name not in OPCODES or count > MOST_OPCODES:
            raise ValueError(opcode.name)
        found[opcode.name] += 1
    tuples = sum(found[name] for name in TUPLES)
    if found["EMPTY_DICT"] and (tuples or found["NEWOBJ"] > 1):
        raise ValueError("a key that is no text")


def _is_possible(answer: Analysed) -> bool:
    """Whether the values can be recorded: identifiers, numbers and names within their bounds."""
    seconds = dataclasses.astuple(answer.durations)
    computed = answer.computed
    made = [(one.kind, *_identifiers(one)) for one in answer.objects]
    return (
        answer.verdict in set(Verdict)
        and all(SHORT.fullmatch(kind) and all(map(UID.fullmatch, uids)) for kind, *uids in made)
        and all(one is None or 0 <= one < MOST_SECONDS for one in seconds)
        and 0 <= (computed.peak_bytes or 0) < MOST_BYTES
        and all(
            one is None or SHORT.fullmatch(one) for one in (computed.device, computed.arithmetic)
        )
        and all(map(_is_vector, answer.vectors))
    )


def _identifiers(made: ResultObject) -> tuple[str, str, str]:
    return made.sop_class_uid, made.sop_instance_uid, made.series_instance_uid


def _is_vector(vector: FeatureVector) -> bool:
    named = SHORT.fullmatch(vector.kind) and SHORT.fullmatch(vector.version)
    return bool(named) and len(vector.data) == FLOAT * vector.dimensions > 0


def _told(found: Answer | Ready) -> Answer | Ready:
    """The same, its words fit for a log, a terminal and a database."""
    if isinstance(found, Ready):
        listed = {name: _words(reason) for name, reason in found.unavailable.items()}
        return dataclasses.replace(found, unavailable=listed)
    if found.reason is None:
        return found
    return dataclasses.replace(found, reason=_words(found.reason))


def _words(text: str) -> str:
    cut = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return "".join(one if one.isprintable() else " " for one in cut)


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == tasks.__name__ and name in ALLOWED:
            return ALLOWED[name]
        refused = "names something that is no message"
        raise pickle.UnpicklingError(refused)


def is_sound(value: object, declared: Any) -> bool:
    """Whether a value, and all that is in it, is of the type that was declared."""
    if declared is Any:
        return True
    origin, inside = get_origin(declared), get_args(declared)
    if origin in (Union, types.UnionType):
        return any(is_sound(value, one) for one in inside)
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) <= MOST_PARTS
            and all(is_sound(one, inside[0]) for one in value)
        )
    if origin is not None:
        return (
            isinstance(value, dict)
            and len(value) <= MOST_PARTS
            and all(is_sound(k, inside[0]) and is_sound(one, inside[1]) for k, one in value.items())
        )
    if dataclasses.is_dataclass(declared):
        hints = get_type_hints(declared)
        return isinstance(value, declared) and all(  # type: ignore[arg-type]
            is_sound(getattr(value, name, None), hint) for name, hint in hints.items()
        )
    if declared is float:
        return isinstance(value, float | int)
    return isinstance(value, declared)
