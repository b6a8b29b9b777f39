"""A plugin of pytest: `ask` a network as a data scientist would add it, on `one_thread`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inference import pipeline
from inference.findings import Findings, Image, PlanarImage
from inference.models import torchscript
from tests.array_models import artifact, scripted
from tests.bare_networks import Ask

DESCRIBED = ("task", "overlapping", "dimensions", "modalities", "roles")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
