"""The head of a stored file is one that DICOM libraries read, and depends on the object only.

Not covered: the data set behind it (tests/integration/test_receive.py).
"""

import io

import pydicom
import pytest
from pydicom.uid import UID

from inference import uids
from service.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, head

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("instance", ["1.2.3", "1.2.34", "1." * 31 + "12", ""])
def test_pydicom_reads_it(instance: str) -> None:
    made = head(sop_class_uid="1.2.3.4", sop_instance_uid=instance, transfer_syntax_uid=EXPLICIT)
    meta = pydicom.dcmread(io.BytesIO(made)).file_meta
    assert meta.FileMetaInformationGroupLength == len(made) - 144
    assert (meta.get("MediaStorageSOPInstanceUID") or "") == instance
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME


def test_we_are_one_implementation_in_files_associations_and_results() -> None:
    assert UID(IMPLEMENTATION_CLASS_UID).is_valid
    assert IMPLEMENTATION_CLASS_UID == uids.IMPLEMENTATION_CLASS_UID
    assert IMPLEMENTATION_VERSION_NAME == uids.IMPLEMENTATION_VERSION_NAME
