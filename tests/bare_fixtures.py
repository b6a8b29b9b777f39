"""A plugin of pytest: `ask` a network as a data scientist would add it."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from inference import pipeline
from inference.findings import Findings, Image, PlanarImage
from inference.models import torchscript
from tests.array_models import artifact, scripted
from tests.bare_networks import Ask

DESCRIBED = ("task", "overlapping", "dimensions", "modalities", "roles")


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """ask(network, image, *labels, trusted=..., task=..., input={...}, ...): its findings."""

    def asked(
        network: nn.Module,
        seen: Image | PlanarImage,
        *labels: dict[str, Any],
        trusted: bool = False,
        **options: Any,
    ) -> Findings:
        described = {key: options.pop(key) for key in DESCRIBED if key in options}
        file = scripted(network, tmp_path / "net.pt")
        made = artifact(file, labels, options=options, trusted=trusted, **described)
        return pipeline.found_in(seen, torchscript.load({}, made))

    return asked
