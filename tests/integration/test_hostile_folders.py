"""A folder that somebody else made is described without running, following or swallowing it.

Not covered: folders that change while they are added.
"""

import json
import os
import struct
import time
import zipfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from inference import archives
from inference.models import monai_bundle
from service import (
    approvals,
    config,
    kinds,
    model_add,
    model_folder,
    model_trust,
    processes,
    sidecar,
)
from service.model_folder import NoModelError
from service.validation import ConfigurationError
from tests.hostile_bundles import configurations

BOMB = "".join(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 12))
PARTS = "\n".join(
    f"{name}: {{_target_: Compose}}"
    for name in ("network_def", "preprocessing", "inferer", "postprocessing")
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that can be added."""
    made = tmp_path / "made"
    (made / "configs").mkdir(parents=True)
    (made / "models").mkdir()
    (made / "models/model.pt").write_bytes(b"weights")
    (made / "configs/inference.json").write_text(json.dumps(configurations.clean()))
    return made


@pytest.mark.parametrize("name", ["LICENSE", "extra.bin", "configs/metadata.json", "docs"])
def test_a_link_out_of_the_folder_is_refused_and_not_read(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "license.txt"
    secret.write_text("root:$6$secret")
    (bundle / name).symlink_to(outside if name == "docs" else secret)
    with pytest.raises(ConfigurationError, match="link out of the model's folder"):
        model_add.add(bundle)
    assert not sidecar.path_of(bundle).exists()


def test_a_link_inside_the_folder_is_a_file(bundle: Path) -> None:
    (bundle / "models/model_final.pth").symlink_to("model.pt")
    assert model_add.add(bundle) == 0
    assert "models/model_final.pth" in sidecar.read(bundle).files


def test_a_file_that_became_a_link_out_of_the_folder_stops_the_model(
    bundle: Path, tmp_path: Path
) -> None:
    assert model_add.add(bundle) == 0
    pinned = sidecar.read(bundle).files
    weights = bundle / "models/model.pt"
    weights.replace(tmp_path / "model.pt")
    weights.symlink_to(tmp_path / "model.pt")
    reason = approvals.stopped(bundle, pinned, trusted=False, approval=None)
    assert reason is not None
    assert reason.startswith("models/model.pt changed")


@pytest.mark.parametrize("there", [True, False])
def test_a_sidecar_that_is_a_link_is_not_written_through(
    bundle: Path, tmp_path: Path, *, there: bool
) -> None:
    target = tmp_path / "profile.sh"
    if there:
        target.write_text("untouched")
    sidecar.path_of(bundle).symlink_to(target)
    with pytest.raises(ConfigurationError, match="is a link"):
        model_add.add(bundle)
    assert target.exists() == there
    assert not there or target.read_text() == "untouched"


def test_what_is_no_plain_file_is_refused_and_nobody_waits_for_it(bundle: Path) -> None:
    os.mkfifo(bundle / "LICENSE")
    with pytest.raises(ConfigurationError, match=r"'LICENSE' is a link out .*no plain file"):
        model_add.add(bundle)
    with pytest.raises(ConfigurationError, match="no plain file"):
        model_add.add(bundle / "LICENSE")
    with pytest.raises(ConfigurationError, match="no plain file"):
        model_add.add(Path("/dev/zero"))


def test_a_link_in_circles_is_refused(bundle: Path) -> None:
    (bundle / "docs").symlink_to("docs")
    with pytest.raises(ConfigurationError, match="'docs' is a link out"):
        model_add.add(bundle)


def test_a_link_to_the_folder_itself_adds_no_files(bundle: Path) -> None:
    (bundle / "again").symlink_to(".")
    assert model_add.add(bundle) == 0
    assert set(sidecar.read(bundle).files) == {"models/model.pt", "configs/inference.json"}


def test_files_too_large_together_are_refused_unread(bundle: Path) -> None:
    with (bundle / "models/model.pt").open("wb") as file:
        file.truncate(1 << 40)
    began = time.process_time()
    with pytest.raises(ConfigurationError, match=r"is of 1,024 GiB, 'models/model.pt' the largest"):
        model_add.add(bundle)
    assert time.process_time() - began < 1
    assert not sidecar.path_of(bundle).exists()


def test_too_many_files_are_refused(bundle: Path) -> None:
    for number in range(model_folder.MOST_FILES):
        (bundle / "docs").mkdir(exist_ok=True)
        os.mknod(bundle / f"docs/{number}")
    with pytest.raises(ConfigurationError, match="has more than 10000 files"):
        model_add.add(bundle)


def test_a_file_with_more_in_it_than_its_size_is_refused() -> None:
    endless = Path("/proc/self/maps")  # of size 0, as all in /proc
    with pytest.raises(NoModelError, match="more in it than its size of 0 bytes"):
        model_folder.digests(endless)


def test_a_model_that_became_too_much_is_stopped_and_says_so(bundle: Path) -> None:
    assert model_add.add(bundle) == 0
    pinned = sidecar.read(bundle).files
    before = approvals.appearance(bundle)
    with (bundle / "models/model.pt").open("ab") as file:
        file.truncate(1 << 40)
    assert approvals.appearance(bundle) != before
    reason = approvals.stopped(bundle, pinned, trusted=False, approval=None)
    assert reason is not None
    assert reason.startswith("it is of 1,024 GiB")


def test_a_name_that_is_no_text_is_refused_and_the_sidecar_stays(bundle: Path) -> None:
    assert model_add.add(bundle) == 0
    before = sidecar.path_of(bundle).read_bytes()
    (bundle / os.fsdecode(b"a\xff.txt")).write_text("")
    with pytest.raises(ConfigurationError, match="no name in UTF-8"):
        model_add.add(bundle)
    assert sidecar.path_of(bundle).read_bytes() == before


def test_folders_too_deep_are_refused(bundle: Path) -> None:
    here = os.open(bundle, os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    with pytest.raises(ConfigurationError, match="too deep"):
        model_add.add(bundle)
    assert approvals.appearance(bundle)
    flatten(bundle)


def flatten(folder: Path) -> None:
    """Lift what is deep, so that the fixture's folder can be removed."""
    while (folder / "d" / "d").exists():
        (folder / "d").rename(folder / "old")
        (folder / "old" / "d").rename(folder / "d")
        (folder / "old").rmdir()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("inference.json", "[" * 200_000),
        ("inference.json", '{"a": ' + "[" * 500 + "]" * 500 + "}"),
        ("inference.yaml", f"a0: &a0 [x]\n{BOMB}{PARTS}"),
        ("inference.yaml", f"a0: &a0 [x]\nb: !!pairs [x: *a0]\n{BOMB}{PARTS}"),
        ("inference.yaml", f"a: &a [*a]\n{PARTS}"),
        ("inference.yaml", "[" * 5_000),
        ("metadata.json", "[" * 200_000),
        ("metadata.json", '{"network_data_format": []}'),
        ("metadata.json", '{"network_data_format": {"outputs": {"pred": {"channel_def": 5}}}}'),
        ("metadata.json", " " * (17 << 20)),
    ],
)
def test_a_description_that_is_none_is_one_line(bundle: Path, name: str, text: str) -> None:
    if name.endswith(".yaml"):
        (bundle / "configs/inference.json").unlink()
    (bundle / "configs" / name).write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        model_add.add(bundle)
    assert "\n" not in str(refused.value)


def test_of_a_huge_licence_only_the_beginning_is_read(bundle: Path) -> None:
    with (bundle / "LICENSE").open("wb") as file:
        file.write(b"MIT License ")
        file.truncate(1 << 30)
    described: Any = monai_bundle.propose(bundle)
    assert described["licence"] == "MIT"


def test_names_cannot_hide_what_an_administrator_is_shown(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hiding = "x\x1b[2K\r\x1b]0;safe\x07"
    (bundle / f"{hiding}.py").write_text("")
    metadata = {"description": "Good.\n  nothing beyond the strict policy\x1b[8m"}
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata))
    assert model_add.add(bundle) == 0
    file = tmp_path / "hounsfield.toml"
    file.write_text(
        f'[storage]\ndirectory = "{tmp_path}"\n'
        '[[models]]\nname = "made"\nkind = "monai_bundle"\npath = "made"\n'
    )
    capsys.readouterr()
    assert model_trust.trust(config.load(file), "made", yes=True) == 0
    shown = capsys.readouterr().out
    assert all(one.isprintable() or one == "\n" for one in shown)
    assert "x\\u001b[2K" in shown
    assert "\n  nothing beyond" not in shown
    (bundle / f"{hiding}.py").unlink()
    state = approvals.stopped(bundle, sidecar.read(bundle).files, trusted=False, approval=None)
    assert state is not None
    assert state.isprintable()


def packed(file: Path, *, says: int) -> None:
    """A record of 1 500 MiB in some bytes, whose size is said to be another."""
    chunk = bytes(1 << 20)
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive,
        archive.open("m/data.pkl", "w") as record,
    ):
        for _ in range(1500):
            record.write(chunk)
    content = bytearray(file.read_bytes())
    place = content.rindex(b"PK\1\2") + 24  # of the size, in the list at the end
    content[place : place + 4] = says.to_bytes(4, "little")
    file.write_bytes(content)


def endless(file: Path) -> None:
    """An archive whose list of records is nearly the whole of a file of many holes."""
    size = 8 << 30
    with file.open("wb") as opened:
        opened.truncate(size)
        opened.seek(size)
        opened.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0))
        opened.write(struct.pack("<4sIQI", b"PK\6\7", 0, size, 1))
        opened.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def merged(file: Path) -> None:
    """A few lines of YAML, each of which takes ten times what the one before has."""
    lines = [f"a{at}: &a{at} {{<<: [{', '.join([f'*a{at - 1}'] * 10)}]}}" for at in range(1, 11)]
    file.write_text("\n".join(["a0: &a0 {k0: 1, k1: 2}", *lines, PARTS]))


@pytest.mark.parametrize("which", ["packed", "endless", "merged"])
def test_a_description_that_swells_is_refused_in_little_memory(bundle: Path, which: str) -> None:
    (bundle / "configs/inference.json").unlink()
    match which:
        case "packed":
            packed(bundle / "model.pt", says=1000)
        case "endless":
            endless(bundle / "model.pt")
        case _:
            merged(bundle / "configs/inference.yaml")
    process = get_context("spawn").Process(target=described_with_little_memory, args=(bundle,))
    process.start()
    process.join()
    assert process.exitcode == 0


def described_with_little_memory(path: Path) -> None:
    """In a process that may not have enough."""
    kinds.kinds(config.MODELS, defining=config.SIDECAR)
    processes.limit_memory(1 << 30)
    with pytest.raises(ConfigurationError):
        model_add.proposal(path)


def test_an_archive_that_is_damaged_is_no_model(tmp_path: Path) -> None:
    """Each byte of its lists in turn is another."""
    whole = tmp_path / "whole.pt"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02.")
        archive.writestr("m/code/\u00e9.py", b"")
    content = whole.read_bytes()
    for place in range(len(content)):
        for value in (0, 1, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] = value
            whole.write_bytes(damaged)
            archives.names(whole)
            archives.record(whole, "/data.pkl")
