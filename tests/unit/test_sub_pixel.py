"""A transposed convolution of few channels as a convolution: the same function; others stay."""

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from inference.engine import sub_pixel
from inference.engine.sub_pixel import SubPixel


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_the_same_scores(classes: int, bias: bool) -> None:
    torch.manual_seed(4)
    transposed = nn.ConvTranspose3d(6, classes, 3, 2, 1, 1, bias=bias).eval()
    image = torch.randn(2, 6, 5, 7, 4)
    with torch.inference_mode():
        expected, found = transposed(image), SubPixel(transposed)(image)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_network_is_copied_and_only_its_last_step_is_another() -> None:
    torch.manual_seed(5)
    network = UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        made = sub_pixel.replaced(network)
        torch.testing.assert_close(made(image), network(image), rtol=1e-4, atol=1e-4)
    assert sum(isinstance(module, SubPixel) for module in made.modules()) == 1
    assert sum(isinstance(module, nn.ConvTranspose3d) for module in made.modules()) == 1
    assert not any(isinstance(module, SubPixel) for module in network.modules())


@pytest.mark.parametrize(
    "other",
    [
        nn.ConvTranspose3d(8, 16, 3, 2, 1, 1),  # of many channels
        nn.ConvTranspose3d(8, 2, 2, 2),
        nn.ConvTranspose3d(8, 2, 3, 2, 1, 0),
        nn.ConvTranspose3d(8, 2, 3, 2, 1, 1, groups=2),
        nn.Conv3d(8, 2, 3),
    ],
)
def test_others_stay(other: nn.Module) -> None:
    network = nn.Sequential(other).eval()
    assert sub_pixel.replaced(network) is network


class Listened(nn.ConvTranspose3d):
    """A kind of its own: what it does is not known."""


def test_a_subclass_stays() -> None:
    network = nn.Sequential(Listened(8, 2, 3, 2, 1, 1)).eval()
    assert sub_pixel.replaced(network) is network
