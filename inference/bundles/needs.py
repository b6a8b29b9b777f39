"""What a bundle needs that is not here, told from its texts alone: nothing of it is built or run.

What MONAI itself imports only once a part is built is not seen here; loading the bundle says it.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from inference import dependencies, torchvision_operators
from inference.bundles import configuration, recipe
from inference.bundles.configuration import IMPORTS, Tree
from inference.bundles.own_code import packages
from inference.model_files import ModelFiles

DETECTED_BY = ("detector", "detector_ops")


def lacking(
    files: ModelFiles, options: Mapping[str, Any], *, detects: bool, trusted: bool
) -> tuple[str, ...]:
    """A line for each thing; raises ModelRefused for a bundle whose parts do not fit together.

    `detects`: its `inferer` is not built. `trusted`: its own code may run.
    """
    dependencies.refuse_large(files)
    tree = _built(recipe.read(files, options), detects=detects)
    return tuple(_lines(files, tree, trusted=trusted))


def _built(whole: Tree, *, detects: bool) -> Tree:
    parts = configuration.parts(whole)
    names = tuple(
        name for name in (*parts.names, *DETECTED_BY) if name != parts.inferer or not detects
    )
    return configuration.edited(configuration.reachable(whole, names))


def _lines(files: ModelFiles, tree: Tree, *, trusted: bool) -> Iterator[str]:
    targets, imports = set(configuration.targets(tree)), _imports(tree)
    words = targets | imports
    own = sorted({word.partition(".")[0] for word in words} & packages(files))
    if own and not trusted:
        yield (
            f"it has code of its own ({', '.join(own)}): look at it and approve it with "
            'hounsfield models CONFIG --trust NAME, then trust = "trusted" in [[models]]'
        )
    if any("TorchVision" in configuration.class_name(word) for word in words):
        said = torchvision_operators.lacking("this bundle")
        yield from () if said is None else (said,)
    dotted = {word for word in targets if "." in word}  # (others MONAI finds in itself)
    if absent := dependencies.missing(files, dotted | imports):
        yield dependencies.words(absent)


def _imports(tree: Tree) -> set[str]:
    """The modules that its import statements name; `configuration` has refused what is none."""
    found: set[str] = set()
    for statement in tree.get(IMPORTS, []):
        for node in ast.parse(statement.removeprefix("$").strip()).body:
            if isinstance(node, ast.Import):
                found.update(one.name for one in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return found
