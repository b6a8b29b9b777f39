"""A model of Python code in a configuration; trusted_fixtures.py adds it."""

import pytest

from service import sandbox

HARMLESS = "def predict(array, **facts):\n    return {'mask': (array > 300).astype('uint8')}\n"
CONFIGURATION = """\
[storage]
directory = "{directory}"

[[models]]
name = "mine"
kind = "python"
path = "mine"
trust = "{trust}"
"""
confinable = pytest.mark.skipif(
    sandbox.lacking() is not None, reason=f"this machine cannot confine: {sandbox.lacking()}"
)
