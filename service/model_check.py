"""What the sidecars of the configured models say wrong, and what keeps a model from running here.

Known from texts: no weights are read, and nothing of a model is run. Loads the science.
"""

from collections.abc import Mapping
from pathlib import Path

from inference import description
from inference.errors import ModelRefused
from inference.model_files import ModelFiles
from inference.models import Artifact, FileModelModule
from service import kinds, model_states
from service.config import MODELS, Configuration
from service.sidecar import Sidecar
from service.validation import ConfigurationError, Place

UNREADABLE = (RecursionError, MemoryError)
"""What Python's parser ends in on a text that was made to."""


def lacking(configuration: Configuration) -> dict[str, tuple[str, ...]]:
    """Name of a model that cannot run on this machine as it is -> why, a line each.

    Of a model that is stopped the files are not looked at. Raises ConfigurationError for the first
    sidecar with an option that is not allowed.
    """
    stopped = model_states.stopped(configuration)
    found = {}
    for model in configuration.models:
        if model.artifact is not None:
            found[model.name] = of_sidecar(
                model.kind,
                model.artifact.path,
                model.artifact.sidecar,
                trusted=model.artifact.trusted,
                whole=model.name not in stopped,
            )
    return {name: lines for name, lines in found.items() if lines}


def of_sidecar(
    kind: str, path: Path, sidecar: Sidecar, *, trusted: bool, whole: bool = True
) -> tuple[str, ...]:
    """What keeps the model at `path` from running here; `whole`: by its files, too.

    Raises ConfigurationError for an option that is not allowed.
    """
    module: FileModelModule = kinds.load_kind(MODELS, kind)
    artifact = _artifact(path, sidecar.plain, trusted=trusted)
    try:
        module.check(artifact)
        return module.lacking(artifact) if whole else ()
    except ModelRefused as refusal:
        raise ConfigurationError(f"{sidecar.file}: {refusal}") from refusal
    except UNREADABLE as error:
        wrong = "its texts are nested too deeply, or too large, to be read"
        raise Place(file=path).error(wrong, allowed="a model that runs here") from error


def _artifact(path: Path, plain: Mapping[str, object], *, trusted: bool) -> Artifact:
    described = description.parse(plain)
    files = ModelFiles(path=path, digests=described.files)
    return Artifact(description=described, files=files, trusted=trusted)
