"""What a folder of nnU-Net results holds, by the names of its files alone.

Either `<Trainer>__<plans>__<configuration>/` itself, with plans.json, dataset.json and
fold_*/checkpoint_final.pth, or the data set's folder above several of those.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from inference.errors import ModelRefused

PLANS = "plans.json"
DATASET = "dataset.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")  # the first that a fold has
POSTPROCESSING = ("postprocessing.json", "postprocessing.pkl")  # which say the same
CROSS_VALIDATION = "crossval_results_folds_"
ALL_DATA = "fold_all"
DEEPEST = len(("results", "fold", "checkpoint"))  # in a data set's folder
FOLD = re.compile(r"fold_(\d+|all)")
PREFERRED = ("3d_cascade_fullres", "3d_fullres", "3d_lowres", "2d")

VARIANTS = (  # what follows nnUNetTrainer in the package's trainers that only train otherwise
    r"\d+epochs?", "NoMirroring", r"onlyMirror01(_\d+ep)?", "NoDA", "DA5", "(DA5)?[Ss]egord0",
    "DA5ord0", "DASegOrd0", "noDummy2DDA", r"CELoss", "DiceLoss", "DiceCELoss_noSmooth",
    r"Topk10Loss(LS01)?", "DiceTopK10Loss", "CosAnneal", "warmup", "NoDeepSupervision",
    r"(Vanilla)?Adam(\den\d)?", r"Adan(\den\d)?(CosAnneal)?", r"probabilisticOversampling(_\d+)?",
    r"Benchmark_5epochs(_noDataLoading)?",
)  # fmt: skip
TRAINER = re.compile(rf"nnUNetTrainer(_?({'|'.join(VARIANTS)}))*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One trained configuration. `checkpoints`: a file a fold, paths inside the model.

    `trainer` and `configuration` are None when the folder was renamed.
    """

    place: PurePosixPath  # "." for the model's folder itself
    trainer: str | None
    configuration: str | None
    checkpoints: tuple[str, ...]

    def file(self, name: str) -> str:
        """The path inside the model of a file of these results."""
        return (self.place / name).as_posix()


def results(names: Iterable[str], *, top: str) -> tuple[Results, ...]:
    """The trained configurations among a model's files, the preferred first; () when none is.

    `top`: the name of the model's folder. Raises ModelRefused for checkpoints without their plans.
    """
    files = sorted(map(PurePosixPath, names))
    places = sorted({file.parent.parent for file in files if _is_checkpoint(file)})
    for place in places:
        for needed in (PLANS, DATASET):
            if place / needed not in files:
                raise ModelRefused(f"{top}: {(place / needed).as_posix()} is missing")
    return tuple(sorted((_results(place, files, top) for place in places), key=_preference))


def of_one_model(names: Iterable[str], *, top: str) -> tuple[Results, ...]:
    """The trained configurations of a folder that is one model; () of a folder above several.

    They are the folder's own, or lie directly in it under the names that training gives them.
    """
    near = [name for name in names if len(PurePosixPath(name).parts) <= DEEPEST]
    found = results(near, top=top)
    own = PurePosixPath()
    return tuple(one for one in found if one.place == own or one.configuration is not None)


def _is_checkpoint(file: PurePosixPath) -> bool:
    return file.name in CHECKPOINTS and FOLD.fullmatch(file.parent.name) is not None


def _results(place: PurePosixPath, files: Sequence[PurePosixPath], top: str) -> Results:
    parts = (place.name or top).split("__")
    named = len(parts) == 3
    folds = sorted(
        {file.parent for file in files if _is_checkpoint(file) and file.parents[1] == place}
    )
    single = [fold for fold in folds if fold.name != ALL_DATA] or folds
    chosen = (next(fold / name for name in CHECKPOINTS if fold / name in files) for fold in single)
    return Results(
        place=place,
        trainer=parts[0] if named else None,
        configuration=parts[2] if named else None,
        checkpoints=tuple(file.as_posix() for file in chosen),
    )


def _preference(found: Results) -> tuple[int, str]:
    name = found.configuration or ""
    rank = PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)
    return rank, found.place.as_posix()


def postprocessing(names: Iterable[str], results: Results) -> str | None:
    """The file of what nnU-Net found to help after these results, of all their folds together."""
    numbers = [
        PurePosixPath(name).parent.name.removeprefix("fold_") for name in results.checkpoints
    ]
    places = (f"{CROSS_VALIDATION}{'_'.join(numbers)}/", "")
    wanted = [results.file(place + name) for place in places for name in POSTPROCESSING]
    present = {*names}
    return next((name for name in wanted if name in present), None)


def refuse_trainer(trainer: str, *, vouched: Sequence[str] = ()) -> None:
    """Raise ModelRefused unless a trainer is known, or vouched for, to change training alone."""
    if TRAINER.fullmatch(trainer) is None and trainer not in vouched:
        raise ModelRefused(
            f"the trainer {trainer} may change how its network is built or run; if it changes "
            f'training alone, say so in the sidecar: options.trainers = ["{trainer}"]'
        )
