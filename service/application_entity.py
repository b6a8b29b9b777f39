"""Who may call, about what, how many and how long; no peer can make another one wait.

pynetdicom listens, negotiates, releases and aborts. The data sets of C-STORE requests go to the
storage service fragment by fragment, as they come: an object is never in memory as a whole.
"""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from socketserver import BaseServer
from typing import Any, Protocol

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import (
    AddressInformation,
    RequestHandler,
    ThreadedAssociationServer,
)

from service.data_phase import DataPhase, StorageSession
from service.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from service.presentation_contexts import VERIFICATION, Policy, accepted
from service.transport import Bell, Checkpoint, PduSocket, WakingQueue

HANDSHAKE_SECONDS = 5.0
LAST_SECONDS = 5.0  # for what was aborted to be cleared away
LOCAL_LIMIT_EXCEEDED = (0x02, 0x03, 0x02)  # transient, presentation related (PS3.8 Table 9-21)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who called whom."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationEnd:
    """`outcome`: released, aborted (by either), rejected (with `reason`), lost (no connection)."""

    outcome: str
    reason: str | None
    seconds: float


class AssociationSession(StorageSession, Protocol):
    """One association, as a service sees it."""

    def ended(self, end: AssociationEnd) -> None:
        """The association is over; nothing more comes."""


class Service(Protocol):
    """What our application entity offers."""

    def begin(self, peer: Peer) -> AssociationSession:
        """A peer wants an association; it may still be rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one receive process grants; time-outs in seconds; no accepted callers means anyone."""

    accepted_calling_ae_titles: tuple[str, ...] = ()
    require_called_ae_title: bool = False
    maximum_associations: int = 100
    maximum_pdu_bytes: int = 131_072
    network_timeout: float = 300.0
    acse_timeout: float = 30.0
    private_sop_classes: Policy = True

    def welcomes(self, peer: Peer, ae_title: str) -> bool:
        """Whether `peer` may call us, `ae_title`, by the titles it uses."""
        known = self.accepted_calling_ae_titles
        right_number = peer.called_ae_title == ae_title or not self.require_called_ae_title
        return right_number and (not known or peer.calling_ae_title in known)


class ApplicationEntity:
    """Our AE on one port. `share_port`: other processes may listen on it too (SO_REUSEPORT)."""

    def __init__(
        self,
        *,
        ae_title: str,
        host: str,
        port: int,
        service: Service,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        share_port: bool = False,
    ) -> None:
        _configure_pynetdicom()
        self._ae = _pynetdicom_ae(ae_title, limits)
        self._address = (host, port)
        self._make_server = partial(
            _Server, service=service, limits=limits, tls=tls, share_port=share_port
        )
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on; the configured one before `start`."""
        return int(self._server.server_address[1]) if self._server else self._address[1]

    @property
    def associations(self) -> int:
        """Open connections, negotiated or not."""
        return len(self._server.connections) if self._server else 0

    def start(self) -> None:
        """Listens from here on; `OSError` when the address cannot be had."""
        ae = self._ae
        server = self._make_server(ae, self._address, ae.ae_title, ae.supported_contexts)
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="accept", daemon=True
        )
        self._thread.start()

    def stop(self, *, grace: float = 10.0) -> None:
        """Accepts nobody more, lets associations end for `grace` seconds, then aborts the rest."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.dismiss_silent()
        if not self._server.drained(grace):
            self._server.abort_all()
            self._server.drained(LAST_SECONDS)
        self._server = None


def _configure_pynetdicom() -> None:
    """The only place where pynetdicom's globals are set."""
    _config.LOG_HANDLER_LEVEL = "none"  # its handlers write what peers send
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False


def _pynetdicom_ae(ae_title: str, limits: Limits) -> AE:
    ae = AE(ae_title)
    ae.require_calling_aet = list(limits.accepted_calling_ae_titles)
    ae.require_called_aet = limits.require_called_ae_title
    ae.maximum_associations = 1_000_000  # _Server counts: silent connections are no associations
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = limits.maximum_pdu_bytes
    ae.network_timeout = limits.network_timeout
    ae.acse_timeout = limits.acse_timeout
    ae.dimse_timeout = limits.network_timeout
    ae.add_supported_context(VERIFICATION)
    return ae


class _Server(ThreadedAssociationServer):
    """Accepts connections; all that may take time happens in the connection's own thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        *,
        service: Service,
        limits: Limits,
        tls: ssl.SSLContext | None,
        share_port: bool,
    ) -> None:
        self.service = service
        self.limits = limits
        self._tls = tls
        self._share_port = share_port
        self._lock = threading.Lock()
        self.connections: set[_Connection] = set()
        super().__init__(ae, address, ae_title, contexts, request_handler=_Connection)

    def server_bind(self) -> None:
        if self._share_port and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection, not yet shaken hands with: that would let one silent peer stop all."""
        if self.socket is None:
            raise OSError("not listening")
        connection, address = self.socket.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.limits.network_timeout)
        if self._tls is None:
            return connection, address
        wrapped = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return wrapped, address

    def shutdown(self) -> None:
        """Ends `serve_forever` and frees the port."""
        BaseServer.shutdown(self)  # pynetdicom's own only knows servers that its AE started
        self.server_close()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Bounds the threads that connections without an association can take."""
        del request, client_address
        return len(self.connections) < 2 * self.limits.maximum_associations + 16

    def finish_request(self, request: Any, client_address: Any) -> None:
        if isinstance(request, ssl.SSLSocket) and not self._shaken_hands(request):
            self.shutdown_request(request)
            return
        super().finish_request(request, client_address)

    def _shaken_hands(self, connection: ssl.SSLSocket) -> bool:
        connection.settimeout(HANDSHAKE_SECONDS)
        try:
            connection.do_handshake()
        except OSError:  # also of TLS: not our kind of peer
            return False
        connection.settimeout(self.limits.network_timeout)
        return True

    def entered(self, connection: "_Connection") -> None:
        with self._lock:
            self.connections.add(connection)

    def left(self, connection: "_Connection") -> None:
        with self._lock:
            self.connections.discard(connection)

    def is_full(self, asking: "_Connection") -> bool:
        """Whether as many associations as we allow are open besides that of `asking`."""
        with self._lock:
            others = sum(each.negotiated for each in self.connections if each is not asking)
            asking.negotiated = others < self.limits.maximum_associations
            return not asking.negotiated

    def drained(self, seconds: float) -> bool:
        """Waits until no connection is left; False when some are after `seconds`."""
        end = time.monotonic() + seconds
        while self.connections and time.monotonic() < end:
            time.sleep(0.02)
        return not self.connections

    def dismiss_silent(self) -> None:
        """Ends the connections that have not asked for an association."""
        with self._lock:
            silent = [connection for connection in self.connections if not connection.negotiated]
        for connection in silent:
            connection.abort()

    def abort_all(self) -> None:
        with self._lock:
            connections = list(self.connections)
        for connection in connections:
            connection.abort()


class _Connection(RequestHandler):
    """One connection; its thread waits for the end of the association and then closes the books."""

    server: _Server

    def setup(self) -> None:
        self.negotiated = False
        self._began = time.monotonic()
        self._last_primitive: object = None
        self._session: AssociationSession | None = None
        self._association: Association | None = None
        self._data_phase: DataPhase | None = None
        self._bell = Bell()
        self._news = threading.Event()
        self.server.entered(self)

    def handle(self) -> None:
        super().handle()  # makes the association and starts its threads
        if self._association is not None:
            self._association.join()
            self._association.dul.join()

    def finish(self) -> None:
        if self._data_phase is not None:
            self._data_phase.discard()
        if self._session is not None:
            self._session.ended(self._end())
        self._bell.close()
        self.server.left(self)

    def abort(self) -> None:
        """Ends the association from our side."""
        if self._association is not None and self._association.is_established:
            self._association.abort(block=False)
        else:
            self.server.shutdown_request(self.request)
            self._wait_no_more()

    def on_closed(self, event: evt.Event) -> None:
        """The connection is gone, be it a probe that never asked for an association."""
        del event
        if self._session is None:
            self._wait_no_more()

    def _wait_no_more(self) -> None:
        """What pynetdicom's acceptor takes for a request that did not come in time."""
        if self._association is not None:
            waiting: queue.Queue[Any] = self._association.dul.to_user_queue
            waiting.put(None)

    def on_requested(self, event: evt.Event) -> None:
        """An A-ASSOCIATE-RQ came: what of it is taken."""
        self._requested(event.assoc)

    def on_acse(self, event: evt.Event) -> None:
        """An A-ASSOCIATE, A-RELEASE or A-ABORT passed, either way."""
        self._last_primitive = vars(event)["primitive"]

    def _create_association(self) -> Association:
        association = Association(self.ae, "acceptor")
        association._server = self.server  # noqa: SLF001  (as its own handler does)
        association.name = f"AcceptorThread@{id(association)}"  # the name it counts by
        association.dul.to_provider_queue = WakingQueue(self._bell.ring)
        association.dul.to_user_queue = WakingQueue(self._news.set)
        association._reactor_checkpoint = Checkpoint(self._news)  # noqa: SLF001  (it polls without)
        association.set_socket(PduSocket(association, self.request, self._bell))
        acceptor = association.acceptor
        acceptor.ae_title = self.server.ae_title
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = []
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        association.bind(evt.EVT_REQUESTED, self.on_requested)
        association.bind(evt.EVT_ACSE_RECV, self.on_acse)
        association.bind(evt.EVT_ACSE_SENT, self.on_acse)
        association.bind(evt.EVT_CONN_CLOSE, self.on_closed)
        self._association = association
        return association

    def _requested(self, association: Association) -> None:
        request = association.requestor.primitive
        if request is None:
            return
        peer = Peer(
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=str(self.client_address[0]),
            tls=isinstance(self.request, ssl.SSLSocket),
        )
        self._session = self.server.service.begin(peer)
        self._data_phase = DataPhase(association, self._session)
        self._data_phase.msg_queue = WakingQueue(self._news.set)
        if isinstance(association.dul.socket, PduSocket):
            association.dul.socket.sink = self._data_phase.receive_pdu
        association.dimse = self._data_phase
        association.acceptor.supported_contexts = self._contexts(
            request.presentation_context_definition_list
        )
        welcome = self.server.limits.welcomes(peer, self.server.ae_title)
        if welcome and self.server.is_full(self):  # who is not welcome takes no place
            association.acse.send_reject(*LOCAL_LIMIT_EXCEEDED)
            association.kill()

    def _contexts(self, proposed: Sequence[PresentationContext]) -> list[PresentationContext]:
        pairs = [(str(each.abstract_syntax), each.transfer_syntax) for each in proposed]
        found = accepted(pairs, self.server.limits.private_sop_classes)
        return [build_context(abstract, list(transfers)) for abstract, transfers in found.items()]

    def _end(self) -> AssociationEnd:
        association = self._association
        seconds = time.monotonic() - self._began
        if association is not None and association.is_rejected:
            reason = _rejection(association)
            return AssociationEnd(outcome="rejected", reason=reason, seconds=seconds)
        if association is not None and association.is_released:
            return AssociationEnd(outcome="released", reason=None, seconds=seconds)
        aborted = isinstance(self._last_primitive, A_ABORT)
        outcome = "aborted" if aborted else "lost"
        return AssociationEnd(outcome=outcome, reason=None, seconds=seconds)


def _rejection(association: Association) -> str | None:
    answer = association.acceptor.primitive
    return str(answer.reason_str) if answer is not None else None
