"""The configured models: which code and settings, what they want and what they write."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from inference.models import ModelModule
from service import approvals, kinds, model_states
from service.config import DEFINING, MODELS, RESULTS, Artifact, Configuration, Model
from service.exits import SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One model as `models` shows it.

    `digest`: SHA-256 of kind, settings and sidecar; `files_digest`: of its files; results name it.
    In words the first is that of the settings, the second the digest, as `status` and --trust say.
    """

    name: str
    kind: str
    version: str
    digest: str
    trust: str
    wants: Mapping[str, object]
    writes: tuple[str, ...]
    segments: tuple[str, ...]
    summary: str
    licence: str | None = None
    files_digest: str | None = None


def print_models(configuration: Configuration, *, as_json: bool) -> int:
    """Print every configured model."""
    models = [listed(configuration, model) for model in configuration.models]
    if as_json:
        print(json.dumps([asdict(model) for model in models], indent=2))
    else:
        print("\n\n".join(map(_words, models)) or "no model is configured")
    return SUCCESS


def listed(configuration: Configuration, model: Model) -> Listed:
    """A model with what its module says of itself."""
    if model.artifact is not None:
        return _from_files(configuration, model, model.artifact)
    module: ModelModule = kinds.load_kind(MODELS, model.kind)
    return Listed(
        name=model.name,
        kind=model.kind,
        version=module.VERSION,
        digest=model.digest,
        trust="part of this program",
        wants=asdict(module.REQUIREMENTS),
        writes=kinds.kinds(RESULTS, defining=DEFINING[RESULTS]),
        segments=tuple(segment.label for segment in module.SEGMENTS),
        summary=module.CARD.summary,
    )


def _from_files(configuration: Configuration, model: Model, artifact: Artifact) -> Listed:
    return Listed(
        name=model.name,
        kind=model.kind,
        version=model.version,
        digest=model.digest,
        trust=model_states.state(configuration, model) or "",
        wants=model.requirements,
        writes=kinds.kinds(RESULTS, defining=DEFINING[RESULTS]),
        segments=tuple(label["name"] for label in artifact.sidecar.plain["labels"]),
        summary=artifact.sidecar.summary,
        licence=artifact.sidecar.licence,
        files_digest=approvals.digest_of(artifact.sidecar.files),
    )


def _words(model: Listed) -> str:
    wants = ", ".join(f"{key} {_value(value)}" for key, value in model.wants.items() if value)
    return "\n".join(
        (
            f"{model.name}: {model.kind} {model.version}, {model.trust}",
            f"  {model.summary}",
            *((f"  digest    {model.files_digest}",) if model.files_digest else ()),
            f"  settings  {model.digest}",
            *((f"  licence   {model.licence}",) if model.licence else ()),
            f"  wants     {wants}",
            f"  writes    {', '.join(model.writes)}",
            f"  segments  {', '.join(model.segments) or 'none'}",
        )
    )


def _value(value: object) -> str:
    return " or ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
