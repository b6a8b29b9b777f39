"""How long lung_ct takes and how much memory it needs: 512 x 512 x 300, one core.

Run: OMP_NUM_THREADS=1 python -P benchmarks/lung_ct.py [slices]. Aim: 20 s and 1.5 GB of peak
memory, the input and Python included. The input is made in another process, so that it does not
count.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import highdicom as hd
import numpy as np

from inference.findings import Acquisition, Image
from inference.models import lung_ct

AIM_SECONDS = 20.0
AIM_GB = 1.5
SPACING = (1.0, 0.76, 0.76)


def write_phantom(path: Path, slices: int) -> None:
    """A noisy thorax; runs in its own process."""
    from inference.phantom import thorax

    phantom = thorax((slices, 512, 512), (300.0 / slices, *SPACING[1:]), seed=7, noise_hu=40.0)
    np.savez(path, hu=phantom.hu, affine=phantom.affine)


def image(path: Path) -> Image:
    """The phantom as a model sees it."""
    with np.load(path) as stored:
        volume = hd.Volume(stored["hu"], stored["affine"], "PATIENT")
    acquisition = Acquisition(modality="CT", slice_thickness_mm=1.0, convolution_kernel="STANDARD")
    return Image(volume=volume, acquisition=acquisition)


def main() -> int:
    """Print one line; 1 when an aim is missed."""
    slices = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.npz"
        maker = multiprocessing.get_context("spawn").Process(
            target=write_phantom, args=(path, slices)
        )
        maker.start()
        maker.join()
        chest = image(path)
    model = lung_ct.load({})
    started = time.perf_counter()
    findings = model.predict(chest)
    seconds = time.perf_counter() - started
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        f"512x512x{slices} {findings.verdict}: {seconds:.1f} s (aim {AIM_SECONDS:.0f}), "
        f"peak {peak_gb:.2f} GB (aim {AIM_GB})"
    )
    return int(seconds > AIM_SECONDS or peak_gb > AIM_GB)


if __name__ == "__main__":
    sys.exit(main())
