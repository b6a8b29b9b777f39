"""A last layer of single voxels after the sum gives the scores of the network; others stay."""

import pytest
import torch
from monai.networks.nets import SegResNet, UNet
from torch import Tensor, nn

from inference.engine import last_layer
from inference.engine.sliding_window import Windows, slabs

WINDOWS = Windows(size=(32, 32, 32), overlap=(0.25, 0.25, 0.25), gaussian=True)
CLASSES = 19


def network() -> nn.Module:
    torch.manual_seed(6)
    return SegResNet(
        3, init_filters=8, out_channels=CLASSES, blocks_down=(1, 1), blocks_up=(1,)
    ).eval()


def whole(image: Tensor, made: nn.Module, axis: int, last: object = None) -> Tensor:
    with torch.inference_mode():
        found = slabs(image, made, WINDOWS, axis=axis, last=last)  # type: ignore[arg-type]
        return torch.cat([slab.scores.clone() for slab in found], axis + 1)


@pytest.mark.parametrize("shape", [(70, 41, 33), (20, 50, 90)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_same_scores(
    shape: tuple[int, ...], axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.engine.sliding_window.LAST_VOXELS", 5000)
    made, image = network(), torch.randn(1, *shape)
    parted = last_layer.parted(made, image)
    assert parted is not None
    expected = whole(image, made, axis)
    found = whole(image, parted.network, axis, parted.last.scores)
    assert found.shape == expected.shape == (CLASSES, *shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_network_itself_is_unchanged_and_its_weights_are_shared() -> None:
    made, image = network(), torch.randn(1, 32, 32, 32)
    before = made(image[None])
    parted = last_layer.parted(made, image)
    assert parted is not None
    assert torch.equal(made(image[None]), before)
    assert parted.network(image[None]).shape[1] == 8
    ours = {one.data_ptr() for one in made.parameters()}
    assert {one.data_ptr() for one in parted.network.parameters()} < ours
    assert parted.last.weight.data_ptr() in ours


class Followed(nn.Module):
    """Something is done with what the last convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv3d(2, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(image).sigmoid()


class Headed(nn.Module):
    """The last convolution's answer is the network's: seen from outside, nothing follows it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.body = nn.Conv3d(2, 4, 3, padding=1)
        self.last = nn.Conv3d(4, 9, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.body(image))


class InPlace(Headed):
    """But its values are changed where they are."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).relu_()


class Asked(Headed):
    """But it is asked before, too."""

    def forward(self, image: Tensor) -> Tensor:
        seen = self.body(image)
        return self.last(seen * self.last(seen).amax(1, keepdim=True).sigmoid())


class Renamed(Headed):
    """But the network knows it by another name."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.last

    def forward(self, image: Tensor) -> Tensor:
        return self.again(self.body(image))


class Weighed(Headed):
    """But the network asks for its weights."""

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.body(image) / self.last.weight.norm())


class Prepared(Headed):
    """But somebody changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.last.register_forward_pre_hook(lambda _, given: (given[0] * 2,))


@pytest.mark.parametrize("made", [InPlace, Asked, Renamed, Weighed, Prepared])
def test_a_last_layer_that_is_more_than_that_stays(made: type[Headed]) -> None:
    with torch.inference_mode():
        image = torch.randn(2, 32, 32, 32)
        assert last_layer.parted(Headed().eval(), image) is not None
        assert last_layer.parted(made().eval(), image) is None


@pytest.mark.parametrize(
    "other",
    [
        Followed(),
        nn.Sequential(nn.Conv3d(2, 4, 3, padding=1)),
        nn.Sequential(nn.Conv3d(8, 2, 1)),  # fewer classes than channels
        nn.Sequential(nn.Conv3d(2, 4, 1, groups=2)),
        UNet(3, 2, 3, channels=(4, 8), strides=(2,)),
    ],
)
def test_others_stay(other: nn.Module) -> None:
    channels = next(other.parameters()).shape[1] * (2 if "groups=2" in str(other) else 1)
    with torch.inference_mode():
        assert last_layer.parted(other.eval(), torch.randn(channels, 32, 32, 32)) is None


def test_several_outputs_are_as_the_first() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv3d(2, 5, 1, bias=False)

        def forward(self, image: Tensor) -> list[Tensor]:
            return [self.last(image), image]

    image = torch.randn(2, 16, 16, 16)
    made = Deep().eval()
    parted = last_layer.parted(made, image)
    assert parted is not None
    expected = made(image[None])[0][0]
    torch.testing.assert_close(parted.last.scores(parted.network(image[None])[0][0]), expected)
