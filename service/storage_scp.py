"""What was answered Success is on disk under its digest and committed in the catalogue.

Verification and Storage SCP (PS3.4 A, B). A data set goes byte for byte into a Part 10 file; of its
content only the indexed elements are read. What is refused for what it is, is quarantined.
"""

import hashlib
import string
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from service import log
from service.application_entity import AssociationEnd, Peer
from service.data_phase import StoreRequest
from service.dimse_status import (
    Answer,
    CannotUnderstand,
    ClassNotSupported,
    DoesNotMatch,
    InvalidInstance,
    Refusal,
    answer,
)
from service.disk_watermark import DiskWatermark
from service.group_commit import GroupCommit
from service.header import HeaderError, Scan, scan
from service.part10 import head
from service.presentation_contexts import Policy, is_storage
from storage.catalog import Catalog
from storage.errors import OutOfSpace, StorageError, file_errors
from storage.instances import InstanceStore
from storage.records import Header, Instance, QuarantinedObject, Registration

FIRST_BYTES = 64 << 10  # of a data set, in which nearly every header ends
MOST_BYTES = 8 << 20  # read again from the file for one whose header is longer
BUFFER = 256 << 10  # bytes gathered for one write to the disk

_IDENTIFYING = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_LONGEST_UID = 64
_UID_CHARACTERS = frozenset(string.ascii_letters + string.digits + ".-_")

Result = TypeVar("Result")


class StorageSCP:
    """The Storage service of one receive process."""

    def __init__(
        self,
        *,
        instances: InstanceStore,
        catalog: Catalog,
        minimum_free_bytes: int,
        private_sop_classes: Policy,
        clock: Callable[[], datetime],
        watermark: DiskWatermark | None = None,
    ) -> None:
        self.instances = instances
        self.catalog = catalog
        self.private_sop_classes = private_sop_classes
        self.clock = clock
        self.group = GroupCommit(sync=instances.sync, register=catalog.register)
        self.watermark = watermark or DiskWatermark(
            free_bytes=instances.free_bytes, minimum_free_bytes=minimum_free_bytes
        )

    def begin(self, peer: Peer) -> "Reception":
        """An association begins."""
        return Reception(self, peer)

    def close(self) -> None:
        """Commits what waits; call it after the associations have ended."""
        self.group.close()


class Reception:
    """What one association sends; it ends with one line in the log."""

    def __init__(self, scp: StorageSCP, peer: Peer) -> None:
        self.scp = scp
        self.peer = peer
        self._counts: Counter[str] = Counter()

    def store(self, request: StoreRequest) -> "Arrival":
        """An object is coming."""
        return Arrival(self, request)

    def stored(self, registration: Registration, size: int) -> None:
        """An object was answered Success."""
        self._counts["instances"] += 1
        self._counts["bytes"] += size
        self._counts["duplicates"] += registration is Registration.DUPLICATE
        self._counts["conflicts"] += registration is Registration.CONFLICT

    def refused(self, request: StoreRequest, given: Answer, size: int) -> None:
        """An object was answered with a failure."""
        self._counts["refused"] += 1
        log.event(
            "object.refused",
            calling_ae_title=self.peer.calling_ae_title,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            status=f"0x{given.status:04X}",
            reason=given.comment,
            bytes=size,
        )

    def ended(self, end: AssociationEnd) -> None:
        """The association is over."""
        log.event(
            "association",
            calling_ae_title=self.peer.calling_ae_title,
            called_ae_title=self.peer.called_ae_title,
            peer_address=self.peer.address,
            tls=self.peer.tls,
            outcome=end.outcome,
            reason=end.reason,
            seconds=end.seconds,
            instances=self._counts["instances"],
            duplicates=self._counts["duplicates"],
            conflicts=self._counts["conflicts"],
            refused=self._counts["refused"],
            bytes=self._counts["bytes"],
        )


class Arrival:
    """One object on its way in. The first problem decides its status; then the bytes only pass."""

    def __init__(self, reception: Reception, request: StoreRequest) -> None:
        self._reception = reception
        self._scp = reception.scp
        self._request = request
        self._digest = hashlib.sha256(request.transfer_syntax_uid.encode("ascii") + b"\0")
        self._first = bytearray()
        self._size = 0
        self._part: Path | None = None
        self._file: BinaryIO | None = None
        self._problem: Exception | None = None
        self._attempt(self._open)

    def write(self, fragment: memoryview) -> None:
        """More of the data set."""
        self._size += len(fragment)
        if self._problem is None:
            self._attempt(lambda: self._keep(fragment))

    def finish(self) -> Answer:
        """The one place where a status is made: Success only when the catalogue answered."""
        registration = None if self._problem else self._attempt(self._accept)
        if registration is not None:
            self._reception.stored(registration, self._size)
            return answer(None)
        given = answer(self._problem or StorageError("nothing was registered"))
        self._reception.refused(self._request, given, self._size)
        if isinstance(self._problem, Refusal):
            self._attempt(lambda: self._quarantine(str(self._problem)))
        self.discard()
        return given

    def discard(self) -> None:
        """Removes what came so far."""
        try:
            self._close()
        except OSError:
            self._file = None  # its last bytes found no room; it goes anyway
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None

    def _attempt(self, step: Callable[[], Result]) -> Result | None:
        try:
            return step()
        except Exception as problem:  # noqa: BLE001  (a rim: it becomes a status)
            self._problem = problem
            if not isinstance(problem, Refusal):
                self.discard()
            if not isinstance(problem, Refusal | OutOfSpace):
                log.failure("failure", problem, detail="storing an object")
            return None

    def _open(self) -> None:
        self._check_room()
        part = self._scp.instances.new_part()
        with file_errors("receiving an object"):
            self._file = part.open("xb", buffering=BUFFER)
            self._part = part
            self._file.write(
                head(
                    sop_class_uid=self._request.sop_class_uid,
                    sop_instance_uid=self._request.sop_instance_uid,
                    transfer_syntax_uid=self._request.transfer_syntax_uid,
                )
            )

    def _keep(self, fragment: memoryview) -> None:
        if self._file is None:
            return
        self._first += fragment[: FIRST_BYTES - len(self._first)]
        self._digest.update(fragment)
        with file_errors("receiving an object"):
            self._file.write(fragment)
        self._check_room(len(fragment))

    def _check_room(self, written: int = 0) -> None:
        if not self._scp.watermark.has_room(written):
            raise OutOfSpace("less is free than is kept")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _accept(self) -> Registration:
        with file_errors("receiving an object"):
            self._close()
        check_command(self._request, self._scp.private_sop_classes)
        header = self._header()
        check_identity(header, self._request)
        return self._keep_for_good(header)

    def _keep_for_good(self, header: Header) -> Registration:
        part, digest = self._existing_part(), self._digest.hexdigest()
        size = part.stat().st_size
        key = self._scp.instances.adopt(part, digest)
        self._part = None
        return self._scp.group.commit(
            Instance(
                study_instance_uid=header["StudyInstanceUID"][0],
                series_instance_uid=header["SeriesInstanceUID"][0],
                sop_instance_uid=header["SOPInstanceUID"][0],
                sop_class_uid=header["SOPClassUID"][0],
                transfer_syntax_uid=self._request.transfer_syntax_uid,
                digest=digest,
                key=key,
                size=size,
                received_at=self._scp.clock(),
                calling_ae_title=self._reception.peer.calling_ae_title,
                header=header,
            )
        )

    def _header(self) -> Header:
        try:
            found = self._scanned(bytes(self._first))
            if found.cut and self._size > len(self._first):
                found = self._scanned(self._more())
        except HeaderError as problem:
            raise CannotUnderstand(str(problem)) from problem
        if found.cut and self._size <= MOST_BYTES:
            raise CannotUnderstand("the data set ends inside an element")
        return found.header

    def _scanned(self, data: bytes) -> Scan:
        whole = len(data) == self._size
        return scan(data, self._request.transfer_syntax_uid, whole=whole)

    def _more(self) -> bytes:
        part = self._existing_part()
        with file_errors("reading what came"), part.open("rb") as file:
            file.seek(part.stat().st_size - self._size)
            return file.read(MOST_BYTES)

    def _existing_part(self) -> Path:
        if self._part is None:
            raise StorageError("nothing was received")
        return self._part

    def _quarantine(self, reason: str) -> None:
        key = self._scp.instances.quarantine(self._existing_part())
        self._part = None
        self._scp.catalog.quarantine_object(
            QuarantinedObject(
                key=key,
                size=self._size,
                reason=reason,
                received_at=self._scp.clock(),
                calling_ae_title=self._reception.peer.calling_ae_title,
            )
        )


def check_command(request: StoreRequest, private: Policy) -> None:
    """Raises what a command without a usable SOP class or instance deserves."""
    if not is_uid(request.sop_instance_uid):
        raise InvalidInstance("the command has no valid Affected SOP Instance UID")
    if not is_storage(request.sop_class_uid, private):
        raise ClassNotSupported("the SOP class of the command is not stored here")


def check_identity(header: Header, request: StoreRequest) -> None:
    """Raises when the data set lacks what identifies it, or is not what the command says."""
    for keyword in _IDENTIFYING:
        values = header.get(keyword, ())
        if not values:
            raise CannotUnderstand(f"the data set has no {keyword}")
        if len(values) > 1 or not is_uid(values[0]):
            raise CannotUnderstand(f"{keyword} of the data set is not a UID")
    if header["SOPInstanceUID"][0] != request.sop_instance_uid:
        raise DoesNotMatch("SOP Instance UID differs between command and data set")
    if header["SOPClassUID"][0] != request.sop_class_uid:
        raise DoesNotMatch("SOP Class UID differs between command and data set")


def is_uid(text: str) -> bool:
    """Whether `text` can serve as a UID; letters of careless devices pass, nothing else."""
    return 0 < len(text) <= _LONGEST_UID and text.isascii() and not set(text) - _UID_CHARACTERS
