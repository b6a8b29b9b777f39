"""Reads memory that is not there, as a broken native library does."""

import ctypes
from collections.abc import Mapping

from inference.findings import Findings, Image
from inference.models import Model
from inference.requirements import Requirements

VERSION = "1.0.0"


class Segfaults:
    requirements = Requirements(modalities=("CT",))

    def predict(self, image: Image) -> Findings:
        del image
        ctypes.string_at(0)
        raise AssertionError("not reached")


def load(settings: Mapping[str, object]) -> Model:
    return Segfaults()
