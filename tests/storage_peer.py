"""A PACS whose answers a test chooses: keeps the data set bytes as they came, one file per C-STORE.

    storage_peer.py PORT FOLDER [--status 0xA700] [--accept implicit] [--drop N] [--stall SECONDS]
        [--certificate PEM --key PEM]

`FOLDER/../status` overrides the status while it exists, so that a full PACS can be emptied.
"""

import argparse
import hashlib
import os
import ssl
import time
from pathlib import Path

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

OPTIONS = argparse.ArgumentParser()
OPTIONS.add_argument("port", type=int)
OPTIONS.add_argument("folder", type=Path)
OPTIONS.add_argument("--status", type=lambda text: int(text, 0), default=0)
OPTIONS.add_argument("--accept", choices=["all", "implicit", "reports", "nothing"], default="all")
OPTIONS.add_argument("--drop", type=int, default=0, help="end the process at the Nth C-STORE")
OPTIONS.add_argument("--stall", type=float, default=0.0, help="seconds before each answer")
OPTIONS.add_argument("--certificate", type=Path)
OPTIONS.add_argument("--key", type=Path)
SR_PREFIX = "1.2.840.10008.5.1.4.1.1.88."


def store(event: evt.Event, options: argparse.Namespace, count: list[int]) -> int:
    """Keep the bytes, then answer as told."""
    count[0] += 1
    uid = str(event.request.AffectedSOPInstanceUID)
    syntax = str(event.context.transfer_syntax)
    data = event.request.DataSet.getvalue()
    time.sleep(options.stall)
    if count[0] == options.drop:
        os._exit(1)
    override = options.folder.parent / "status"
    status = int(override.read_text(), 0) if override.exists() else options.status
    if status & 0xF000 in (0x0000, 0xB000):
        name = f"{uid} {syntax} {hashlib.sha256(data).hexdigest()[:16]} {count[0]}"
        (options.folder / name).write_bytes(data)
    return status


def application_entity(accept: str) -> AE:
    """What it takes: everything, reports only, or implicit VR only."""
    entity = AE("SCRIPTED")
    entity.maximum_associations = 100
    entity.add_supported_context(Verification)
    syntaxes = [ImplicitVRLittleEndian] if accept == "implicit" else ALL_TRANSFER_SYNTAXES
    for context in AllStoragePresentationContexts if accept != "nothing" else []:
        if accept != "reports" or str(context.abstract_syntax).startswith(SR_PREFIX):
            entity.add_supported_context(context.abstract_syntax, syntaxes)
    return entity


def main() -> None:
    """Serve until killed."""
    options = OPTIONS.parse_args()
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    application_entity(options.accept).start_server(
        ("127.0.0.1", options.port),
        evt_handlers=[(evt.EVT_C_STORE, store, [options, [0]])],
        ssl_context=context,
    )


if __name__ == "__main__":
    main()
