"""The studies that acceptance tests send: real ones unpacked, synthetic ones written to files."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset

from inference import phantom
from inference.phantom import Scan

SMALL = (24, 64, 64)
SMALL_SPACING = (12.0, 6.0, 6.0)


def unpacked(archive: Path, folder: Path) -> list[Path]:
    """The files of one packed series, sorted by name."""
    with tarfile.open(archive, "r:xz") as packed:
        packed.extractall(folder, filter="data")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def written(datasets: Sequence[Dataset], folder: Path) -> list[Path]:
    """The data sets as files, numbered in their order."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:04}.dcm" for number in range(len(datasets))]
    for dataset, path in zip(datasets, paths, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


def small_thorax(seed: int, scan: Scan = phantom.PLAIN) -> list[Dataset]:
    """24 slices of 64 x 64 pixels, another body for each seed."""
    return phantom.datasets(phantom.thorax(SMALL, SMALL_SPACING, seed=seed), scan)
