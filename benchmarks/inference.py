"""A bundle through our engine against `monai.bundle run`: wall time, peak memory, agreement.

Run: python benchmarks/inference.py [spleen|wholeBody ...] [--slices 300] [--side 512]
     [--folder DIR]

The same bundle, weights, volume and device. Each side is a process of its own, from its start to
its labels on disk. MONAI's runs the bundle's own configuration with its readers, inversion and
writers; only paths, the number of reading processes (0: it would count as memory) and an
uncompressed output are set. Ours gets the volume as the node has it, an array with its affine,
and makes findings in the environment of a model's process, without ignite, which the node does
not install. Needs the extra `benchmark`, and the bundles in HOUNSFIELD_DATA.

The zoo's weights cannot be had here. Those that are made are trained for a minute or two each on
a synthetic thorax (its tissue, the first of the classes), since a network with random weights has
near-ties everywhere, which no two ways of computing decide alike.

Aims on a CPU with AMX or AVX512-BF16: 3 times as fast, Dice 0.995, half the memory; on a GPU
twice as fast. Without a GPU that part is skipped.
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path = [
    place for place in sys.path if Path(place).resolve() != HERE
]  # this file is `inference`

DATA = Path(os.environ.get("HOUNSFIELD_DATA", HERE.parents[1] / "shared" / "data"))
BUNDLES = DATA / "bundles"
NAMES = {"spleen": "spleen_ct_segmentation", "wholeBody": "wholeBody_ct_segmentation"}
FOLDER = Path(tempfile.gettempdir()) / "hounsfield-benchmark"
WIDTH_MM = 390.0
HEIGHT_MM = 300.0
STEPS = 100
PATCH = 48  # voxels
MIXED = 0.9  # of a patch that one class may fill: others would be learned from too few
AIM_SPEED, AIM_DICE, AIM_MEMORY = 3.0, 0.995, 0.5  # on a GPU twice as fast is the aim
QUEUE = 20  # studies


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a process took."""

    seconds: float
    processor_seconds: float  # of all cores together: other work on the machine disturbs it less
    peak_gb: float
    status: int

    def __str__(self) -> str:
        cores = f"({self.processor_seconds:.0f} s of cores)"
        return f"{self.seconds:7.1f} s {cores} {self.peak_gb:6.2f} GB"


def volume(
    folder: Path, slices: int, side: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The synthetic thorax, (slice, row, column) in HU, and its affine (LPS mm)."""
    path = folder / f"volume-{side}-{slices}.npz"
    if not path.exists():
        from inference.phantom import thorax

        spacing = (HEIGHT_MM / slices, WIDTH_MM / side, WIDTH_MM / side)
        phantom = thorax((slices, side, side), spacing, seed=7)
        np.savez(path, hu=phantom.hu, affine=phantom.affine)
    with np.load(path) as stored:
        return stored["hu"], stored["affine"]


def write_nifti(path: Path, hu: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> None:
    """As MONAI's reader wants it: (column, row, slice), RAS mm, not compressed."""
    import nibabel

    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), ras), path)


def bundle(name: str, folder: Path) -> Path:
    """A copy of the bundle with weights that segment the phantom, added as a model is."""
    from service import model_add, sidecar

    place = folder / NAMES[name]
    if not place.exists():
        shutil.copytree(BUNDLES / NAMES[name], place, copy_function=shutil.copyfile)
        place.chmod(0o755)
    if not (place / "models" / "model.pt").exists():
        (place / "models").mkdir(exist_ok=True)
        train(place)
    if not sidecar.path_of(place).exists():
        model_add.add(place)
    return place


def train(place: Path) -> None:
    """A minute's training of the bundle's network, on its own preprocessing of a phantom."""
    import torch
    from monai.bundle.config_parser import ConfigParser

    from inference.bundles import recipe, recognition

    torch.manual_seed(1)
    parser = ConfigParser()
    parser.read_config(place / "configs" / "inference.json")
    weights = place / "models" / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    built = recipe.build(model_files(place), {}, trusted=False, device="cpu")
    chain = recognition.recognised(built)
    assert chain is not None
    image, truth = training_data(chain)
    fit(built.network, image, truth)
    torch.save(built.network.state_dict(), weights)


def training_data(chain: Any) -> tuple[Any, Any]:
    """The image as the network sees it and its classes there."""
    import torch

    from inference.engine import resampling
    from inference.phantom import thorax

    cpu, phantom = torch.device("cpu"), thorax(seed=3)
    grid = resampling.mapping(phantom.affine, phantom.hu.shape, chain.spacing)
    sample = {chain.image_key: grid.apply(phantom.hu, cpu)[None]}
    for step in chain.after:
        sample = step(sample)
    truth = {key: grid.apply(mask, cpu) >= 0.5 for key, mask in phantom.truth.items()}
    classes = torch.zeros(grid.shape, dtype=torch.int64)
    lungs = truth["right_lung"] | truth["left_lung"]
    classes[truth["body"] & ~lungs & ~truth["airway"]] = 1
    return torch.as_tensor(sample[chain.image_key]).float(), classes


def fit(network: Any, image: Any, classes: Any) -> None:
    """Adam on random patches of several classes, in bfloat16."""
    import torch

    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    for step in range(STEPS):
        place = patch(classes)
        with torch.autocast("cpu", torch.bfloat16):
            scores = network(image[(slice(None), *place)][None])
        loss = torch.nn.functional.cross_entropy(scores.float(), classes[place][None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"  training: step {step} of {STEPS}, loss {loss.item():.3f}", flush=True)
    network.eval()


def patch(classes: Any) -> tuple[slice, ...]:
    """A random place of PATCH voxels a side that no class fills alone."""
    import torch

    while True:
        corner = [int(torch.randint(0, extent - PATCH, ())) for extent in classes.shape]
        place = tuple(slice(start, start + PATCH) for start in corner)
        if int(torch.bincount(classes[place].flatten()).max()) < MIXED * PATCH**3:
            return place


def model_files(place: Path) -> Any:
    """The bundle's files, pinned as they are."""
    from inference.model_files import ModelFiles
    from service import model_folder

    return ModelFiles(path=place, digests=model_folder.digests(place))


def stock_command(place: Path, image: Path, output: Path) -> list[str]:
    """MONAI's own run of the bundle on one file."""
    override = {
        "bundle_root": str(place),
        "datalist": [str(image)],
        "output_dir": str(output),
        "output_ext": ".nii",
        "dataloader#num_workers": 0,
    }
    words = [part for key, value in override.items() for part in (f"--{key}", _word(value))]
    file = str(place / "configs" / "inference.json")
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", file, *words]


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def our_command(place: Path, array: Path, output: Path) -> list[str]:
    """This file, as the process that is measured."""
    return [sys.executable, __file__, "--ours", str(place), str(array), str(output)]


def loaded(place: Path) -> tuple[Any, Any]:
    """The model as the node loads it, and its description."""
    from inference import description
    from inference.model_files import ModelFiles
    from inference.models import Artifact, monai_bundle
    from service import sidecar

    described = description.parse(sidecar.read(place).plain)
    files = ModelFiles(path=place, digests=described.files)
    artifact = Artifact(description=described, files=files)
    return monai_bundle.load({}, artifact), described


def as_image(hu: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> Any:
    """What a model of the node gets."""
    import highdicom as hd

    from inference.findings import Acquisition, Image

    acquisition = Acquisition(modality="CT", slice_thickness_mm=1.0)
    return Image(volume=hd.Volume(hu, affine, "PATIENT"), acquisition=acquisition)


def ours(place: Path, array: Path, output: Path) -> None:
    """Load the model, make the findings, keep the labels."""
    began = time.perf_counter()
    gc.disable()
    model, described = loaded(place)
    gc.freeze()
    gc.enable()
    ready = time.perf_counter()
    with np.load(array) as stored:
        image = as_image(stored["hu"], stored["affine"])
    asked = time.perf_counter()
    findings = model.predict(image)
    answered = time.perf_counter()
    from inference import regions

    labels = np.zeros(image.volume.spatial_shape, np.uint8)
    values = {label.definition.label: label.value for label in described.labels}
    for segment in findings.segments:
        region = regions.on_grid(segment.mask, image.volume)
        labels[region.box][region.mask] = values[segment.definition.label]
    np.save(output, labels)
    times = {"load": ready - began, "predict": answered - asked, "computed": str(findings.computed)}
    output.with_suffix(".json").write_text(json.dumps(times))


def spent(command: list[str], log: Path, environment: Mapping[str, str]) -> Spent:
    """Run a process to its end: wall time, largest resident size of it and its children."""
    began = time.perf_counter()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env=dict(environment)
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Spent(
        seconds=time.perf_counter() - began,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_gb=usage.ru_maxrss * 1024 / 1e9,
        status=process.returncode,
    )


def queue(name: str, folder: Path, slices: int, side: int) -> None:
    """Studies one after the other with one warm model: times, and how busy the GPU was."""
    import torch

    if not torch.cuda.is_available():
        print("  a queue of studies on a GPU: skipped, torch sees no CUDA device")
        return
    hu, affine = volume(folder, slices, side)
    model, _ = loaded(bundle(name, folder))
    model.predict(as_image(hu, affine))  # warm
    busy = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-lms=200",
    ]
    with subprocess.Popen(busy, stdout=subprocess.PIPE, text=True) as watch:
        began = time.perf_counter()
        for _ in range(QUEUE):
            model.predict(as_image(hu, affine))
        seconds = time.perf_counter() - began
        watch.terminate()
        used = [int(line) for line in watch.communicate()[0].split()]
    share = sum(used) / max(1, len(used))
    print(f"  {QUEUE} studies: {seconds / QUEUE:.1f} s each, GPU {share:.0f} % busy (aim 80)")


def dice(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> Mapping[int, float]:
    """Of each class but the first that either has."""
    return {
        int(value): 2
        * float(np.count_nonzero((expected == value) & (found == value)))
        / float(np.count_nonzero(expected == value) + np.count_nonzero(found == value))
        for value in np.union1d(np.unique(expected), np.unique(found))
        if value
    }


def compare(name: str, folder: Path, slices: int, side: int) -> bool:
    """Both sides on one volume; prints the figures; whether every aim is met."""
    import nibabel

    from service import sandbox

    place = bundle(name, folder)
    image, array = folder / f"image-{side}-{slices}.nii", folder / f"volume-{side}-{slices}.npz"
    hu, affine = volume(folder, slices, side)
    if not image.exists():
        write_nifti(image, hu, affine)
    stock_output, output = folder / f"stock-{name}", folder / f"ours-{name}.npy"
    shutil.rmtree(stock_output, ignore_errors=True)
    print(f"{name} on {side}x{side}x{slices}:", flush=True)
    node = sandbox.COURTESY | sandbox.KEEPING | os.environ
    mine = spent(our_command(place, array, output), folder / f"ours-{name}.log", node)
    theirs = spent(
        stock_command(place, image, stock_output), folder / f"stock-{name}.log", os.environ
    )
    if mine.status:
        print(f"  ours ended with {mine.status}: {folder / f'ours-{name}.log'}")
        return False
    print(f"  ours  {mine}  {_steps(output)}", flush=True)
    if theirs.status:
        print(
            f"  stock ended with {theirs.status} after {theirs.seconds:.0f} s at "
            f"{theirs.peak_gb:.1f} GB: {folder / f'stock-{name}.log'}"
        )
        return False
    print(f"  stock {theirs}", flush=True)
    saved = next(stock_output.rglob("*.nii"))
    expected = np.asanyarray(nibabel.load(saved).dataobj).squeeze().transpose(2, 1, 0)
    return verdict(mine, theirs, expected.astype(np.uint8), np.load(output))


def _steps(output: Path) -> str:
    times = json.loads(output.with_suffix(".json").read_text())
    return ", ".join(
        f"{key} {value:.1f} s" if isinstance(value, float) else f"{key} {value}"
        for key, value in times.items()
    )


def verdict(
    mine: Spent, theirs: Spent, expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]
) -> bool:
    """The figures against the aims."""
    work = theirs.processor_seconds / mine.processor_seconds
    speed, memory = theirs.seconds / mine.seconds, mine.peak_gb / theirs.peak_gb
    each = dice(expected, found)
    same = float(np.mean(expected == found))
    print(
        f"  {speed:.2f} times as fast (aim {AIM_SPEED:g}; of cores {work:.2f}), "
        f"{memory:.2f} of the memory (aim {AIM_MEMORY:g}), voxels alike {same:.6f}"
    )
    if len(np.unique(expected)) == 1:
        print("  the weights call every voxel the same: this says nothing of agreement")
        return False
    sizes = {value: int(np.count_nonzero(expected == value)) for value in each}
    for value, agreed in each.items():
        print(f"  class {value}: Dice {agreed:.5f} over {sizes[value]} voxels (aim {AIM_DICE:g})")
    return speed >= AIM_SPEED and memory <= AIM_MEMORY and min(each.values(), default=0) >= AIM_DICE


def main() -> int:
    """Print the figures; 1 when an aim is missed."""
    if sys.argv[1:2] == ["--ours"]:
        sys.modules["ignite"] = None  # type: ignore[assignment]  (as if it were not installed)
        ours(*map(Path, sys.argv[2:5]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", default=["spleen", "wholeBody"])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args()
    if not BUNDLES.is_dir():
        print("skipped: no bundles; HOUNSFIELD_DATA names the folder that has bundles/")
        return 0
    asked.folder.mkdir(parents=True, exist_ok=True)
    met = []
    for name in asked.bundles:
        met.append(compare(name, asked.folder, asked.slices, asked.side))
        queue(name, asked.folder, asked.slices, asked.side)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
