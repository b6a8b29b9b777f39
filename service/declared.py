"""The keys that a kind declares in its `class Settings`, read without importing its module.

A kind (a destination, a model, a trigger) states its own configuration keys as the fields of a
frozen dataclass `Settings`: the annotation gives the type, a default makes the key optional, the
comment behind it says what it means. The name of a field narrows its type: `port`, `host`,
`ae_title`, `..._seconds`, and `password` or `token`, whose values are never shown. A field whose
type is another class of the same module is a table.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, create_model

from service.validation import (
    AETitle,
    Allowed,
    Folder,
    Hidden,
    Host,
    Number,
    Port,
    Seconds,
    Section,
    Switch,
    Text,
    Whole,
)

T = TypeVar("T")

PLAIN: dict[str, Any] = {
    "str": Text,
    "int": Whole,
    "float": Number,
    "bool": Switch,
    "Path": Folder,
    "tuple[str, ...]": Annotated[tuple[Text, ...], Allowed("a list of texts")],
}
NARROWED: dict[tuple[str, str], Any] = {
    ("str", "ae_title"): AETitle,
    ("str", "host"): Host,
    ("int", "port"): Port,
    ("float", "seconds"): Seconds,
    ("str", "password"): Hidden,
    ("str", "token"): Hidden,
}
"""(type, the name or its last words) -> the narrower type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    """The source of a kind's module and its classes by name."""

    lines: tuple[str, ...]
    classes: Mapping[str, ast.ClassDef]


def section(base: type[Section], source: str) -> type[Section]:
    """`base` with the keys of `class Settings` in a module's source; `base` when it has none."""
    tree = ast.parse(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    module = _Module(lines=tuple(source.splitlines()), classes=classes)
    return _extended(base, "Settings", module) if "Settings" in classes else base


def settings(cls: type[T], values: Mapping[str, object]) -> T:
    """The `Settings` of an imported kind from validated values; its `__post_init__` may refuse."""
    return TypeAdapter(cls).validate_python(dict(values))


def _extended(base: type[Section], name: str, module: _Module) -> type[Section]:
    own: dict[str, Any] = dict(_fields(module.classes[name], module))
    return create_model(name, __base__=base, **own)


def _fields(node: ast.ClassDef, module: _Module) -> Iterator[tuple[str, Any]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            type_ = _type(statement.annotation, name, module)
            about = _comment(module.lines[(statement.end_lineno or statement.lineno) - 1])
            if statement.value is None:
                yield name, (type_, Field(description=about))
            else:
                default = ast.literal_eval(statement.value)
                yield name, (type_, Field(default, description=about))


def _type(annotation: ast.expr, name: str, module: _Module) -> Any:
    match annotation:
        case ast.BinOp(left=inner, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _optional(_type(inner, name, module))
        case ast.Name(id=other) if other in module.classes:
            return Annotated[_extended(Section, other, module), Allowed("a table")]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return _choice(ast.literal_eval(choices))
        case _:
            return _plain(ast.unparse(annotation), name)


def _plain(type_: str, name: str) -> Any:
    last = name.rsplit("_", maxsplit=1)[-1]
    for (narrowed, word), narrow in NARROWED.items():
        if narrowed == type_ and word in (name, last, "_".join(name.split("_")[-2:])):
            return narrow
    if type_ not in PLAIN:
        raise TypeError(f"a setting of type {type_} is not known: {name}")
    return PLAIN[type_]


def _optional(type_: Any) -> Any:
    notes = getattr(type_, "__metadata__", ())
    return Annotated[type_ | None, *[note for note in notes if isinstance(note, Allowed)]]


def _choice(choices: object) -> Any:
    values = choices if isinstance(choices, tuple) else (choices,)
    return Annotated[Literal[values], Allowed(", ".join(map(str, values)))]


def _comment(line: str) -> str:
    return line.partition("  # ")[2].strip()


def plain_values(values: Section, keys: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Those keys of a validated section as plain values, relative paths under `folder`."""
    return {key: _plain_value(getattr(values, key), folder) for key in keys}


def _plain_value(value: object, folder: Path) -> object:
    if isinstance(value, Path):
        return str(folder / value)
    if isinstance(value, Section):
        return plain_values(value, type(value).model_fields, folder)
    return value
