"""Every destination kind: one outcome per object, in order; echo; what was delivered is the file.

Does not cover when an object is tried again (tests/integration/test_delivery.py) nor a PACS that
misbehaves (tests/integration/test_delivery_dicom.py).
"""

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydicom.filereader import read_file_meta_info
from pynetdicom.dsutils import split_dataset

from service.destinations import Answer, Destination, DestinationError, Outgoing
from service.kinds import kinds, load_kind
from tests.peers import dcmtk_storescp, unused_port

PACKAGE = "service.destinations"
KINDS = kinds(PACKAGE, defining="SETTINGS")
FILES = ("sr-example/seg.dcm", "sr-example/sr.dcm", "segmentations/liver.dcm")


@dataclass(frozen=True, slots=True)
class Place:
    """A destination under test, one that nobody answers, and the folder where objects land."""

    destination: Destination
    absent: Destination
    folder: Path


def made(kind: str, **settings: object) -> Destination:
    """A destination as the node makes it."""
    module = load_kind(PACKAGE, kind)
    destination: Destination = module.destination(settings, calling_ae_title="HOUNSFIELD")
    return destination


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind with a real counterpart."""
    with ExitStack() as stack:
        if request.param == "dicom":
            peer = stack.enter_context(dcmtk_storescp(tmp_path / "pacs"))
            near = {"ae_title": peer.ae_title, "host": "127.0.0.1"}
            destination = made("dicom", port=peer.port, **near)
            absent = made("dicom", port=unused_port(), **near)
            yield Place(destination, absent, peer.folder)
        else:
            folder = tmp_path / "out" / "results"
            blocked = tmp_path / "blocked"
            blocked.touch()
            absent = made("folder", path=str(blocked / "results"))
            yield Place(made("folder", path=str(folder)), absent, folder)


def outgoing(path: Path, **changes: object) -> Outgoing:
    """A file as an object to send."""
    uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    made = Outgoing(sop_instance_uid=uid, path=path, size=path.stat().st_size)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def results(data: Path) -> list[Outgoing]:
    """Real SEG and SR files."""
    return [outgoing(data / "seg-sr-dcmqi" / name) for name in FILES]


def data_set(path: Path) -> bytes:
    """The data set's bytes, without preamble and file meta information."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def landed(folder: Path) -> list[bytes]:
    """The data sets in a folder, sorted."""
    return sorted(data_set(path) for path in folder.iterdir())


def test_every_module_is_a_kind() -> None:
    assert KINDS == ("dicom", "folder")
    assert kinds(PACKAGE) == KINDS


def test_every_object_arrives_byte_for_byte_in_order(place: Place, results: list[Outgoing]) -> None:
    outcomes = list(place.destination.send(results))
    assert [each.outgoing for each in outcomes] == results
    assert all(each.delivered and each.note is None for each in outcomes)
    assert landed(place.folder) == sorted(data_set(each.path) for each in results)


def test_sending_again_changes_nothing(place: Place, results: list[Outgoing]) -> None:
    for _ in range(2):
        assert all(each.delivered for each in place.destination.send(results))
    assert landed(place.folder) == sorted(data_set(each.path) for each in results)


def test_nothing_to_send(place: Place) -> None:
    assert list(place.destination.send([])) == []


def test_a_missing_or_truncated_file_harms_only_itself(
    place: Place, results: list[Outgoing], tmp_path: Path
) -> None:
    missing = replace(results[0], path=tmp_path / "nowhere.dcm")
    truncated = replace(results[1], size=results[1].size + 1)
    outcomes = list(place.destination.send([missing, truncated, results[2]]))
    assert [each.answer for each in outcomes[:2]] == [Answer.UNSENDABLE] * 2
    assert outcomes[2].delivered
    assert landed(place.folder) == [data_set(results[2].path)]


def test_an_object_waits_for_the_one_it_refers_to(
    place: Place, results: list[Outgoing], tmp_path: Path
) -> None:
    segmentation = replace(results[0], path=tmp_path / "nowhere.dcm")
    report = replace(results[1], after=frozenset({segmentation.sop_instance_uid}))
    outcomes = list(place.destination.send([segmentation, report, results[2]]))
    assert [each.answer for each in outcomes[:2]] == [Answer.UNSENDABLE, Answer.HELD]
    assert outcomes[2].delivered


def test_nobody_there_is_transient_for_every_object(place: Place, results: list[Outgoing]) -> None:
    outcomes = list(place.absent.send(results))
    assert [each.answer for each in outcomes] == [Answer.TRANSIENT] * len(results)
    assert all(each.note for each in outcomes)


def test_an_outcome_is_known_before_the_next_object_leaves(
    place: Place, results: list[Outgoing]
) -> None:
    sending = place.destination.send(results)
    next(sending)
    assert landed(place.folder) == [data_set(results[0].path)]
    sending.close()  # type: ignore[attr-defined]
    assert len(landed(place.folder)) == 1


def test_a_folder_without_room_keeps_no_half_file(results: list[Outgoing], tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (results[0].size // 2, before[1]))
    try:
        (outcome,) = made("folder", path=str(tmp_path / "out")).send(results[:1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert outcome.answer is Answer.TRANSIENT
    assert "EFBIG" in (outcome.note or "")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_name_that_is_no_uid_never_becomes_a_path(
    results: list[Outgoing], tmp_path: Path
) -> None:
    odd = replace(results[0], sop_instance_uid="../1.2")
    (outcome,) = made("folder", path=str(tmp_path / "out")).send([odd])
    assert outcome.answer is Answer.UNSENDABLE
    assert not (tmp_path / "1.2.dcm").exists()


def test_echo(place: Place) -> None:
    place.destination.echo()
    with pytest.raises(DestinationError) as raised:
        place.absent.echo()
    assert str(raised.value)
