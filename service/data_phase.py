"""A data set passes through, fragment by fragment; C-STORE requests are answered in order.

Stands in for pynetdicom's DIMSE provider of an association; every other message is handled by that
one. A peer that breaks the protocol is aborted.
"""

import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from service import command_set, log
from service.command_set import CommandSet, CommandSetError
from service.dimse_status import Answer

LARGEST_COMMAND = 64 << 10  # bytes; a command set has a few hundred
LARGEST_IDENTIFIER = 16 << 20  # bytes of a data set that is not stored (a query, an action)
MOST_WAITING = 100  # requests not yet served; one is agreed on (PS3.7 D.3.3.3)
PAUSE_SECONDS = 0.001

INVALID_PDU = "Evt19"  # of the state machine: abort (PS3.8 9.2.1)

_COMMAND, _LAST = 0x01, 0x02  # bits of the message control header (PS3.8 E.2)
_P_DATA_TF = 0x04  # PDU type (PS3.8 9.3.5)
_VALUE_HEAD = struct.Struct(">LB")  # of a presentation data value: length, context ID


class ProtocolError(Exception):
    """The peer does not keep to PS3.7 or PS3.8; the association cannot go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """What a C-STORE-RQ says, unchecked: empty where the command says nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class StoreOperation(Protocol):
    """One object on its way in. None of the methods raises."""

    def write(self, fragment: memoryview) -> None:
        """More of the data set."""

    def finish(self) -> Answer:
        """That was all of it; Success only when it is durable."""

    def discard(self) -> None:
        """The rest will never come."""


class StorageSession(Protocol):
    """What an association stores into."""

    def store(self, request: StoreRequest) -> StoreOperation:
        """An object is coming."""


class DataPhase(DIMSEServiceProvider):
    """Runs in the thread that reads the connection; that is what holds a fast peer back."""

    def __init__(self, association: Association, session: StorageSession) -> None:
        super().__init__(association)
        self._session = session
        self._command = bytearray()
        self._context_id = 0  # of the command; its data set has the same
        self._request: CommandSet | None = None
        self._operation: StoreOperation | None = None
        self._other_bytes = 0
        self._broken = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """One P-DATA-TF, as pynetdicom read it: one or more presentation data values."""
        values = primitive.presentation_data_value_list
        self._receive_all((context_id, memoryview(value)) for context_id, value in values)

    def receive_pdu(self, body: memoryview) -> None:
        """One P-DATA-TF without its first 6 bytes; `body` may be overwritten afterwards."""
        self._receive_all(_values(body))

    def discard(self) -> None:
        """The association is over: what was on its way is not kept."""
        if self._operation is not None:
            self._operation.discard()
            self._operation = None

    def _receive_all(self, values: Iterable[tuple[int, memoryview]]) -> None:
        if self._broken:
            return
        try:
            for context_id, value in values:
                self._receive(context_id, value)
        except (ProtocolError, CommandSetError) as problem:
            self._broken = True
            log.failure("failure", problem, detail=str(problem))
            self.dul.event_queue.put(INVALID_PDU)

    def _receive(self, context_id: int, value: memoryview) -> None:
        if not value:
            raise ProtocolError("a presentation data value without a control header")
        control, fragment = value[0], value[1:]
        last = bool(control & _LAST)
        if control & _COMMAND:
            self._receive_command(context_id, fragment, last=last)
        elif self._operation is not None:
            self._receive_data_set(context_id, fragment, last=last)
        else:
            self._receive_other(context_id, value)

    def _receive_command(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self._operation is not None:
            raise ProtocolError("a command in the middle of a data set")
        self._context_id = context_id
        self._command += fragment
        if len(self._command) > LARGEST_COMMAND:
            raise ProtocolError("a command set without an end")
        if last:
            whole = bytes(self._command)
            self._command.clear()
            self._begin(context_id, whole)

    def _begin(self, context_id: int, whole: bytes) -> None:
        command = command_set.parse(whole)
        if command_set.integer(command, command_set.COMMAND_FIELD) != command_set.C_STORE_RQ:
            self._other_bytes = 0
            self._receive_other(context_id, memoryview(bytes([_COMMAND | _LAST]) + whole))
            return
        request = StoreRequest(
            sop_class_uid=command_set.text(command, command_set.AFFECTED_SOP_CLASS_UID),
            sop_instance_uid=command_set.text(command, command_set.AFFECTED_SOP_INSTANCE_UID),
            transfer_syntax_uid=self._transfer_syntax(context_id),
        )
        self._request = command
        self._operation = self._session.store(request)
        data_set = command_set.integer(command, command_set.COMMAND_DATA_SET_TYPE)
        if data_set == command_set.NO_DATA_SET:
            self._end(context_id)

    def _receive_data_set(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if context_id != self._context_id:  # it may be in another transfer syntax
            raise ProtocolError("a data set in another presentation context than its command")
        if self._operation is not None:
            self._operation.write(fragment)
        if last:
            self._end(context_id)

    def _end(self, context_id: int) -> None:
        operation, request = self._operation, self._request
        if operation is None or request is None:
            return
        answer = operation.finish()
        self._operation, self._request = None, None
        response = command_set.store_response(request, answer.status, answer.comment)
        self._send(context_id, response)

    def _send(self, context_id: int, command: bytes) -> None:
        """At once: this is the thread that would take it from a queue."""
        if self.dul.socket is not None:
            value = bytes([context_id, _COMMAND | _LAST]) + command
            item = struct.pack(">L", len(value)) + value
            self.dul.socket.send(struct.pack(">BxL", _P_DATA_TF, len(item)) + item)

    def _receive_other(self, context_id: int, value: memoryview) -> None:
        self._other_bytes += len(value)
        if self._other_bytes > LARGEST_IDENTIFIER:
            raise ProtocolError("an identifier without an end")
        while self.msg_queue.qsize() > MOST_WAITING:
            if not self._is_served():
                return
            time.sleep(PAUSE_SECONDS)  # nothing is read meanwhile: that holds the peer back
        super().receive_primitive(_p_data(context_id, bytes(value)))

    def _is_served(self) -> bool:
        """Whether the thread that takes messages from the queue still does."""
        return self.assoc.is_alive() and not self.assoc._kill  # noqa: SLF001

    def _transfer_syntax(self, context_id: int) -> str:
        for context in self.assoc.accepted_contexts:
            if context.context_id == context_id:
                return str(context.transfer_syntax[0])
        raise ProtocolError(f"presentation context {context_id} was not accepted")


def _values(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Context ID and presentation data value of each item (PS3.8 9.3.5.1)."""
    while body:
        if len(body) < _VALUE_HEAD.size:
            raise ProtocolError("a presentation data value that is cut off")
        length, context_id = _VALUE_HEAD.unpack_from(body)
        end = _VALUE_HEAD.size - 1 + length
        if not length or end > len(body):
            raise ProtocolError("a presentation data value longer than its PDU")
        yield context_id, body[_VALUE_HEAD.size : end]
        body = body[end:]


def _p_data(context_id: int, value: bytes) -> P_DATA:
    made = P_DATA()
    made.presentation_data_value_list = [[context_id, value]]  # type: ignore[list-item]
    return made
