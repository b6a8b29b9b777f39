"""A device with a memory of its own size: tensors stay on the CPU, windows are counted."""

from collections.abc import Callable

import torch


class FakeDevice:
    """As inference.engine.device.Device."""

    name = "fake"
    is_host = False
    windows = 4

    def __init__(self, *, memory_bytes: int, bfloat16: bool = False) -> None:
        self.torch = torch.device("cpu")
        self.bfloat16 = bfloat16
        self.memory_bytes = memory_bytes
        self.used = 0
        self.peak = 0
        self.released = 0

    def begin(self) -> None:
        self.peak = self.used

    def used_bytes(self) -> int:
        return self.used

    def release(self) -> None:
        self.released += 1

    def peak_bytes(self) -> int:
        return self.peak

    def counting(
        self, network: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """The network, for batches that fit; torch's own error for larger ones."""

        def predict(batch: torch.Tensor) -> torch.Tensor:
            wanted = self.used + batch.nbytes
            if wanted > self.memory_bytes:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            self.peak = max(self.peak, wanted)
            return network(batch)

        return predict
