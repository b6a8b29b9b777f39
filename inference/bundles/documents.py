"""Files of a bundle become plain trees within bounds, however they swell, and are never run."""

import json
from collections.abc import Iterator, Mapping, ValuesView
from typing import Any

import yaml

from inference.bundles.configuration import TARGET, Tree
from inference.errors import ModelRefused

LARGEST = 16 << 20  # bytes of a file
MOST_ITEMS = 100_000
MERGE = "tag:yaml.org,2002:merge"
DEEPEST = 100
RUN = ("$", "@", "%")  # how texts begin that MONAI resolves


def parse(name: str, content: bytes) -> Tree:
    """The tree in a configuration file; raises ModelRefused when there is none."""
    if len(content) > LARGEST:
        raise ModelRefused(f"{name} is larger than {LARGEST >> 20} MiB")
    try:
        tree = json.loads(content) if name.endswith(".json") else _yaml(content)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ModelRefused(f"{name} is not readable: {type(error).__name__}") from error
    if not isinstance(tree, dict):
        raise ModelRefused(f"{name} is no table")
    _refuse_excess(name, tree)
    return tree


def _yaml(content: bytes) -> Any:
    return yaml.load(content, Loader=_Bounded)  # noqa: S506  (a SafeLoader)


class _Bounded(yaml.SafeLoader):
    """Of which a few lines cannot merge (`<<`) any number of items into one table."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """As the SafeLoader does; yaml.YAMLError for more than MOST_ITEMS."""
        if sum(map(self._flattened, _merged(node))) > MOST_ITEMS:
            raise yaml.YAMLError("merges too many items")
        super().flatten_mapping(node)

    def _flattened(self, node: yaml.Node) -> int:
        if not isinstance(node, yaml.MappingNode):
            return 0
        self.flatten_mapping(node)
        return len(node.value)


def _merged(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    """What a table's `<<` name, each as often as they do."""
    for key, value in node.value:
        if key.tag == MERGE:
            yield from value.value if isinstance(value, yaml.SequenceNode) else (value,)


def _refuse_excess(name: str, tree: Tree) -> None:
    """A few lines of YAML may stand for any number of items, or contain themselves."""
    waiting: list[tuple[Any, int]] = [(tree, 0)]
    seen = 0
    while waiting:
        item, depth = waiting.pop()
        inside = item.values() if isinstance(item, Mapping) else item
        if isinstance(inside, list | tuple | set | ValuesView):
            seen += len(inside)
            if seen > MOST_ITEMS or depth > DEEPEST:
                raise ModelRefused(f"{name} has too many items, or too deep ones")
            waiting.extend((one, depth + 1) for one in inside)


def refuse_code(name: str, held: Any) -> None:
    """Raise ModelRefused for plain values of which MONAI would run one: it reads them as its own.

    An expression (`$`), a reference (`@`), another configuration (`%`), a component (`_target_`).
    """
    _refuse_excess(name, {"": held})
    waiting = [held]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting.extend((*item, *item.values()))
        elif isinstance(item, list | tuple | set | frozenset):
            waiting.extend(item)
        elif isinstance(item, str) and (item == TARGET or item.lstrip().startswith(RUN)):
            raise ModelRefused(f"{name} holds what MONAI would run: {item[:60]!r}")
