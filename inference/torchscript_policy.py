"""A TorchScript file computes and does nothing else, or it is refused before any of it runs.

Loading runs code already: `__setstate__` of a class in the archive. So the code is read as text
first, from the records that torch itself would read, and only then loaded, for a second look at the
graphs that would run, with every call put in. Allowed are operators on tensors, lists and text;
refused are files (`aten::save`, `aten::from_file`), calls into Python, remote calls, objects of C++
classes, and operators of other namespaces. Quantised networks need `__setstate__`, hence trust.
"""

import ast
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from inference.errors import ModelRefused

NAMESPACES = ("aten", "prim", "torchvision")
DENIED = re.compile(
    r"aten::(save|from_file|_from_file|set_|set_data|record_stream|sparse_resize.*|_unsafe_index.*"
    r"|_unsafe_masked.*|_nested_view_from_.*|to_here|local_value|owner|owner_name|is_owner"
    r"|confirmed_by_owner)"
    r"|prim::(Python.*|IgnoredPythonOp|rpc_.*|Call.*|.*FusionGroup.*|TensorExpr.*|Static.*"
    r"|Fallback.*|Bail[oO]ut.*|DifferentiableGraph|ConstantMKLDNNTensor)"
)
"""Operators that touch files, processes or raw memory, or run what cannot be seen here."""
RUNS_ON_LOADING = re.compile(rb"__(set|get)state__")
CPP_CLASSES = re.compile(rb"torch\.classes|__torch__\.torch\.classes")
CODE = re.compile(r"code/.*\.py", re.IGNORECASE)  # as torch's reader finds records
OF_PROGRAMS = ("constants.pkl", "model.json")  # one of which torch.jit.load must find
ARCHIVE = b"PK\x03\x04"  # bytes that begin otherwise torch may read as another format
ALLOW = (
    "an administrator may allow it: hounsfield models CONFIG --trust NAME, then "
    'trust = "trusted" in [[models]]'
)


def check(content: bytes) -> None:
    """Raise ModelRefused unless loading and running a TorchScript file does nothing but compute."""
    found = violations(content)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise ModelRefused(f"the strict policy refuses TorchScript: {found[0]}{more}; {ALLOW}")


def is_program(content: bytes) -> bool:
    """Whether torch would find a program in a file, by its own reader: others read other archives.

    A file with what every program has, and without code, is one too: it may be of an old format.
    """
    try:
        reader: Any = torch._C.PyTorchFileReader(io.BytesIO(content))  # noqa: SLF001  (no public one)
    except (RuntimeError, ValueError):  # no archive; ValueError: looked for before its first byte
        return False
    try:
        records = [name.lower() for name in reader.get_all_records()]
    except RuntimeError:
        return False
    return any(name in OF_PROGRAMS or CODE.fullmatch(name) for name in records)


def violations(content: bytes) -> tuple[str, ...]:
    """What a TorchScript file would do beside computing, in words; nothing of it is run."""
    try:
        in_text = tuple(dict.fromkeys(_in_text(content)))
        return in_text or tuple(dict.fromkeys(_in_graphs(content)))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever torch's reader meets in such bytes)
        return (f"it cannot be read as TorchScript: {type(error).__name__}",)


def _in_text(content: bytes) -> Iterator[str]:
    if not content.startswith(ARCHIVE):
        yield "it is no archive from its first byte on"
    reader: Any = torch._C.PyTorchFileReader(io.BytesIO(content))  # noqa: SLF001  (no public one)
    records = reader.get_all_records()
    code = [name for name in records if CODE.fullmatch(name)]
    if len({name.lower() for name in records}) != len(records):
        yield "it has several records of one name"
    if not code or "data.pkl" not in records:
        yield "it has no code, or is of a format before torch 1.4"
    for name in records:
        if name in code or name.lower().endswith(".pkl"):
            yield from _in_record(name, reader.get_record(name))
    for name in code:
        yield from _in_code(name, reader.get_record(name))


def _in_record(name: str, record: bytes) -> Iterator[str]:
    if RUNS_ON_LOADING.search(record):
        yield f"{name} runs code while it is loaded (__setstate__)"
    if CPP_CLASSES.search(record):
        yield f"{name} has objects of C++ classes (torch.classes)"


def _in_code(name: str, record: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(record.decode())
    except (SyntaxError, ValueError, RecursionError):
        yield f"{name} calls into Python, or cannot be read"
        return
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            operator = _operator(ast.unparse(node), called=id(node) in called)
            if operator is not None and _is_refused(operator):
                yield f"{name} calls {operator}"


def _operator(path: str, *, called: bool) -> str | None:
    """The operator that a path in TorchScript's text stands for, None when it is none.

    A value has the operators too: `x.save(...)` is `torch.save(x, ...)`.
    """
    match path.split("."):
        case ["torch", name]:
            return f"aten::{name}"
        case ["ops", namespace, name]:
            return f"{namespace}::{name}"
        case [*_, name] if called:
            return f"aten::{name}"
    return None


def _in_graphs(content: bytes) -> Iterator[str]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch 2.13
        loaded = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
    script = loaded._c  # noqa: SLF001  (graphs of all methods: no public way)
    for name in script._method_names():  # noqa: SLF001
        graph = script._get_method(name).graph.copy()  # noqa: SLF001
        torch._C._jit_pass_inline(graph)  # noqa: SLF001
        for operator in _operators(graph):
            if _is_refused(operator):
                yield f"{name} runs {operator}"


def _operators(block: Any) -> Iterator[str]:
    for node in block.nodes():
        yield node.kind()
        for inner in node.blocks():
            yield from _operators(inner)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _operators(node.g(name))


def _is_refused(operator: str) -> bool:
    namespace = operator.partition("::")[0]
    return namespace not in NAMESPACES or DENIED.fullmatch(operator) is not None
