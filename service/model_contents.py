"""What a model's files could do that the strict policy would refuse, file by file, in words.

Reads files that nobody has approved, and loads TorchScript whose text is harmless: only where that
can do nothing else (`service.inspection`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from inference import torchscript_policy
from inference.bundles import configuration as bundle
from inference.bundles import documents, policy
from inference.errors import ModelRefused
from inference.model_files import ModelFiles


def beyond_strict(path: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """Lines of text; raises ModelRefused for a file that is not the one with this digest."""
    files = ModelFiles(path=path, digests=digests)
    for name in sorted(digests):
        if name.endswith(".py"):
            yield f"{name}: Python, runs as it is"
        elif name in bundle.NAMES:
            yield from (f"{name}: {what}" for what in _of_bundle(name, files.read(name)))
        elif torchscript_policy.is_program(content := files.read(name)):
            yield from (f"{name}: {what}" for what in torchscript_policy.violations(content))


def _of_bundle(name: str, content: bytes) -> Iterator[str]:
    try:
        whole = documents.parse(name, content)
        names = bundle.parts(whole).names
        tree = bundle.edited(bundle.reachable(whole, names))
    except ModelRefused as reason:
        yield str(reason)
        return
    yield from map(str, policy.violations(tree, names))
