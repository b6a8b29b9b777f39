"""What a model's Python code imports and this machine does not have, known without running it.

Read are the statements of a module itself: what stands in a function, a `try` or an `if` may never
run, and is not counted.
"""

import ast
import importlib.util
from collections.abc import Iterable, Iterator, Sequence

from inference.errors import ModelRefused
from inference.model_files import ModelFiles

LARGEST = 1 << 20  # bytes of a module that is read


def missing(files: ModelFiles, names: Iterable[str], *, entry: str = "") -> tuple[str, ...]:
    """The packages, in order, that these names need and that are not installed.

    `names`: dotted, of modules or of what is in them; `entry`: a file that is run. Those among the
    model's files are read, and so is what they import of it. Raises ModelRefused for a file that
    changed or is missing.
    """
    refuse_large(files)
    own = {name.partition("/")[0].removesuffix(".py") for name in files.digests}
    absent, seen = set[str](), set[str]()
    waiting = [*names, *(_imported(files, "", entry) if entry else ())]
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or not top:
            continue
        seen.add(name)
        if top not in own:
            absent |= set() if _installed(top) else {top}
            continue
        for module, path in _modules(files, name):
            waiting.extend(_imported(files, module, path))
    return tuple(sorted(absent))


def refuse_large(files: ModelFiles) -> None:
    """Raise ModelRefused for a model with more Python in one file than is read."""
    for name in files.digests:
        if name.endswith(".py") and files.place(name).stat().st_size > LARGEST:
            raise ModelRefused(f"{files.path.name}: {name} is larger than {LARGEST >> 20} MiB")


def words(absent: Sequence[str]) -> str:
    """That these packages are missing, in a line."""
    what, are = ("package", "is") if len(absent) == 1 else ("packages", "are")
    return f"it needs the {what} {', '.join(absent)}, which {are} not installed"


def _installed(top: str) -> bool:
    """Whether there is such a package; nothing of it is imported."""
    try:
        return importlib.util.find_spec(top) is not None
    except ValueError:  # of what was made without one, such as __main__
        return True


def _modules(files: ModelFiles, name: str) -> Iterator[tuple[str, str]]:
    """A name's packages and its module: each with its path among the model's files."""
    steps = name.split(".")
    for count in range(1, len(steps) + 1):
        place = "/".join(steps[:count])
        for path in (f"{place}/__init__.py", f"{place}.py"):
            if path in files.digests:
                yield ".".join(steps[:count]), path


def _imported(files: ModelFiles, module: str, path: str) -> Iterator[str]:
    try:
        body = ast.parse(files.read(path)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelRefused(f"{files.path.name}: {path} cannot be read as Python") from error
    package = module if path.endswith("/__init__.py") else module.rpartition(".")[0]
    for node in body:
        yield from _names(node, package)


def _names(node: ast.stmt, package: str) -> Iterator[str]:
    match node:
        case ast.Import(names=found):
            yield from (one.name for one in found)
        case ast.ImportFrom(module=name, names=found, level=level):
            above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            origin = ".".join([*above, *([name] if name else [])])
            yield from (origin, *(f"{origin}.{one.name}" for one in found))
