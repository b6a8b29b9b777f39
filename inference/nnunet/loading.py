"""From a model's pinned files to networks that are ready: nothing else of a checkpoint is kept.

Weights load without any code of the file: besides tensors only the numpy scalars that nnU-Net's
training log holds are allowed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from inference.errors import ModelRefused
from inference.model_files import ModelFiles
from inference.nnunet import architectures, folder, labels, plans
from inference.nnunet.folder import Results
from inference.nnunet.options import Options
from inference.nnunet.plans import Configuration
from inference.nnunet.prediction import Parameters, Trained, fit, parameters
from inference.nnunet.sliding_window import Windows

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


def stages(files: ModelFiles, options: Options) -> tuple[Trained, ...]:
    """The networks of the wanted configuration, those before it in its cascade first.

    Raises ModelRefused with the reason why not.
    """
    found = folder.results(files.digests, top=files.path.name)
    if not found:
        raise ModelRefused(f"{files.path.name}: no fold_*/checkpoint_final.pth in it")
    wanted = _named(found, options.configuration, found[0].trainer)
    chain = [trained(files, wanted, options)]
    while (previous := chain[0].configuration.previous) is not None:
        if len(chain) == LONGEST_CASCADE:
            raise ModelRefused("plans.json: a cascade without an end")
        before = _named(found, previous, wanted.trainer)
        chain.insert(0, trained(files, before, options))
    return tuple(chain)


def _named(found: Sequence[Results], name: str | None, trainer: str | None) -> Results:
    """The results of a configuration, those of the same trainer if there are several."""
    if name is None or (len(found) == 1 and found[0].configuration is None):
        return found[0]
    fitting = [one for one in found if one.configuration == name]
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
    network = architectures.build(
        configuration.network, configuration.arguments, channels=inputs, classes=meant.heads
    )
    folds: list[Parameters] = []
    for name, checkpoint in zip(_folds(results, options), checkpoints, strict=True):
        folds.append(parameters(checkpoint["network_weights"], name=name))
        fit(network, folds[-1], name=name)
    return Trained(
        configuration=configuration,
        labels=meant,
        network=network,
        folds=tuple(folds),
        windows=_windows(configuration, first, options),
    )


def document(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object; raises ModelRefused when it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{name} is not JSON") from error
    if not isinstance(found, dict):
        raise ModelRefused(f"{name} is no JSON object")
    return found


def _folds(results: Results, options: Options) -> tuple[str, ...]:
    if not options.folds:
        return results.checkpoints
    names = {f"fold_{fold}" for fold in options.folds}
    chosen = [name for name in results.checkpoints if PurePosixPath(name).parent.name in names]
    if len(chosen) != len(names):
        raise ModelRefused(
            f"options.folds: the folder has {len(results.checkpoints)} folds, not all of these"
        )
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
