"""`models CONFIG --add PATH` writes the sidecar of a model that comes as files, pinning each file.

A sidecar that is there keeps what a person wrote; only the digests of the files are renewed.
"""

import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument

from inference.errors import ModelRefused
from inference.model_files import is_part
from inference.models import FileModelModule
from service import approvals, kinds, model_check, model_folder, sidecar
from service.config import MODELS, SIDECAR
from service.exits import SUCCESS
from service.model_folder import NoModelError
from service.model_states import PYTHON
from service.sidecar import Sidecar
from service.validation import ConfigurationError, Place

PRIVATE_SCHEME = "99LOCAL"
"""Coding scheme of labels that have no code yet (PS3.16 section 8.2)."""

COMMENTS = "comments"
EDIT = "EDIT:"
WIDTH = 98
WHOLE = ("monai_bundle", "python")
"""Kinds whose folders may hold what looks like a model by itself: their networks."""
MOST_CHILDREN = 1000  # that are looked at
MOST_NAMED = 5
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What a description with values of other types than it should have ends in."""
HEADER = """\
What the node is told about {name}; a person edits this, the node obeys it.
Written by: hounsfield models CONFIG --add {name}
After files changed, the same command again: it renews [files] and nothing else."""


def add(path: Path) -> int:
    """Write or renew the sidecar and say what a person has to look at."""
    path = path.absolute()
    if not path.exists():
        raise Place(file=path).error("does not exist", allowed="a model's folder or file")
    file = sidecar.path_of(path)
    _refuse_link(file)
    try:
        model_folder.check(path)
        made = _renewed(path, file) if file.exists() else _new(path)
    except NoModelError as reason:
        raise Place(file=path).error(str(reason), allowed="a model's plain files") from reason
    checked = sidecar.parse(made.document.unwrap(), Place(file=file))
    warnings = list(_warnings(path, made, checked))
    with open(file, "w", encoding="utf-8", opener=_here) as opened:
        opened.write(tomlkit.dumps(made.document))
    print(f"{file}: {made.said}")
    for warning in warnings:
        print(f"warning: {warning}")
    return SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A sidecar before it is written, and what is said then. `kind`: of a new one."""

    document: TOMLDocument
    said: str
    kind: str | None = None


def _warnings(path: Path, made: _Made, checked: Sidecar) -> Iterator[str]:
    """What a person has to look at; ConfigurationError for a model that is none."""
    if EDIT in tomlkit.dumps(made.document):
        yield f"it is to be completed where it says {EDIT}"
    for name in _uncoded(checked.plain):
        yield f"{name!r} has no code yet ({PRIVATE_SCHEME}): give it one"
    if made.kind is not None:
        trusted = made.kind == PYTHON  # (it runs in no other way)
        for line in model_check.of_sidecar(made.kind, path, checked, trusted=trusted):
            yield f"it does not run here yet: {line}"


def _renewed(path: Path, file: Path) -> _Made:
    document = tomlkit.parse(file.read_text(encoding="utf-8"))
    document["files"] = files = model_folder.digests(path)
    return _Made(document=document, said=f"[files] renewed, {len(files)} in all")


def _new(path: Path) -> _Made:
    kind, proposed = proposal(path)
    document = drafted(path, proposed)
    trust = ", trust = 'trusted'; then: hounsfield models CONFIG --trust NAME"
    trust = trust if kind == PYTHON else ""
    said = f"written; in the configuration: kind = {kind!r}, path = {str(path)!r}{trust}"
    return _Made(document=document, said=said, kind=kind)


def _refuse_link(file: Path) -> None:
    """The model was made elsewhere: nothing outside its folder is written for it."""
    if file.is_symlink():
        raise Place(file=file).error("is a link", allowed="a file, or none yet")


def _here(name: str, flags: int) -> int:
    """Opens a file, and no link to one."""
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)


def proposal(path: Path) -> tuple[str, Mapping[str, Any]]:
    """The kind that a model's files are of, and what that kind proposes for the sidecar."""
    found = _proposed(path)
    _refuse_several(path, None if found is None else found[0])
    if found is None:
        choices = ", ".join(_kinds())
        raise Place(file=path).error("is no model of a kind that runs here", allowed=choices)
    return found


def _kinds() -> tuple[str, ...]:
    return kinds.kinds(MODELS, defining=SIDECAR)


def _proposed(path: Path) -> tuple[str, Mapping[str, Any]] | None:
    for kind in _kinds():
        module: FileModelModule = kinds.load_kind(MODELS, kind)
        try:
            proposed = module.propose(path)
        except ModelRefused as reason:
            raise Place(file=path).error(str(reason), allowed="a model that runs here") from reason
        except UNREADABLE as error:
            wrong = f"does not describe itself as a {kind} does: {type(error).__name__}"
            raise Place(file=path).error(wrong, allowed="a model that runs here") from error
        if proposed is not None:
            return kind, proposed
    return None


def _refuse_several(path: Path, kind: str | None) -> None:
    """The folder above models is none, though a file or two in it may look like one."""
    if not path.is_dir() or kind in WHOLE:
        return
    children = sorted(one for one in path.iterdir() if is_part(one.name))[:MOST_CHILDREN]
    found = [child.name for child in children if _is_other(child, kind)]
    if found:
        names = ", ".join(map(approvals.visible, found[:MOST_NAMED]))
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        wrong = f"is no model but holds what look like models: {names}{more}"
        raise Place(file=path).error(wrong, allowed=f"one of them, as {path / found[0]}")


def _is_other(child: Path, kind: str | None) -> bool:
    """Whether a file or folder has a sidecar, or is a model of another kind than its folder."""
    if sidecar.path_of(child).exists():
        return True
    try:
        found = _proposed(child)
    except ConfigurationError:  # a model's folder with a fault
        return True
    return found is not None and found[0] != kind


def drafted(path: Path, proposed: Mapping[str, Any]) -> TOMLDocument:
    """The sidecar as a document for a person."""
    document = tomlkit.document()
    for line in (*HEADER.format(name=path.name).splitlines(), *_wrapped(proposed)):
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    for key, value in proposed.items():
        if key != COMMENTS:
            document[key] = value
    document["files"] = model_folder.digests(path)
    return document


def _wrapped(proposed: Mapping[str, Any]) -> Iterator[str]:
    """What a person has to complete, in lines."""
    for comment in proposed.get(COMMENTS, ()):
        yield from textwrap.wrap(f"{EDIT} {comment}", WIDTH)


def _uncoded(plain: Mapping[str, Any]) -> list[str]:
    return [
        label["name"]
        for label in plain["labels"]
        if PRIVATE_SCHEME in (label["type"][1], (label["question"] or ("", ""))[1])
    ]
