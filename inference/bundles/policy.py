"""What a bundle's configuration would run is known before anything is built, or it is refused.

The configuration is read as MONAI reads it: its own parser tells the items, its own resolver what
an item refers to and what text an expression is when it is evaluated. Looked at are the import
statements (MONAI runs all of them) and whatever the resolved sections reach; a section that nothing
reaches is not evaluated and may hold what it likes.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from monai.bundle.config_item import ConfigComponent, ConfigExpression
from monai.bundle.config_parser import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

from inference.bundles import expressions, vocabulary
from inference.errors import ModelRefused

ROOTS = (
    "network_def",
    "network",
    "preprocessing",
    "pre_transforms",
    "inferer",
    "postprocessing",
    "post_transforms",
    "detector",
    "detector_ops",
)
"""The sections that are resolved."""
MOST_ITEMS = 100_000
MODES = ("default", "callable")
ALLOW = (
    "an administrator may allow it: hounsfield models CONFIG --trust NAME, then "
    'trust = "trusted" in [[models]]'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something outside the policy. `where`: place in the configuration (`postprocessing::1`)."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


def check(tree: Mapping[str, Any], roots: Sequence[str] = ROOTS) -> None:
    """Raise ModelRefused unless everything that resolving `roots` evaluates is in the policy.

    `tree`: the configuration as it is about to be resolved; what is `_disabled_` need not be
    allowed itself, what it refers to must.
    """
    found = violations(tree, roots)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise ModelRefused(f"the strict policy refuses: {found[0]}{more}; {ALLOW}")


def violations(tree: Mapping[str, Any], roots: Sequence[str] = ROOTS) -> tuple[Violation, ...]:
    """Everything outside the policy that resolving `roots` would evaluate."""
    try:
        outside = tuple(_macros(tree))
        return outside or tuple(_Reader(tree).violations(roots))
    except RecursionError:
        return (Violation(where="the configuration", what="is nested too deeply"),)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        words = f"cannot be read as MONAI reads it: {type(error).__name__}"
        return (Violation(where="the configuration", what=words),)


def _macros(tree: Mapping[str, Any]) -> Iterator[Violation]:
    """`%file::id` reads another file, which is not looked at; `%id` is this configuration."""
    for where, value in _leaves(tree):
        if isinstance(value, str) and value.startswith("%"):
            path, _ = ConfigParser.split_path_id(ReferenceResolver.normalize_id(value[1:]))
            if path:
                yield Violation(where=where, what="takes a part of another file")


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    waiting: list[tuple[str, object]] = [("", tree)]
    seen = 0
    while waiting:
        where, value = waiting.pop()
        seen += 1
        if seen > MOST_ITEMS:
            message = "too many items"
            raise ValueError(message)
        if isinstance(value, Mapping | list):
            inside = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting.extend((f"{where}::{key}".removeprefix("::"), one) for key, one in inside)
        else:
            yield where, value


class _Reader:
    """A configuration as MONAI's parser has it: items by id, an item's content by its kind."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._parser = ConfigParser(deepcopy(dict(tree)), globals=False)
        self._parser.parse()
        items: Mapping[str, Any] = self._parser.ref_resolver.items
        self._content = {where: item.config for where, item in items.items()}
        self._components = {w for w, one in items.items() if isinstance(one, ConfigComponent)}
        self._expressions = {w for w, one in items.items() if isinstance(one, ConfigExpression)}

    def violations(self, roots: Sequence[str]) -> Iterator[Violation]:
        """What is outside the policy in the imports and in what `roots` reach."""
        yield from self._misused_imports()
        names = vocabulary.aliases({name: path for _, name, path in self._imported()})
        for where in self._reached(roots):
            for what in self._faults(where, names):
                yield Violation(where=where, what=what)

    def _reached(self, roots: Sequence[str]) -> Iterator[str]:
        """Every item that resolving `roots` resolves."""
        waiting = [root for root in reversed(roots) if root in self._content]
        seen = set(waiting)
        while waiting:
            where = waiting.pop()
            yield where
            inside = ReferenceResolver.find_refs_in_config(self._content[where], where)
            unseen = [one for one in inside if one in self._content and one not in seen]
            seen.update(unseen)
            waiting.extend(reversed(unseen))

    def _imported(self) -> Iterator[tuple[str, str, str]]:
        """Where, name and path of everything that import statements bind."""
        for where in self._content:
            if where in self._expressions:
                found = expressions.imported(self._content[where][1:])
                bound = found[0] if found is not None else {}
                yield from ((where, name, path) for name, path in bound.items())

    def _misused_imports(self) -> Iterator[Violation]:
        names = vocabulary.aliases({})
        for where, name, path in self._imported():
            if names.setdefault(name, path) != path:
                yield Violation(where=where, what=f"gives {name!r} another meaning")
        for where in self._content:
            if where in self._expressions:
                found = expressions.imported(self._content[where][1:])
                if found is not None and found[1] is not None:
                    yield Violation(where=where, what=found[1])

    def _faults(self, where: str, names: Mapping[str, str]) -> Iterator[str]:
        content = self._content[where]
        if where in self._components:
            yield from self._component(content)
        elif where in self._expressions:
            reason = self._expression(where, content, names)
            if reason is not None:
                yield f"{reason} ({shown(content)})"

    def _expression(self, where: str, content: str, names: Mapping[str, str]) -> str | None:
        if expressions.imported(content[1:]) is not None:
            return "takes what an import gives for a value"
        referred = ReferenceResolver.find_refs_in_config(content, where)
        return expressions.refused(_evaluated(content), names, referred)

    def _component(self, content: Mapping[str, Any]) -> Iterator[str]:
        target = content["_target_"]
        disabled = content.get("_disabled_", False)
        if disabled is True or (isinstance(disabled, str) and disabled.strip().lower() == "true"):
            return
        if not isinstance(target, str) or target.startswith(("$", "@", "%")):
            yield f"has a _target_ that is no name ({shown(target)})"
            return
        if content.get("_mode_", "default") not in MODES:
            yield f"has _mode_ {shown(content['_mode_'])}"
        for path in self._paths(target):
            reason = vocabulary.refused_path(path)
            if reason is not None:
                yield f"builds {shown(path)}, which {reason}"
            elif (left_out := vocabulary.refused_absence(path, content, 0)) is not None:
                yield left_out
        arguments = (vocabulary.refused_argument(name, one) for name, one in content.items())
        yield from (reason for reason in arguments if reason is not None)

    def _paths(self, target: str) -> tuple[str, ...]:
        """What MONAI may take a target for: a bare name is looked up in all of MONAI."""
        modules = self._parser.locator.get_component_module_name(target) or ()
        if isinstance(modules, str):
            return (f"{modules}.{target}",)
        return tuple(f"{module}.{target}" for module in modules) or (target,)


def _evaluated(text: str) -> str:
    """An expression as it is evaluated: references put in, by MONAI itself."""
    return ReferenceResolver.update_refs_pattern(text, _Anything())[1:]


class _Anything(dict[str, object]):
    """Has every reference, so that none is missing from the text."""

    def __contains__(self, key: object) -> bool:
        return True


def shown(value: object) -> str:
    """A value of a configuration for a message, on one line and not long."""
    text = "".join(one if one.isprintable() else " " for one in str(value)[:1000])
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
