"""A kind named in the configuration is a module file in a package: listed and read, never imported.

A kind may declare literals at its top level (`VERSION`, `SETTINGS`, `REQUIREMENTS`); they are read
from the source, so that a process that only decides never loads what it decides about (a model's
module imports torch). Only `load_kind` imports.
"""

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType


class UnknownKindError(LookupError):
    """No module file of that name; the text lists those that exist."""


def kinds(package: str, *, defining: str | None = None) -> tuple[str, ...]:
    """The kinds in a package, by name; `defining` keeps those whose top level defines that name."""
    files = sorted(_folder(package).glob("*.py"))
    names = [file.stem for file in files if not file.stem.startswith("_")]
    return tuple(name for name in names if not defining or defining in _top_level(package, name))


def constant(package: str, kind: str, name: str) -> object:
    """The value of a top-level literal of a kind, without importing it.

    A call with keyword arguments only, such as `REQUIREMENTS = Requirements(modality="CT")`, gives
    those keywords as a dict. Raises UnknownKindError when there is no such kind, KeyError when it
    does not define the name, ValueError when the value is not a literal.
    """
    return _literal(_top_level(package, kind)[name])


def table(package: str, kind: str, name: str) -> Mapping[str, object]:
    """A top-level dict, or the keywords of a call; empty when the kind does not define the name."""
    if name not in _top_level(package, kind):
        return {}
    value = constant(package, kind, name)
    if not isinstance(value, dict):
        raise TypeError(f"{package}.{kind}: {name} is not a table")
    return value


def defines(package: str, kind: str, name: str) -> bool:
    """Whether the top level of a kind defines the name."""
    return name in _top_level(package, kind)


@cache
def source(package: str, kind: str) -> str:
    """The source of a kind's module."""
    file = _folder(package) / f"{kind}.py"
    if not kind.isidentifier() or kind.startswith("_") or not file.is_file():
        raise UnknownKindError(f"{kind!r} is not one of {', '.join(kinds(package)) or 'none'}")
    return file.read_text(encoding="utf-8")


def load_kind(package: str, kind: str) -> ModuleType:
    """Import the module of a kind."""
    source(package, kind)
    return importlib.import_module(f"{package}.{kind}")


def _folder(package: str) -> Path:
    root, *rest = package.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package {root!r}")
    return Path(spec.submodule_search_locations[0], *rest)


@cache
def _top_level(package: str, kind: str) -> Mapping[str, ast.expr]:
    defined: dict[str, ast.expr] = {}
    for node in ast.parse(source(package, kind)).body:
        defined.update(_definitions(node))
    return defined


def _definitions(node: ast.stmt) -> dict[str, ast.expr]:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return {name: value}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return {name: value}
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name: ast.Name(id=name)}
        case _:
            return {}


def _literal(value: ast.expr) -> object:
    if isinstance(value, ast.Call) and not value.args:
        return {
            word.arg: ast.literal_eval(word.value)
            for word in value.keywords
            if word.arg is not None
        }
    return ast.literal_eval(value)
