"""From a model's pinned files to networks that are ready: nothing else of a checkpoint is kept.

Weights load without any code of the file: besides tensors only the numpy scalars that nnU-Net's
training log holds are allowed.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor, nn

from inference.errors import ModelRefused
from inference.model_files import ModelFiles
from inference.nnunet import architectures, folder, labels, plans, postprocessing
from inference.nnunet.documents import document
from inference.nnunet.folder import Results
from inference.nnunet.labels import Labels
from inference.nnunet.options import Options
from inference.nnunet.plans import Configuration
from inference.nnunet.postprocessing import Step
from inference.nnunet.prediction import Member, Trained
from inference.nnunet.sliding_window import Windows

Parameters = Mapping[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.")  # of networks that were trained on several devices, compiled

SCALARS = (
    np.dtype,
    np.float64,
    np.float32,
    np.int64,
    np.bool_,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    np.dtypes.BoolDType,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]  # noqa: SLF001  (in every pickle of a scalar)
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]  # noqa: SLF001  (numpy before 2)
)
LONGEST_CASCADE = 4


def members(files: ModelFiles, options: Options) -> tuple[Member, ...]:
    """The networks of the wanted configuration, or of each of an ensemble, in cascades.

    Raises ModelRefused with the reason why not.
    """
    found = _there(files)
    loaded = tuple(_cascade(files, found, one, options) for one in _wanted(found, options))
    for member in loaded[1:]:
        _refuse_odd_pair(loaded[0][-1], member[-1])
    return loaded


def refuse_absent(files: ModelFiles, options: Options) -> None:
    """Raise ModelRefused for an option that names what is not in the folder; no file is read."""
    for one in _wanted(_there(files), options):
        _folds(one, options)
    after = options.postprocessing
    if after is not None and after not in files.digests:
        wrong = f"{after!r} is not among the files that were added"
        raise ModelRefused(f"options.postprocessing: {wrong}; allowed: the path of one of them")


def _there(files: ModelFiles) -> tuple[Results, ...]:
    found = folder.results(files.digests, top=files.path.name)
    if not found:
        raise ModelRefused(f"{files.path.name}: no fold_*/checkpoint_final.pth in it")
    return found


def _wanted(found: Sequence[Results], options: Options) -> list[Results]:
    key = "ensemble" if options.ensemble else "configuration"
    names = options.ensemble or (options.configuration,)
    try:
        return [_named(found, name, found[0].trainer) for name in names]
    except ModelRefused as refusal:
        raise ModelRefused(f"options.{key}: {refusal}") from refusal


def steps(files: ModelFiles, options: Options, meant: Labels) -> tuple[Step, ...]:
    """The postprocessing that the options name; () without. Raises ModelRefused."""
    name = options.postprocessing
    if name is None:
        return ()
    found = postprocessing.parse(files.read(name), name)
    postprocessing.refuse_other_labels(found, meant, name)
    return found


def _cascade(
    files: ModelFiles, found: Sequence[Results], wanted: Results, options: Options
) -> Member:
    chain = [trained(files, wanted, options)]
    while (previous := chain[0].configuration.previous) is not None:
        if len(chain) == LONGEST_CASCADE:
            raise ModelRefused("plans.json: a cascade without an end")
        before = _named(found, previous, wanted.trainer)
        chain.insert(0, trained(files, before, options))
    return tuple(chain)


def _refuse_odd_pair(one: Trained, other: Trained) -> None:
    """Members of an ensemble whose answers mean different things."""
    pair = one.configuration, other.configuration
    alike = {
        "labels": one.labels == other.labels,
        "channels": len({tuple(each.name for each in half.channels) for half in pair}) == 1,
        "reader": len({(half.natural_images, half.reoriented) for half in pair}) == 1,
    }
    odd = [name for name, same in alike.items() if not same]
    if odd:
        names = " and ".join(half.name for half in pair)
        raise ModelRefused(f"options.ensemble: {names} differ in {', '.join(odd)}")


def _named(found: Sequence[Results], name: str | None, trainer: str | None) -> Results:
    """The results of a configuration, or of a folder; those of the same trainer if several."""
    if name is None or (len(found) == 1 and found[0].configuration is None):
        return found[0]
    fitting = [one for one in found if name in (one.configuration, one.place.name)]
    if not fitting:
        trained_ones = ", ".join(one.configuration or one.place.as_posix() for one in found)
        raise ModelRefused(
            f"the configuration {name} is not in the folder, which has {trained_ones}; "
            "a cascade needs the folder above all its configurations"
        )
    return next((one for one in fitting if one.trainer == trainer), fitting[0])


def trained(files: ModelFiles, results: Results, options: Options) -> Trained:
    """One configuration with the parameters of its folds; raises ModelRefused."""
    dataset = document(files.read(results.file(folder.DATASET)), folder.DATASET)
    planned = plans.parse(document(files.read(results.file(folder.PLANS)), folder.PLANS), dataset)
    meant = labels.parse(dataset)
    checkpoints = [_checkpoint(files, name) for name in _folds(results, options)]
    first = checkpoints[0]
    folder.refuse_trainer(str(first.get("trainer_name")), vouched=options.trainers)
    configuration = planned.configuration(_configuration_name(first, results))
    inputs = len(configuration.channels)
    inputs += 0 if configuration.previous is None else len(meant.foreground)
    folds: list[nn.Module] = []
    for name, checkpoint in zip(_folds(results, options), checkpoints, strict=True):
        network = architectures.build(
            configuration.network, configuration.arguments, channels=inputs, classes=meant.heads
        )
        fit(network, parameters(checkpoint["network_weights"], name=name), name=name)
        folds.append(network)
    return Trained(
        configuration=configuration,
        labels=meant,
        folds=tuple(folds),
        windows=_windows(configuration, first, options),
    )


def parameters(saved: Mapping[str, Any], *, name: str) -> Parameters:
    """The tensors of a state dict under their plain names, each once.

    nnU-Net registers a convolution's parts twice and its encoder in the decoder again.
    """
    found = {}
    for key, value in saved.items():
        for wrapper in WRAPPERS:
            key = key.removeprefix(wrapper)  # noqa: PLW2901  (one name, shortened)
        if ".all_modules." in key or key.startswith("decoder.encoder."):
            continue
        if not isinstance(value, Tensor):
            raise ModelRefused(f"{name}: {key} is no tensor")
        found[key] = value
    return found


def fit(network: nn.Module, found: Parameters, *, name: str) -> None:
    """Load parameters, all of them and no others; raises ModelRefused when they do not fit."""
    own = network.state_dict()
    odd = sorted(found.keys() ^ own.keys())
    odd += sorted(key for key in found.keys() & own.keys() if found[key].shape != own[key].shape)
    if odd:
        raise ModelRefused(
            f"{name}: {len(odd)} of its weights do not fit the network of the plans: {odd[0]}"
        )
    network.load_state_dict(dict(found))


def _folds(results: Results, options: Options) -> tuple[str, ...]:
    if not options.folds:
        return results.checkpoints
    by_fold = {
        PurePosixPath(name).parent.name.removeprefix("fold_"): name for name in results.checkpoints
    }
    absent = [fold for fold in options.folds if fold not in by_fold]
    if absent:
        wrong = f"{', '.join(absent)} not in the folder"
        raise ModelRefused(f"options.folds: {wrong}; allowed: {', '.join(sorted(by_fold))}")
    chosen = [name for fold, name in by_fold.items() if fold in options.folds]
    return tuple(chosen)


def _checkpoint(files: ModelFiles, name: str) -> Mapping[str, Any]:
    found = files.weights(name, safe=SCALARS)
    if not isinstance(found, dict) or not isinstance(found.get("network_weights"), dict):
        raise ModelRefused(f"{files.path.name}: {name} is no checkpoint of nnU-Net v2")
    kept = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
    return {key: found[key] for key in kept if key in found}


def _configuration_name(checkpoint: Mapping[str, Any], results: Results) -> str:
    arguments = checkpoint.get("init_args")
    named = arguments.get("configuration") if isinstance(arguments, dict) else None
    said = results.configuration if named is None else named
    if said is None:
        raise ModelRefused("neither the checkpoint nor its folder names a configuration")
    return str(said)


def _windows(
    configuration: Configuration, checkpoint: Mapping[str, Any], options: Options
) -> Windows:
    allowed = checkpoint.get("inference_allowed_mirroring_axes") or ()
    if not set(allowed) <= set(range(len(configuration.patch))):
        raise ModelRefused("the checkpoint mirrors an axis that the patch does not have")
    axes = tuple(allowed) if options.mirroring else ()
    return Windows(patch=configuration.patch, step=options.step, mirrored=axes)
