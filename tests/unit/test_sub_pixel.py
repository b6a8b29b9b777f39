"""A transposed convolution of few channels as a convolution: the same function; others stay."""

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from inference.engine import sub_pixel
from inference.engine.labelling import Rule
from inference.engine.precision import Choice, Precision, choose
from inference.engine.sub_pixel import SubPixel
from tests.fake_device import FakeDevice


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


def test_one_that_somebody_listens_to_stays() -> None:
    network = nn.Sequential(nn.ConvTranspose3d(8, 2, 3, 2, 1, 1)).eval()
    network[0].register_forward_hook(lambda _module, _given, found: found + 1)
    assert sub_pixel.replaced(network) is network


class Sized(nn.Module):
    """It says how large the answer is to be, which a convolution does not understand."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(1, 8, 3, 2, 1)
        self.up = nn.ConvTranspose3d(8, 2, 3, 2, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.up(self.down(image), output_size=image.shape[2:])


def test_one_outside_of_sequences_stays() -> None:
    network, image = Sized().eval(), torch.randn(1, 1, 15, 16, 17)
    with torch.inference_mode():
        assert sub_pixel.replaced(network)(image).shape == (1, 2, 15, 16, 17)


class Halved(nn.Module):
    """It weighs its last layer by the number of its weights, which are more of a quicker one."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(1, 8, 3, 2, 1)
        self.up = nn.Sequential(nn.ConvTranspose3d(8, 2, 3, 2, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.up(self.down(image)) * self.up[0].weight.numel()


def test_a_network_that_becomes_another_stays_in_float32() -> None:
    torch.manual_seed(9)
    rule = Rule(activation=None, threshold=None, interpolated=False)
    device = FakeDevice(memory_bytes=1 << 30, bfloat16=True)
    found = choose(Halved().eval(), device, rule, [torch.randn(1, 16, 16, 16)])
    assert found == Choice(precision=Precision.FLOAT32)
