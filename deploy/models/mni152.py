"""A T1 MR series of a head without a patient: the MNI152 template, as DICOM MR Image Storage.

    python deploy/models/mni152.py mr      -> 189 axial slices of 1 mm in mr/

The ICBM 152 nonlinear symmetric 2009a template, 1 mm, from the wheel of nilearn (BSD-3-Clause).
Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. It is an average of 152 heads with all but the brain removed.

The one file is read here, as the recipe runs with what a node has installed: nibabel, which reads
every NIfTI, is among the dependencies of the tests only.
"""

import argparse
import gzip
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fetch import fetch
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from inference import phantom

HEADER_BYTES = 348
UNSIGNED_BYTES = 2  # DT_UINT8
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CT_ONLY = ("KVP", "ConvolutionKernel", "RescaleSlope", "RescaleIntercept", "RescaleType")
BRAIN = 0.2  # of the largest value: the template's own brain, as nilearn defines its mask


def template(file: Path) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Voxels of a NIfTI-1 file, axes (i, j, k), and its affine to RAS mm (sform).

    Only what the template is: little endian, unsigned bytes, one volume.
    """
    raw = gzip.decompress(file.read_bytes())
    shape = struct.unpack_from("<3h", raw, 42)
    (datatype,) = struct.unpack_from("<h", raw, 70)
    (offset,) = struct.unpack_from("<f", raw, 108)
    (sform,) = struct.unpack_from("<h", raw, 254)
    if struct.unpack_from("<i", raw)[0] != HEADER_BYTES or datatype != UNSIGNED_BYTES:
        raise ValueError(f"{file.name} is not the template: no NIfTI-1 of unsigned bytes")
    if sform <= 0:
        raise ValueError(f"{file.name} is not the template: no sform")
    affine = np.eye(4)
    affine[:3] = np.reshape(struct.unpack_from("<12f", raw, 280), (3, 4))
    voxels = np.frombuffer(raw, np.uint8, int(np.prod(shape)), int(offset))
    return voxels.reshape(shape, order="F").astype(np.int16), affine


def series(voxels: NDArray[np.int16], affine: NDArray[np.float64]) -> list[Dataset]:
    """The volume as axial MR slices from feet to head.

    `voxels`: axes (i, j, k) towards R, A, S, as `affine` (RAS mm) says; rows of a slice run
    towards the patient's left, columns towards the back, as DICOM draws axial slices.
    """
    if not np.array_equal(np.sign(affine[:3, :3]), np.eye(3)):
        raise ValueError("the axes of the volume are not R, A, S")
    turned = voxels[::-1, ::-1, :].transpose(2, 1, 0)
    first = LPS_FROM_RAS @ affine @ [voxels.shape[0] - 1, voxels.shape[1] - 1, 0, 1]
    step = float(affine[2, 2])
    grid = phantom.Grid(
        positions=first[:3] + np.arange(len(turned))[:, None] * np.asarray([0.0, 0.0, step]),
        pixel_spacing=(float(affine[1, 1]), float(affine[0, 0])),
        rows=turned.shape[1],
        columns=turned.shape[2],
    )
    head = phantom.Phantom(hu=np.ascontiguousarray(turned), grid=grid, seed=152)
    scan = phantom.Scan(
        modality="MR",
        intercepts=(0.0,),
        description="T1 template",
        patient_id="MNI152",
        patient_name="Template^MNI152",
    )
    return [_magnetic(one) for one in phantom.datasets(head, scan)]


def _magnetic(dataset: Dataset) -> Dataset:
    """A slice as MR Image Storage (PS3.3 A.4)."""
    for keyword in CT_ONLY:
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.ManufacturerModelName = "Template"
    dataset.StudyDescription = "Head"
    dataset.BodyPartExamined = "HEAD"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant = "GR", "SP"
    dataset.ScanOptions, dataset.MRAcquisitionType = "", "3D"
    dataset.EchoTime, dataset.EchoTrainLength = "", ""
    return dataset


def write(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """The slices as files, numbered from feet to head."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.dcm" for number in range(1, len(datasets) + 1)]
    for dataset, path in zip(datasets, paths, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder for the slices")
    parser.add_argument("--wheels", type=Path, help="take nilearn's wheel from this folder")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        files = fetch("mni152", Path(temporary), words.wheels)
        paths = write(series(*template(files / "t1.nii.gz")), words.folder)
    print(f"{len(paths)} slices in {words.folder}")


if __name__ == "__main__":
    main()
