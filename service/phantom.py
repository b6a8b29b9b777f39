"""A synthetic thorax CT series as files, the same for everybody: no patient was ever in it."""

from pathlib import Path

from inference import phantom
from service.exits import SUCCESS, UsageError


def write(directory: Path) -> int:
    """Write the series into a new or empty folder, one file an instance."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory}: is not empty; allowed: a new or empty folder")
    directory.mkdir(parents=True, exist_ok=True)
    series = phantom.datasets(phantom.thorax())
    for number, dataset in enumerate(series, start=1):
        dataset.save_as(directory / f"{number:04}.dcm", enforce_file_format=True)
    print(f"{len(series)} instances of a synthetic thorax CT in {directory}")
    return SUCCESS
