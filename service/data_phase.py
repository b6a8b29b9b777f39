"""A data set passes through, fragment by fragment; C-STORE requests are answered in order.

Stands in for pynetdicom's DIMSE provider of an association; every other message is handled by that
one. What breaks the protocol raises, upon which pynetdicom aborts the association.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import P_DATA

from service.dimse_status import Answer

C_STORE_RQ = 0x0001
NO_DATA_SET = 0x0101
LARGEST_COMMAND = 64 << 10  # bytes; a command set has a few hundred
LARGEST_IDENTIFIER = 16 << 20  # bytes of a data set that is not stored (a query, an action)

_LONGEST_UID = 64
_COMMAND, _LAST = 0x01, 0x02  # bits of the message control header (PS3.8 E.2)


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
        self._request: Dataset | None = None
        self._operation: StoreOperation | None = None
        self._other_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """One P-DATA-TF: one or more presentation data values."""
        for context_id, value in primitive.presentation_data_value_list:
            self._receive(context_id, memoryview(value))

    def discard(self) -> None:
        """The association is over: what was on its way is not kept."""
        if self._operation is not None:
            self._operation.discard()
            self._operation = None

    def _receive(self, context_id: int, value: memoryview) -> None:
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
        self._command += fragment
        if len(self._command) > LARGEST_COMMAND:
            raise ProtocolError("a command set without an end")
        if last:
            whole = bytes(self._command)
            self._command.clear()
            self._begin(context_id, whole)

    def _begin(self, context_id: int, whole: bytes) -> None:
        command = decode(BytesIO(whole), is_implicit_vr=True, is_little_endian=True)
        if command.get("CommandField") != C_STORE_RQ:
            self._other_bytes = 0
            self._receive_other(context_id, memoryview(bytes([_COMMAND | _LAST]) + whole))
            return
        request = StoreRequest(
            sop_class_uid=_text(command, "AffectedSOPClassUID"),
            sop_instance_uid=_text(command, "AffectedSOPInstanceUID"),
            transfer_syntax_uid=self._transfer_syntax(context_id),
        )
        self._request = command
        self._operation = self._session.store(request)
        if command.get("CommandDataSetType") == NO_DATA_SET:
            self._end(context_id)

    def _receive_data_set(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
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
        self.send_msg(_response(request, answer), context_id)

    def _receive_other(self, context_id: int, value: memoryview) -> None:
        self._other_bytes += len(value)
        if self._other_bytes > LARGEST_IDENTIFIER:
            raise ProtocolError("an identifier without an end")
        single = P_DATA()
        single.presentation_data_value_list = [[context_id, bytes(value)]]  # type: ignore[list-item]
        super().receive_primitive(single)

    def _transfer_syntax(self, context_id: int) -> str:
        for context in self.assoc.accepted_contexts:
            if context.context_id == context_id:
                return str(context.transfer_syntax[0])
        raise ProtocolError(f"presentation context {context_id} was not accepted")


def _text(command: Dataset, keyword: str) -> str:
    value: Any = command.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def _response(request: Dataset, answer: Answer) -> C_STORE:
    response = C_STORE()
    response.MessageIDBeingRespondedTo = request.MessageID
    response.AffectedSOPClassUID = _echoed(_text(request, "AffectedSOPClassUID"))
    response.AffectedSOPInstanceUID = _echoed(_text(request, "AffectedSOPInstanceUID"))
    response.Status = answer.status
    if answer.comment:
        response.ErrorComment = answer.comment  # type: ignore[assignment]  # typed as None there
    return response


def _echoed(uid: str) -> UID | None:
    """A UID of the request for its response, if it can be sent."""
    return UID(uid) if 0 < len(uid) <= _LONGEST_UID else None
