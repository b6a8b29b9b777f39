"""A trusted bundle's own modules: imported from verified bytes, under the name it expects.

The first folder of a bundle that holds Python files is a package for the time of building
(`scripts`, by custom). Several bundles use the same name, so each takes it over from the one
before; what was built keeps the code that it was built from.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from inference.model_files import ModelFiles


def packages(files: ModelFiles) -> set[str]:
    """The names under which a bundle's own code is imported."""
    return {name.partition("/")[0] for name in files.digests if name.endswith(".py")} - {"docs"}


@contextmanager
def own_code(files: ModelFiles, *, trusted: bool) -> Iterator[None]:
    """While it lasts, imports of the bundle's own names give its own, verified modules."""
    if not trusted:
        yield
        return
    names = packages(files)
    _forget(names)
    finder = _Finder(files, names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _forget(names: set[str]) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in names]:
        origin = sys.modules[module].__spec__
        if origin is not None and isinstance(origin.loader, _Finder):
            del sys.modules[module]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Modules of one bundle."""

    def __init__(self, files: ModelFiles, names: set[str]) -> None:
        self._files = files
        self._names = names

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  (the protocol's)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """The specification of a module of the bundle, None for any other."""
        if fullname.partition(".")[0] not in self._names:
            return None
        place = fullname.replace(".", "/")
        if self._name(fullname) is None and not any(
            name.startswith(f"{place}/") for name in self._files.digests
        ):
            return None
        return importlib.util.spec_from_loader(
            fullname, self, origin=self._files.path.name, is_package=self.is_package(fullname)
        )

    def _name(self, fullname: str) -> str | None:
        place = fullname.replace(".", "/")
        names = (f"{place}/__init__.py", f"{place}.py")
        return next((name for name in names if name in self._files.digests), None)

    def is_package(self, fullname: str) -> bool:
        """Whether it is a folder."""
        return (self._name(fullname) or "/__init__.py").endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        """Its verified text; a folder without one is an empty package."""
        name = self._name(fullname)
        return "" if name is None else self._files.read(name).decode()
