"""Is minutes deep in one forward pass of torch, with every thread of it."""

from collections.abc import Mapping

import torch

from inference.findings import Findings, Image
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"
LAYERS = 400


class Computes:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        layers = [torch.nn.Conv3d(16, 16, 5, padding=2) for _ in range(LAYERS)]
        with torch.inference_mode():
            torch.nn.Sequential(*layers)(torch.zeros(1, 16, 96, 96, 96))
        raise AssertionError("the deadline was later than the end of the pass")


def load(settings: Mapping[str, object]) -> Model:
    return Computes()
