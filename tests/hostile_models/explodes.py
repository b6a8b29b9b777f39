"""Takes its process down while it is loaded."""

import os
import signal
from collections.abc import Mapping

from inference.models import Model

VERSION = "1.0.0"


def load(settings: Mapping[str, object]) -> Model:
    os.kill(os.getpid(), signal.SIGABRT)
    raise AssertionError("not reached")
