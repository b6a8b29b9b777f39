"""A `$` expression of a bundle does nothing but compute from what it is given, or is refused.

Every name and attribute that it loads is in the vocabulary, so whatever it calls is, too.
"""

import ast
from collections.abc import Container, Iterator, Mapping

from inference.bundles import vocabulary

REFERENCES = "__local_refs"
"""What MONAI's resolver calls the values of `@` references in the text that it evaluates."""
LONGEST = 10_000  # characters
LARGEST_POWER = 16
MOST_ARGUMENTS = 1_000

NODES = (
    ast.Expression, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.Slice, ast.Starred,
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension,
    ast.Lambda, ast.arguments, ast.arg, ast.JoinedStr, ast.FormattedValue,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
    ast.Name, ast.Attribute, ast.Subscript,
)  # fmt: skip
"""What an expression may be made of; names, attributes and subscripts are looked at one by one."""


def imported(text: str) -> tuple[dict[str, str], str | None] | None:
    """What an import statement binds (name -> path), and why it may not; None: it is none.

    `text`: an expression without its `$`. MONAI runs the first statement if it is an import.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not statements or not isinstance(statements[0], ast.Import | ast.ImportFrom):
        return None
    bound = _bound(statements[0])
    if len(statements) > 1 or len(bound) != 1:
        return bound, "is more than one import"
    path = next(iter(bound.values()))
    top = path.partition(".")[0]
    if top not in vocabulary.IMPORTABLE:
        return bound, f"imports {top or 'the bundle itself'}, which is code beside the policy"
    if any(part.startswith("_") for part in (*path.split("."), *bound)):
        return bound, "imports something private"
    if (
        isinstance(statements[0], ast.Import)
        and path != top
        and top not in ("monai", "torch", "os")
    ):
        return bound, f"imports {path}, a part of a package"
    return bound, None


def _bound(statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name: alias.name for alias in statement.names}
    package = statement.module if statement.module and not statement.level else ""
    return {alias.asname or alias.name: f"{package}.{alias.name}" for alias in statement.names}


def refused(text: str, names: Mapping[str, str], references: Container[str]) -> str | None:
    """Why an expression may not be evaluated, in words; None when it may.

    `text`: as it is evaluated, references put in; `names`: what names of modules stand for;
    `references`: ids of the items that it refers to, which are looked at themselves.
    """
    if len(text) > LONGEST:
        return f"is longer than {LONGEST} characters"
    try:
        tree = ast.parse(text.lstrip(" \t"), mode="eval")
        return next(_Reader(tree, names, references).faults(tree), None)
    except (SyntaxError, ValueError) as error:
        return f"is no expression: {type(error).__name__}"
    except (RecursionError, MemoryError):
        return "is nested too deeply"


class _Reader:
    """Looks at every node of one expression."""

    def __init__(self, tree: ast.AST, names: Mapping[str, str], references: Container[str]) -> None:
        self._names = names
        self._references = references
        self._local = frozenset(_binds(tree))
        self._called = {id(one.func) for one in ast.walk(tree) if isinstance(one, ast.Call)}

    def faults(self, node: ast.AST) -> Iterator[str]:
        """What is wrong below a node, in words."""
        if not isinstance(node, NODES):
            yield f"has a {type(node).__name__}, which no expression may have"
            return
        match node:
            case ast.Name():
                yield from self._name(node)
            case ast.Attribute():
                yield from self._attribute(node)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as to)) if (
                name == REFERENCES and to in self._references
            ):
                return
            case ast.arg():
                yield from self._binding(node.arg)
            case ast.keyword():
                yield from self._keyword(node)
            case ast.Call():
                yield from self._call(node)
                yield from self._below(node)
            case ast.BinOp(op=ast.Pow()):
                yield from _power(node)
                yield from self._below(node)
            case _:
                yield from self._below(node)

    def _below(self, node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            yield from self.faults(child)

    def _name(self, node: ast.Name) -> Iterator[str]:
        name = node.id
        if name in self._local:
            yield from self._binding(name)
        elif name in self._names:
            yield from self._path(self._names[name], node)
        elif name not in vocabulary.BUILTINS:
            yield f"uses {name!r}, which is not in the vocabulary of the strict policy"

    def _binding(self, name: str) -> Iterator[str]:
        if name.startswith("_") or name in self._names or name in vocabulary.BUILTINS:
            yield f"gives {name!r} another meaning"

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        path = self._dotted(node)
        if path is not None:
            yield from self._path(path, node)
        elif node.attr.startswith("_"):
            yield f"reaches for the private {node.attr!r}"
        elif node.attr not in vocabulary.ATTRIBUTES:
            yield f"reaches for {node.attr!r}, which is not in the vocabulary of the strict policy"
        else:
            yield from self.faults(node.value)

    def _path(self, path: str, node: ast.expr) -> Iterator[str]:
        reason = vocabulary.refused_path(path)
        if reason is None and id(node) not in self._called and vocabulary.switches(path):
            reason = "may only be called"
        if reason is not None:
            yield f"uses {ast.unparse(node)!r}, which {reason}"

    def _call(self, node: ast.Call) -> Iterator[str]:
        """What is wrong with the arguments of something of the vocabulary."""
        path = self._dotted(node.func)
        if path is None or vocabulary.refused_path(path) is not None:
            return
        named = {one.arg for one in node.keywords}
        starred = any(isinstance(one, ast.Starred) for one in node.args)
        positions = MOST_ARGUMENTS if starred else len(node.args)
        reason = vocabulary.refused_absence(path, named, positions)
        if reason is None and None in named and vocabulary.switches(path):
            reason = "gives arguments by a dictionary"
        if reason is not None:
            yield f"calls {ast.unparse(node.func)!r}: {reason}"

    def _dotted(self, node: ast.expr) -> str | None:
        """The path that begins at the name of a module, None for an attribute of a value."""
        parts: list[str] = []
        below: ast.expr = node
        while isinstance(below, ast.Attribute):
            parts.append(below.attr)
            below = below.value
        if not isinstance(below, ast.Name) or below.id in self._local:
            return None
        if below.id not in self._names:
            return None
        return ".".join((self._names[below.id], *reversed(parts)))

    def _keyword(self, node: ast.keyword) -> Iterator[str]:
        value = node.value.value if isinstance(node.value, ast.Constant) else node.value
        reason = vocabulary.refused_argument(node.arg, value)
        if reason is not None:
            yield reason
        if node.arg is None and not isinstance(node.value, ast.Dict):
            yield "gives arguments whose names are not written"
        if node.arg is not None and node.arg.startswith("_"):
            yield f"gives the private argument {node.arg!r}"
        yield from self.faults(node.value)


def _binds(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id


def _power(node: ast.BinOp) -> Iterator[str]:
    exponent = node.right.value if isinstance(node.right, ast.Constant) else None
    if not isinstance(exponent, int | float) or abs(exponent) > LARGEST_POWER:
        yield f"has a power above {LARGEST_POWER}"
