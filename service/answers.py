"""What a child sends is an answer or nothing: none of its bytes become code in the worker.

A pickle may name any callable. Here it may name the messages of `service.tasks`, and what comes out
must have the types that those declare.
"""

import dataclasses
import io
import pickle
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from service import tasks
from service.tasks import Analysed, Answer, Failed, Ready, Unreadable

LARGEST = 8 << 30  # bytes of one message
MESSAGES = (Analysed, Unreadable, Failed, Ready)
ALLOWED: Mapping[str, Any] = {
    name: found
    for name, found in vars(tasks).items()
    if isinstance(found, type) and dataclasses.is_dataclass(found)
}


class NoAnswerError(Exception):
    """Bytes that are none of the messages a child sends."""


def read(message: bytes) -> Answer | Ready:
    """The message in these bytes; NoAnswerError for anything else."""
    try:
        found = _Reader(io.BytesIO(message)).load()
    except MemoryError:
        raise
    except Exception as error:  # (whatever an unpickler meets in bytes that are not trusted)
        raise NoAnswerError(type(error).__name__) from error
    if not isinstance(found, MESSAGES) or not is_sound(found, type(found)):
        raise NoAnswerError(type(found).__name__)
    return found


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
        return isinstance(value, tuple) and all(is_sound(one, inside[0]) for one in value)
    if origin is not None:
        return isinstance(value, dict) and all(
            is_sound(key, inside[0]) and is_sound(one, inside[1]) for key, one in value.items()
        )
    if dataclasses.is_dataclass(declared):
        hints = get_type_hints(declared)
        return isinstance(value, declared) and all(  # type: ignore[arg-type]
            is_sound(getattr(value, name, None), hint) for name, hint in hints.items()
        )
    if declared is float:
        return isinstance(value, float | int)
    return isinstance(value, declared)
