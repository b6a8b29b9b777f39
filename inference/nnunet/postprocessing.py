"""What nnU-Net found to help after segmenting: keeping the largest component of some labels.

`determine_postprocessing` writes it as postprocessing.pkl and postprocessing.json, which say the
same. Of the pickle only lists of the one function's name and of whole numbers are understood, as
values: nothing that it names is imported or called.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from inference.errors import ModelRefused
from inference.nnunet.documents import document
from inference.nnunet.labels import Labels

LARGEST = "remove_all_but_largest_component_from_segmentation"
MODULE = "nnunetv2.postprocessing.remove_connected_components"
LONGEST = 1 << 16  # bytes of a pickle; of a hundred labels it has 10 KB
MOST_LABELS = 10_000
KNOWN = {"labels_or_regions", "background_label"}
OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "BINGET", "EMPTY_LIST", "EMPTY_DICT",
    "EMPTY_TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINUNICODE",
    "SHORT_BINUNICODE", "SHORT_BINBYTES", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip
WHOLE_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Of everything that has one of `values`, what is not the largest becomes `background`."""

    values: tuple[int, ...]
    background: int = 0


def parse(content: bytes, name: str) -> tuple[Step, ...]:
    """The steps in a file of either kind; raises ModelRefused for anything else."""
    if name.endswith(".json"):
        raw = document(content, name)
        functions, arguments = raw.get("postprocessing_fns"), raw.get("postprocessing_kwargs")
    else:
        functions, arguments = _unpickled(content, name)
    try:
        return tuple(_steps(functions, arguments))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        words = f"{name}: not a postprocessing of nnU-Net v2: {type(error).__name__}: {error}"
        raise ModelRefused(words) from error


def _steps(functions: Any, arguments: Any) -> Iterator[Step]:
    for function, given in zip(functions, arguments, strict=True):
        if not isinstance(function, str):
            raise TypeError(f"{type(function).__name__} instead of a function's name")
        if function != LARGEST:
            raise ValueError(f"{function} is not known")
        unknown = given.keys() - KNOWN
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is not known")
        yield Step(
            values=tuple(sorted(_flat(given["labels_or_regions"]))),
            background=_number(given.get("background_label", 0)),
        )


def _flat(given: Any) -> set[int]:
    """A label, or the labels of regions: what is looked at is the union of all."""
    waiting, seen, found = [given], 0, set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple):
            seen += 1 + len(one)
            if seen > MOST_LABELS:
                raise ValueError(f"more than {MOST_LABELS} labels")
            waiting.extend(one)
        else:
            found.add(_number(one))
    return found


def _number(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{type(given).__name__} instead of a label")
    return given


def _unpickled(content: bytes, name: str) -> tuple[Any, Any]:
    try:
        _refuse_odd_opcodes(content)
        functions, arguments = _Plain(io.BytesIO(content)).load()
    except MemoryError:
        raise
    except Exception as error:  # (whatever an unpickler meets in bytes that are not trusted)
        words = f"{name}: not a postprocessing of nnU-Net v2: {type(error).__name__}: {error}"
        raise ModelRefused(words) from error
    return functions, arguments


def _refuse_odd_opcodes(content: bytes) -> None:
    if len(content) > LONGEST:
        raise ValueError("too long")
    for opcode, _, _ in pickletools.genops(content):
        if opcode.name not in OPCODES:
            raise ValueError(f"the pickle's {opcode.name}")


class _Plain(pickle.Unpickler):
    """Names stand for values of ours: a string, and what makes whole numbers of bytes."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case (str(place), str(function)) if (place, function) == (MODULE, LARGEST):
                return LARGEST
            case "numpy", "dtype":
                return _Kind
            case "numpy._core.multiarray" | "numpy.core.multiarray", "scalar":
                return _scalar
            case _:
                raise ValueError(f"{module}.{name}")


class _Kind:
    """A type of whole numbers, little-endian."""

    def __init__(self, name: object, *_: object) -> None:
        if not isinstance(name, str) or name not in WHOLE_NUMBERS:
            raise ValueError("numbers of another type")
        self.signed = str(name).startswith("i")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """What numpy keeps beside the name: the order of bytes counts here."""
        if state[1] not in ("<", "|"):
            raise ValueError("numbers whose bytes are in another order")


def _scalar(kind: _Kind, content: bytes) -> int:
    return int.from_bytes(content, "little", signed=kind.signed)


def refuse_other_labels(steps: Sequence[Step], labels: Labels, name: str) -> None:
    """Raise ModelRefused for labels that the model does not have."""
    for step in steps:
        odd = {*step.values, step.background} - {*labels.values}
        if odd:
            raise ModelRefused(f"{name}: the model has no label {min(odd)}")


def applied(labelled: NDArray[np.int16], steps: Sequence[Step]) -> NDArray[np.int16]:
    """The label map after all steps; voxels touch also by edges and corners.

    Of several largest components all stay. As `remove_all_but_largest_component_from_segmentation`.
    """
    for step in steps:
        labelled = _largest_alone(labelled, step)
    return labelled


def _largest_alone(labelled: NDArray[np.int16], step: Step) -> NDArray[np.int16]:
    mask = np.isin(labelled, step.values)
    boxes = ndimage.find_objects(mask.view(np.int8))
    if not boxes:
        return labelled
    box = boxes[0]
    parts, count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    lost = mask[box] & (sizes != sizes.max())[parts]
    found = labelled.copy()
    found[box][lost] = step.background
    return found
