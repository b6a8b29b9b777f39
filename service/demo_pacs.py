"""The PACS of the demo: takes every result, keeps it as a file, and says which came."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import time
from pynetdicom.transport import ThreadedAssociationServer

AE_TITLE = "PACS"


@contextmanager
def pacs(folder: Path, *, port: int) -> Iterator[Path]:
    """A storage SCP on 127.0.0.1 for as long as the context lasts; yields its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entity = AE(AE_TITLE)
    entity.add_supported_context(Verification)
    for context in StoragePresentationContexts:
        entity.add_supported_context(
            str(context.abstract_syntax), [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        )
    server = cast(
        "ThreadedAssociationServer",
        entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, _keep, [folder])]
        ),
    )
    try:
        yield folder
    finally:
        server.shutdown()


def _keep(event: evt.Event, folder: Path) -> int:
    name = f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm"
    (folder / name).write_bytes(event.encoded_dataset())
    return 0x0000
