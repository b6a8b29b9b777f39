"""Which configured models do not run, and why: read from their files, without running any."""

from service import approvals, sandbox
from service.config import Artifact, Configuration, Model

STOPPED = "stopped: "
PYTHON = "python"
UNTRUSTED = 'Python code runs only with trust = "trusted"'


def stopped(configuration: Configuration) -> dict[str, str]:
    """Name -> reason of every model that comes as files and must not run as it is now."""
    states = {model.name: state(configuration, model) for model in configuration.models}
    return {
        name: words.removeprefix(STOPPED)
        for name, words in states.items()
        if words is not None and words.startswith(STOPPED)
    }


def state(configuration: Configuration, model: Model) -> str | None:
    """How a model runs, in words; None for one that is a part of this program."""
    artifact = model.artifact
    if artifact is None:
        return None
    if model.kind == PYTHON and not artifact.trusted:
        return f"{STOPPED}{UNTRUSTED}"
    lacking = sandbox.lacking() if artifact.trusted else None
    if lacking is not None:
        return f"{STOPPED}trusted code does not run: nothing would keep it from {lacking}"
    return _state(configuration, model.name, artifact)


def _state(configuration: Configuration, name: str, artifact: Artifact) -> str:
    return approvals.state(
        artifact.path,
        artifact.sidecar.files,
        trusted=artifact.trusted,
        file=approvals.file_of(configuration.storage.directory, name),
    )
