"""Mirrored images and several trainings: what is averaged, and what a sidecar may ask for.

Not covered: bundles (integration/test_engine.py runs them without these options).
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from inference.bundles.averages import averaged
from inference.bundles.recipe import Recipe
from inference.engine.averaging import Ensemble, Mirrored
from inference.errors import ModelRefused
from inference.model_files import ModelFiles
from service import model_folder


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Conv3d(1, 2, 3, padding=1).requires_grad_(requires_grad=False)


def test_mirrored_answers_lie_where_the_image_does() -> None:
    """A network that says what it sees: every mirror image must come back to its place."""
    image = torch.rand(2, 1, 4, 5, 6)
    torch.testing.assert_close(Mirrored(torch.nn.Identity(), (0, 1, 2))(image), image)


def test_the_mean_is_over_every_set_of_axes() -> None:
    image, one = torch.rand(1, 1, 6, 6, 6), network(1)
    sets: list[list[int]] = [[], [2], [4], [2, 4]]
    expected = torch.stack([one(image.flip(axes)).flip(axes) for axes in sets]).mean(0)
    torch.testing.assert_close(Mirrored(one, (0, 2))(image), expected)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    image, members = torch.rand(1, 1, 6, 6, 6), [network(1), network(2), network(3)]
    expected = torch.stack([member(image) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members)(image), expected)


def test_of_several_outputs_the_first_is_averaged() -> None:
    class Deep(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
            return [batch, batch[..., ::2]]

    image = torch.rand(1, 1, 4, 4, 4)
    torch.testing.assert_close(Ensemble([Deep(), Deep()])(image), image)


def recipe(one: torch.nn.Module) -> Recipe:
    def same(sample: dict[str, Any]) -> dict[str, Any]:
        return sample

    return Recipe(
        network=one,
        preprocessing=same,
        inferer=lambda batch, net: net(batch),
        postprocessing=same,
        device=torch.device("cpu"),
    )


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    folder = tmp_path / "bundle"
    (folder / "models").mkdir(parents=True)
    torch.save(network(2).state_dict(), folder / "models" / "second.pt")
    torch.save({"other": torch.zeros(1)}, folder / "models" / "another.pt")
    return ModelFiles(path=folder, digests=model_folder.digests(folder))


def test_a_sidecar_asks_for_both(files: ModelFiles) -> None:
    options = {"ensemble": ["models/second.pt"], "mirror": [2]}
    found = averaged(recipe(network(1)), files, options).network
    image = torch.rand(1, 1, 6, 6, 6)
    expected = Mirrored(Ensemble([network(1), network(2)]), (2,))(image)
    torch.testing.assert_close(found(image), expected)


def test_without_options_the_network_stays() -> None:
    one = network(1)
    nowhere = ModelFiles(path=Path("nowhere"), digests={})
    assert averaged(recipe(one), nowhere, {}).network is one


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ensemble": "models/second.pt"}, "is a list of files"),
        ({"ensemble": ["models/another.pt"]}, "models/another.pt does not fit the network"),
        ({"ensemble": ["models/missing.pt"]}, "is not among the files"),
        ({"mirror": [3]}, "is a list of axes"),
        ({"mirror": [1, 1]}, "is a list of axes"),
        ({"mirror": True}, "is a list of axes"),
    ],
)
def test_what_a_sidecar_asks_for_wrongly_is_refused(
    files: ModelFiles, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelRefused, match=words):
        averaged(recipe(network(1)), files, options)
