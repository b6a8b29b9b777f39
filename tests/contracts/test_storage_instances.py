"""The promises of the instance store on a real folder.

Not covered here: a power cut; a full disk (test_storage_processes.py) beyond a limit of the file's
size.
"""

import hashlib
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.errors import MissingBytes, OutOfSpace, StorageError
from storage.instances import InstanceStore
from tests.records import START, after

DIGEST = "ab" + "0" * 62


@pytest.fixture
def store(tmp_path: Path) -> InstanceStore:
    return InstanceStore(tmp_path / "store")


def part(store: InstanceStore, data: bytes = b"bytes as received") -> Path:
    file = store.new_part()
    file.write_bytes(data)
    return file


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of a file fail, as on a full disk, without the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_part_is_adopted_under_its_digest_byte_for_byte(store: InstanceStore) -> None:
    file = part(store)
    key = store.adopt(file, DIGEST)
    store.sync([key])
    assert key == f"instances/ab/{DIGEST}.dcm"
    assert store.path(key).read_bytes() == b"bytes as received"
    assert not file.exists()


def test_the_same_object_again_is_the_same_file(store: InstanceStore) -> None:
    assert store.adopt(part(store), DIGEST) == store.adopt(part(store), DIGEST)
    assert len(list(store.path("instances").rglob("*.dcm"))) == 1


def test_a_missing_part_is_said(store: InstanceStore) -> None:
    with pytest.raises(MissingBytes, match="keeping a received object"):
        store.adopt(store.new_part(), DIGEST)


def test_a_result_is_named_by_its_bytes(store: InstanceStore) -> None:
    key, digest, size = store.write_result(b"DICM")
    assert digest == hashlib.sha256(b"DICM").hexdigest()
    assert (key, size) == (f"results/{digest[:2]}/{digest}.dcm", 4)
    assert store.path(key).read_bytes() == b"DICM"
    assert store.write_result(b"DICM") == (key, digest, size)


def test_quarantine_takes_a_part_or_bytes(store: InstanceStore) -> None:
    moved, written = store.quarantine(part(store, b"a")), store.quarantine(b"b")
    assert [store.path(key).read_bytes() for key in (moved, written)] == [b"a", b"b"]
    assert moved.startswith("quarantine/")
    assert list(store.incoming.iterdir()) == []


def test_delete_is_harmless_twice(store: InstanceStore) -> None:
    key = store.adopt(part(store), DIGEST)
    assert store.delete(key)
    assert store.delete(key)
    assert store.delete("instances/ff/none.dcm")


@pytest.mark.parametrize("key", ["", "../outside", "/etc/passwd", "results//x", "a/../../b"])
def test_a_key_never_leads_out_of_the_store(store: InstanceStore, key: str) -> None:
    with pytest.raises(StorageError, match="not a key"):
        store.path(key)


def test_out_of_space_leaves_neither_a_result_nor_a_part(store: InstanceStore) -> None:
    with largest_file(1000), pytest.raises(OutOfSpace, match="writing an object"):
        store.write_result(b"\0" * 2000)
    assert list(store.path("results").rglob("*.dcm")) == []
    assert list(store.incoming.iterdir()) == []
    assert store.write_result(b"\0" * 2000)[2] == 2000


def test_stale_parts_are_swept_and_young_ones_stay(store: InstanceStore) -> None:
    stale, young = part(store), part(store)
    os.utime(stale, (START.timestamp(), START.timestamp()))
    os.utime(young, (after(60).timestamp(), after(60).timestamp()))
    assert store.sweep_incoming(after(60)) == 1
    assert list(store.incoming.iterdir()) == [young]


def test_free_space_is_that_of_the_disk(store: InstanceStore) -> None:
    assert 0 < store.free_bytes() < 2**60
