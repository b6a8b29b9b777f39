"""A PACS: objects leave by C-STORE byte for byte, each answered before the next; waits end."""

import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import time

from service.destinations import Answer, DestinationError, Outcome, Outgoing, broken, in_order

# A file given by its path is sent from the disk as it is: neither decoded nor encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True

MAXIMUM_CONTEXTS = 128  # PS3.8 Table 9-11: odd identifiers from 1 to 255
SLOWEST_BYTES_PER_SECOND = 250_000  # over a 2 Mbit/s line a large object still gets through in time
GRACE_SECONDS = 5.0  # for an abort to leave before the connection is cut

Kind = tuple[str, str]
"""(SOP Class UID, Transfer Syntax UID) of a file."""

REFUSALS = (  # first status, last status, answer, meaning: PS3.4 Table B.2-1, PS3.7 Annex C
    (0x0117, 0x0117, Answer.REFUSED, "invalid SOP instance"),
    (0x0122, 0x0122, Answer.REFUSED, "SOP class not supported"),
    (0x0124, 0x0124, Answer.REFUSED, "not authorised"),
    (0xA700, 0xA7FF, Answer.TRANSIENT, "out of resources"),
    (0xA900, 0xA9FF, Answer.REFUSED, "data set does not match SOP class"),
    (0xC000, 0xCFFF, Answer.TRANSIENT, "cannot understand"),
)
DUPLICATE = (
    0x0111  # "duplicate SOP instance": our UIDs follow the content, so it has this very object
)


SETTINGS = {
    "ae_title": {"type": "ae_title", "about": "the peer's AE title"},
    "host": {"type": "host", "about": "the peer's name or address"},
    "port": {"type": "port", "about": "the peer's port"},
    "tls": {"type": "boolean", "default": False, "about": "connect by TLS 1.2 or later"},
    "tls_certificate_authority": {
        "type": "path",
        "default": None,
        "about": "PEM file of who signs the peer's certificate; without it the system's",
    },
    "tls_certificate": {
        "type": "path",
        "default": None,
        "about": "PEM file of our certificate, for a peer that asks for one",
    },
    "tls_private_key": {
        "type": "path",
        "default": None,
        "about": "PEM file of its key; without it the key is in tls_certificate",
    },
    "tls_check_host_name": {
        "type": "boolean",
        "default": True,
        "about": "the peer's certificate must name its host",
    },
    "connection_seconds": {
        "type": "seconds",
        "default": 10,
        "about": "how long we wait for the TCP connection and the TLS handshake",
    },
    "association_seconds": {
        "type": "seconds",
        "default": 30,
        "about": "how long we wait for the answer to an association or release request",
    },
    "response_seconds": {
        "type": "seconds",
        "default": 60,
        "about": "how long we wait for the answer to one object; a large one gets more",
    },
    "network_seconds": {
        "type": "seconds",
        "default": 60,
        "about": "how long a connection may stand without a byte moving",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of `SETTINGS`."""

    ae_title: str
    host: str
    port: int
    tls: bool = False
    tls_certificate_authority: str | None = None
    tls_certificate: str | None = None
    tls_private_key: str | None = None
    tls_check_host_name: bool = True
    connection_seconds: float = 10
    association_seconds: float = 30
    response_seconds: float = 60
    network_seconds: float = 60


def destination(settings: Mapping[str, Any], *, calling_ae_title: str) -> "Destination":
    """The destination of a configuration's settings."""
    return Destination(settings=Settings(**settings), calling_ae_title=calling_ae_title)


@dataclass(frozen=True, slots=True)
class Destination:
    """Storage and Verification SCU (PS3.4 Annexes B and A) for one peer."""

    settings: Settings
    calling_ae_title: str

    def send(self, results: Sequence[Outgoing]) -> Generator[Outcome, None, None]:
        """Yield an outcome per object; one association for all, unless the peer ends it."""
        kinds = {each.sop_instance_uid: _kind(each.path) for each in results}
        proposed = contexts(kind for kind in kinds.values() if kind is not None)
        with closing(_Line(self.settings, self.calling_ae_title, proposed)) as line:
            yield from in_order(
                results, lambda each: line.deliver(each, kinds[each.sop_instance_uid])
            )

    def echo(self) -> None:
        """C-ECHO; raise `DestinationError` with the reason when it is not answered Success."""
        with closing(
            _Line(self.settings, self.calling_ae_title, [build_context(Verification)])
        ) as line:
            line.echo()


def contexts(kinds: Iterable[Kind]) -> list[PresentationContext]:
    """One context per kind as stored, then Implicit VR Little Endian for who takes nothing else.

    PS3.5 section 10.1 asks to propose the default transfer syntax for what is not compressed.
    """
    stored = sorted(set(kinds))
    default = [
        (sop_class, str(ImplicitVRLittleEndian))
        for sop_class, syntax in stored
        if syntax == ExplicitVRLittleEndian
    ]
    proposed = dict.fromkeys([*stored, *default])
    return [build_context(*kind) for kind in proposed][:MAXIMUM_CONTEXTS]


def judge(status: int) -> tuple[Answer, str | None]:
    """What a C-STORE status says of the object, in words unless it is plain Success."""
    if status == 0x0000:
        return Answer.SENT, None
    if status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return Answer.SENT, f"stored with warning 0x{status:04X}"
    if status == DUPLICATE:
        return Answer.SENT, "the destination had it already (0x0111)"
    for first, last, answer, meaning in REFUSALS:
        if first <= status <= last:
            return answer, f"answered 0x{status:04X}, {meaning}"
    return Answer.TRANSIENT, f"answered 0x{status:04X}"


class Turnstile(threading.Event):
    """Holds pynetdicom's reactor up while an answer is awaited.

    Its own event lets a reactor that is slow to wake up pass when the next request is on its way
    already: then that takes the answer, and the sender waits for nothing until its time-out.
    """

    def __init__(self, association: Any) -> None:
        super().__init__()
        self._association = association
        self._passing = threading.Lock()
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Pass once it is open; from then on the reactor does not count as paused."""
        while super().wait(timeout):
            with self._passing:
                if self.is_set():
                    self._association._is_paused = False  # noqa: SLF001
                    return True
        return False

    def clear(self) -> None:
        """Close it: nobody passes who has not passed yet."""
        with self._passing:
            super().clear()


class _Line:
    """The connection to one peer while a group of objects leaves."""

    def __init__(
        self, settings: Settings, calling_ae_title: str, proposed: list[PresentationContext]
    ) -> None:
        self.settings = settings
        self.calling_ae_title = calling_ae_title
        self.proposed = proposed
        self.association: Association | None = None
        self.connection: socket.socket | None = None
        self.unreachable: str | None = None
        self.messages = 0

    def deliver(self, outgoing: Outgoing, kind: Kind | None) -> Outcome:
        """Send one object; when there is no association to be had, no later one is tried."""
        if (failure := broken(outgoing)) is not None:
            return failure
        if kind is None:
            note = "the result file is not a DICOM file"
            return Outcome(outgoing=outgoing, answer=Answer.UNSENDABLE, note=note)
        try:
            answer, words = self._store(self._associated(), outgoing, kind)
        except DestinationError as error:
            answer, words = Answer.TRANSIENT, str(error)
        return Outcome(outgoing=outgoing, answer=answer, note=words)

    def echo(self) -> None:
        """C-ECHO over the association."""
        association = self._associated()
        with self._cut_after(self.settings.response_seconds):
            status = association.send_c_echo()
        if status.get("Status") != 0x0000:
            raise DestinationError("did not answer C-ECHO with Success")

    def close(self) -> None:
        """Release the association."""
        if self.association is not None and self.association.is_established:
            with self._cut_after(self.settings.association_seconds):
                self.association.release()

    def _associated(self) -> Association:
        if self.unreachable is not None:
            raise DestinationError(self.unreachable)
        if self.association is None or not self.association.is_established:
            try:
                self.association = self._associate()
            except DestinationError as error:
                self.unreachable = str(error)
                raise
        return self.association

    def _associate(self) -> Association:
        settings = self.settings
        self.connection, started = None, time.monotonic()
        patience = settings.connection_seconds + settings.association_seconds
        try:
            with self._cut_after(patience):
                association = self._application_entity().associate(
                    settings.host,
                    settings.port,
                    contexts=self.proposed or [build_context(Verification)],
                    ae_title=settings.ae_title,
                    tls_args=_tls(settings),
                    evt_handlers=[(evt.EVT_CONN_OPEN, self._connected)],
                )
        except OSError as error:  # the name of the host, a certificate file
            reason = error.strerror or type(error).__name__
            raise DestinationError(f"no connection to {self._peer}: {reason}") from error
        if association.is_established or association.rejected_contexts:
            return association
        raise DestinationError(self._failure(association, time.monotonic() - started))

    def _application_entity(self) -> AE:
        entity = AE(self.calling_ae_title)
        entity.connection_timeout = self.settings.connection_seconds
        entity.acse_timeout = self.settings.association_seconds
        entity.dimse_timeout = self.settings.response_seconds
        entity.network_timeout = (
            None  # aborts twice beside a release; `_connected` bounds the waits
        )
        return entity

    def _connected(self, event: evt.Event) -> None:
        """Bound every read and write: pynetdicom waits for ever once the connection stands."""
        event.assoc._reactor_checkpoint = Turnstile(event.assoc)  # noqa: SLF001  (see there)
        transport = event.assoc.dul.socket
        self.connection = transport.socket if transport else None
        if self.connection is not None:
            self.connection.settimeout(self.settings.network_seconds)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _failure(self, association: Association, seconds: float) -> str:
        if association.is_rejected:
            answer = association.acceptor.primitive
            reason = answer.reason_str if answer else "no reason"
            return f"{self._peer} rejected the association: {reason}"
        if self.connection is None:
            secured = ", or the TLS handshake failed" if self.settings.tls else ""
            if seconds < self.settings.connection_seconds:
                return f"{self._peer} refused the connection, or cannot be reached{secured}"
            return f"no connection to {self._peer} within {self.settings.connection_seconds:g} s"
        if seconds < self.settings.association_seconds:
            return f"{self._peer} ended the connection instead of accepting the association"
        return (
            f"{self._peer} did not answer the association request"
            f" within {self.settings.association_seconds:g} s"
        )

    def _store(
        self, association: Association, outgoing: Outgoing, kind: Kind
    ) -> tuple[Answer, str | None]:
        accepted = {
            (str(c.abstract_syntax), str(c.transfer_syntax[0]))
            for c in association.accepted_contexts
        }
        if kind in accepted:
            return self._exchange(association, outgoing, outgoing.path)
        if (kind[0], str(ImplicitVRLittleEndian)) in accepted and kind[1] == ExplicitVRLittleEndian:
            return self._exchange(association, outgoing, dcmread(outgoing.path))
        return (
            Answer.REFUSED,
            f"{self._peer} does not accept {UID(kind[0]).name} in {UID(kind[1]).name}",
        )

    def _exchange(
        self, association: Association, outgoing: Outgoing, content: Path | Dataset
    ) -> tuple[Answer, str | None]:
        seconds = self.settings.response_seconds + outgoing.size / SLOWEST_BYTES_PER_SECOND
        association.dimse_timeout = seconds
        self.messages = self.messages % 0xFFFF + 1
        started = time.monotonic()
        try:
            with self._cut_after(seconds):
                status = association.send_c_store(content, msg_id=self.messages)
        except RuntimeError as error:  # pynetdicom's word for an association that has ended
            raise DestinationError(f"{self._peer} ended the association") from error
        if "Status" in status:
            answer, note = judge(status.Status)
            return answer, note and f"{note}{_offending(status)}"
        self.association = None  # it ended, or pynetdicom ended it: the next object gets a new one
        if time.monotonic() - started < seconds:
            return Answer.TRANSIENT, f"{self._peer} ended the association before it answered"
        return Answer.TRANSIENT, f"{self._peer} did not answer within {seconds:.0f} s"

    @contextmanager
    def _cut_after(self, seconds: float) -> Iterator[None]:
        """Cut the connection when the library's own time-outs did not end the wait."""
        timer = threading.Timer(seconds + GRACE_SECONDS, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        if self.connection is not None:
            with suppress(OSError):  # already closed: what was wanted
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    @property
    def _peer(self) -> str:
        return f"{self.settings.ae_title} at {self.settings.host}:{self.settings.port}"


def _kind(path: Path) -> Kind | None:
    try:
        meta = read_file_meta_info(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError):
        return None


def _offending(status: Dataset) -> str:
    """The attributes that the peer names; not its comment, which may quote the patient."""
    tags = status.get("OffendingElement")
    return f", offending elements {tags}" if tags else ""


def _tls(settings: Settings) -> tuple[ssl.SSLContext, str] | None:
    if not settings.tls:
        return None
    context = ssl.create_default_context(cafile=settings.tls_certificate_authority)
    context.check_hostname = settings.tls_check_host_name
    if settings.tls_certificate is not None:
        context.load_cert_chain(settings.tls_certificate, settings.tls_private_key)
    return context, settings.host
