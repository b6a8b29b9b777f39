"""A folded network computes the same function; what is not certain to be safe is left alone."""

import pytest
import torch
from monai.networks.nets import DenseNet121, SegResNet, UNet
from torch import nn

from inference.engine.folding import folded


def trained(network: nn.Module) -> nn.Module:
    """As if: normalisations that change values, for inference."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network.eval()


def normalisations(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def unet() -> nn.Module:
    return UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=2,
        channels=(4, 8, 16),
        strides=(2, 2),
        num_res_units=2,
        norm="batch",
    )


@pytest.mark.parametrize(("made", "left"), [(unet, 0), (lambda: DenseNet121(2, 1, 3), 62)])
def test_the_same_function_with_fewer_passes(made: object, left: int) -> None:
    network = trained(made())  # type: ignore[operator]
    before = normalisations(network)
    image = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        expected, found = network(image), folded(network)(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert normalisations(folded(network)) == left < before
    assert normalisations(network) == before


def test_a_network_without_any_is_itself() -> None:
    network = trained(SegResNet(spatial_dims=2))
    assert folded(network) is network


class Reused(nn.Module):
    """The convolution's result is used twice: folding it would change the second use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3, padding=1)
        self.sequence = nn.Sequential(self.first, nn.BatchNorm2d(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.sequence(image) + self.first(image))


class Reordered(nn.Sequential):
    """Not what a sequence does: the order is its own."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self[0](self[1](image)))


def watched() -> nn.Module:
    sequence = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1))
    sequence[0].register_forward_hook(lambda *_: None)
    return sequence


def between() -> nn.Module:
    """One activation, used twice: what stands between is not skipped the second time."""
    relu = nn.ReLU()
    first, second = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)
    return nn.Sequential(first, relu, second, relu, nn.BatchNorm2d(1))


class Learning(nn.Module):
    """Normalises by what it is given, also for inference."""

    def __init__(self) -> None:
        super().__init__()
        self.sequence = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1))

    def train(self, mode: bool = True) -> "Learning":
        super().train(mode)
        self.sequence[1].training = True
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.sequence(image))


@pytest.mark.parametrize(
    "made",
    [
        Reused,
        between,
        Learning,
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4)),
        lambda: Reordered(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)),
        watched,
        lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.BatchNorm2d(1)),
        lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1, track_running_stats=False)),
    ],
)
def test_what_may_have_another_reader_stays(made: object) -> None:
    network = made().eval()  # type: ignore[operator]
    assert folded(network) is network
