"""Scores leave a network class by class, whatever its layout: the same values."""

import pytest
import torch

from inference.engine.precision import class_first


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_the_same_scores_class_by_class(
    windows: int, kind: torch.dtype, layout: torch.memory_format
) -> None:
    scores = torch.randn(windows, 5, 9, 8, 7).to(kind).contiguous(memory_format=layout)
    found = class_first(scores)
    assert found.is_contiguous()
    assert found.dtype is kind
    assert torch.equal(found, scores)


def test_a_view_between_the_two_and_pictures() -> None:
    scores = torch.randn(2, 6, 9, 8, 7).contiguous(memory_format=torch.channels_last_3d)
    part = scores[:, 1:4, :, 2:]
    assert class_first(part).is_contiguous()
    assert torch.equal(class_first(part), part)
    pictures = torch.randn(2, 6, 9, 8).contiguous(memory_format=torch.channels_last)
    assert class_first(pictures).is_contiguous()
    assert torch.equal(class_first(pictures), pictures)
