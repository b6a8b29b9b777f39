"""Kinds are found and read without being imported.

Not covered: what the kinds do (tests/contracts).
"""

import sys
from pathlib import Path

import pytest

from service import kinds
from service.kinds import UnknownKindError

CAT = '''"""A cat."""
import no_such_module_at_all

VERSION = "9.1"
SETTINGS: dict[str, object] = {"lives": {"type": "count", "default": 9}}
REQUIREMENTS = Requirements(modalities=("CT",), axial=True, min_slices=20, max_spacing_mm=2.5)
COMPUTED = "a" + VERSION

def meow() -> None: ...

class Cat: ...
'''


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two kinds and a private module; none of them can be imported."""
    folder = tmp_path / "zoo_of_kinds" / "animals"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("raise ImportError('imported')")
    (folder / "cat.py").write_text(CAT)
    (folder / "dog.py").write_text("raise ImportError('imported')")
    (folder / "_bones.py").write_text("VERSION = '0'")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "zoo_of_kinds.animals"


def test_kinds_are_the_module_files_that_are_not_private(zoo: str) -> None:
    assert kinds.kinds(zoo) == ("cat", "dog")


@pytest.mark.parametrize("name", ["VERSION", "SETTINGS", "meow", "Cat"])
def test_kinds_can_be_those_that_define_a_name(zoo: str, name: str) -> None:
    assert kinds.kinds(zoo, defining=name) == ("cat",)


def test_constants_are_read_from_the_source(zoo: str) -> None:
    assert kinds.constant(zoo, "cat", "VERSION") == "9.1"
    assert kinds.table(zoo, "cat", "SETTINGS") == {"lives": {"type": "count", "default": 9}}


def test_the_keywords_of_a_call_are_a_table(zoo: str) -> None:
    assert kinds.table(zoo, "cat", "REQUIREMENTS") == {
        "modalities": ("CT",),
        "axial": True,
        "min_slices": 20,
        "max_spacing_mm": 2.5,
    }


def test_a_table_that_is_not_there_is_empty(zoo: str) -> None:
    assert kinds.table(zoo, "dog", "SETTINGS") == {}


def test_what_is_not_literal_or_no_table_is_refused(zoo: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        kinds.constant(zoo, "cat", "COMPUTED")
    with pytest.raises(TypeError, match="VERSION is not a table"):
        kinds.table(zoo, "cat", "VERSION")


@pytest.mark.parametrize("kind", ["bird", "_bones", "../cat", "__init__", ""])
def test_an_unknown_kind_is_refused_with_those_that_exist(zoo: str, kind: str) -> None:
    with pytest.raises(UnknownKindError, match="cat, dog"):
        kinds.load_kind(zoo, kind)


def test_only_load_kind_imports() -> None:
    assert kinds.load_kind("service.triggers", "quiet_period").__name__ in sys.modules


def test_an_unknown_package_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        kinds.kinds("no_such_package.animals")
