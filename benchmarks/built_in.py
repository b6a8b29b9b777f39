"""How long a built-in model takes and how much memory it needs: 512 x 512 x 300, one core.

Run: OMP_NUM_THREADS=1 python -P benchmarks/built_in.py lung_ct|vessels [slices]. Time is that of
the processor; memory is the peak, the input and Python included. The input, a noisy thorax, is made
in another process, so that it does not count.
"""

import argparse
import importlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np

from inference.findings import Acquisition, Image
from inference.models import ModelModule

SPACING = (1.0, 0.76, 0.76)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a model is given and what is aimed at."""

    seconds: float
    gigabytes: float
    noise_hu: float
    contrast_hu: int | None = None
    acquisition: Acquisition


TRIALS = {
    "lung_ct": Trial(
        seconds=20.0,
        gigabytes=1.5,
        noise_hu=40.0,
        acquisition=Acquisition(
            modality="CT", slice_thickness_mm=1.0, convolution_kernel="STANDARD"
        ),
    ),
    "vessels": Trial(
        seconds=60.0,
        gigabytes=2.0,
        noise_hu=30.0,
        contrast_hu=300,
        acquisition=Acquisition(modality="CT", slice_thickness_mm=1.0, contrast_agent=True),
    ),
}


def write_phantom(path: Path, slices: int, trial: Trial) -> None:
    """The thorax; runs in its own process."""
    from inference.phantom import thorax

    phantom = thorax(
        (slices, 512, 512),
        (300.0 / slices, *SPACING[1:]),
        seed=7,
        noise_hu=trial.noise_hu,
        contrast_hu=trial.contrast_hu,
    )
    np.savez(path, hu=phantom.hu, affine=phantom.affine)


def image(slices: int, trial: Trial) -> Image:
    """The phantom as a model sees it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.npz"
        maker = multiprocessing.get_context("spawn").Process(
            target=write_phantom, args=(path, slices, trial)
        )
        maker.start()
        maker.join()
        with np.load(path) as stored:
            volume = hd.Volume(stored["hu"], stored["affine"], "PATIENT")
    return Image(volume=volume, acquisition=trial.acquisition)


def main() -> int:
    """Print one line; 1 when an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=TRIALS)
    parser.add_argument("slices", nargs="?", type=int, default=300)
    words = parser.parse_args()
    trial = TRIALS[words.model]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    module: ModelModule = importlib.import_module(f"inference.models.{words.model}")
    chest = image(words.slices, trial)
    model = module.load({})
    wall, seconds = time.perf_counter(), time.process_time()
    findings = model.predict(chest)
    wall, seconds = time.perf_counter() - wall, time.process_time() - seconds
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        f"{words.model} 512x512x{words.slices} {findings.verdict}: {seconds:.1f} s of processor "
        f"time (aim {trial.seconds:.0f}), {wall:.1f} s on the clock, "
        f"peak {peak_gb:.2f} GB (aim {trial.gigabytes})"
    )
    return int(seconds > trial.seconds or peak_gb > trial.gigabytes)


if __name__ == "__main__":
    sys.exit(main())
