"""A peer made of bytes, without a DICOM library: any association or fragment, right or wrong.

PS3.8 9.3 (PDUs), PS3.7 E (command sets, implicit VR little endian).
"""

import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Self

RQ, AC, RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = 1, 2, 3, 4, 5, 6, 7
COMMAND, LAST = 1, 2
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"


class RawPeer:
    """One connection. `associate` first; then whatever the test wants."""

    def __init__(
        self, port: int, *, calling: str = "RAW", tls: ssl.SSLContext | None = None
    ) -> None:
        self.calling = calling
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(plain) if tls else plain
        self.contexts: dict[int, tuple[str, str]] = {}
        self.maximum_length = 0
        self.reply = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(self, contexts: Sequence[tuple[str, Sequence[str]]], called: str = "X") -> int:
        """Proposes (abstract syntax, transfer syntaxes); the type of the PDU that answers."""
        proposed = b"".join(
            context_item(2 * number + 1, abstract, syntaxes)
            for number, (abstract, syntaxes) in enumerate(contexts)
        )
        user = item(0x51, struct.pack(">I", 131072)) + item(0x52, b"1.2.3.4")
        head = struct.pack(">HH16s16s32x", 1, 0, title(called), title(self.calling))
        body = head + item(0x10, APPLICATION_CONTEXT) + proposed + item(0x50, user)
        self.send_pdu(RQ, body)
        kind, self.reply = self.receive_pdu()
        if kind == AC:
            self._read_accept(self.reply, [abstract for abstract, _ in contexts])
        return kind

    def context(self, abstract: str, syntax: str) -> int:
        """The id of the accepted context."""
        return next(i for i, found in self.contexts.items() if found == (abstract, syntax))

    def store(
        self,
        context_id: int,
        sop_class: str,
        sop_instance: str,
        data: bytes,
        *,
        fragment: int = 60_000,
    ) -> int:
        """A whole C-STORE; the status of its response."""
        self.send_command(context_id, store_request(sop_class, sop_instance))
        self.send_data(context_id, data, fragment=fragment)
        return self.status()

    def send_command(self, context_id: int, command: bytes) -> None:
        """A command set in one fragment."""
        self.send_pdu(DATA, pdv(context_id, COMMAND | LAST, command))

    def send_data(
        self, context_id: int, data: bytes, *, fragment: int = 60_000, last: bool = True
    ) -> None:
        """A data set; without `last` its end is left open."""
        view = memoryview(data)
        for start in range(0, max(len(view), 1), fragment):
            piece = view[start : start + fragment]
            ends = last and start + fragment >= len(view)
            self.send_pdu(DATA, pdv(context_id, LAST if ends else 0, piece))

    def status(self) -> int:
        """The status of the response that comes next."""
        elements = command_elements(self.response())
        (status,) = struct.unpack("<H", elements[0x0900])
        return int(status)

    def response(self) -> bytes:
        """The command set that comes next."""
        kind, body = self.receive_pdu()
        if kind != DATA:
            raise ConnectionError(f"PDU type {kind}")
        return body[6:]

    def release(self) -> int:
        """Asks for the end; the type of the PDU that answers."""
        self.send_pdu(RELEASE_RQ, bytes(4))
        return self.receive_pdu()[0]

    def abort(self) -> None:
        """A-ABORT."""
        self.send_pdu(ABORT, bytes(4))

    def send_pdu(self, kind: int, body: bytes) -> None:
        """Any PDU."""
        self.socket.sendall(struct.pack(">BxI", kind, len(body)) + body)

    def receive_pdu(self) -> tuple[int, bytes]:
        """Type and body of the PDU that comes next; `ConnectionError` at the end."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            more = self.socket.recv(count - len(got))
            if not more:
                raise ConnectionError("closed")
            got += more
        return got

    def _read_accept(self, body: bytes, abstracts: Sequence[str]) -> None:
        at = 68
        while at < len(body):
            kind, length = struct.unpack_from(">BxH", body, at)
            content = body[at + 4 : at + 4 + length]
            if kind == 0x21 and content[2] == 0:
                syntax = content[8:].decode("ascii")
                self.contexts[content[0]] = (abstracts[content[0] // 2], syntax)
            elif kind == 0x50:
                (self.maximum_length,) = struct.unpack_from(">I", content, 4)
            at += 4 + length


def title(text: str) -> bytes:
    """An AE title, padded."""
    return text.encode("ascii").ljust(16)


def item(kind: int, content: bytes) -> bytes:
    """An item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(content)) + content


def context_item(number: int, abstract: str, syntaxes: Sequence[str]) -> bytes:
    """A proposed presentation context."""
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
    return item(0x20, struct.pack(">Bxxx", number) + inner)


def pdv(context_id: int, control: int, content: bytes | memoryview) -> bytes:
    """A presentation data value item."""
    return struct.pack(">IBB", len(content) + 2, context_id, control) + content


def element(number: int, value: bytes) -> bytes:
    """An element of a command set."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


def store_request(
    sop_class: str | None, sop_instance: str | None, *, message_id: int = 1, data_set: int = 1
) -> bytes:
    """A C-STORE-RQ; None leaves an element out."""
    elements = [
        element(0x0002, sop_class.encode()) if sop_class is not None else b"",
        element(0x0100, struct.pack("<H", 0x0001)),
        element(0x0110, struct.pack("<H", message_id)),
        element(0x0700, struct.pack("<H", 0)),
        element(0x0800, struct.pack("<H", data_set)),
        element(0x1000, sop_instance.encode()) if sop_instance is not None else b"",
    ]
    body = b"".join(elements)
    return element(0x0000, struct.pack("<I", len(body))) + body


def command_elements(command: bytes) -> dict[int, bytes]:
    """Element number -> value of a command set."""
    at, found = 0, {}
    while at < len(command):
        _, number, length = struct.unpack_from("<HHI", command, at)
        found[number] = command[at + 8 : at + 8 + length]
        at += 8 + length
    return found
