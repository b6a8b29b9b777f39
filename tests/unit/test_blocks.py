"""Blocks: a mask's share of a block is its mean, whatever the sizes.

Not covered: values beside masks (tests of lung_ct and of the features use them).
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference.blocks import blocks, pool, share

sizes = st.tuples(*[st.integers(1, 23)] * 3)
spacings = st.tuples(*[st.sampled_from((0.3, 0.76, 1.0, 2.5, 9.0))] * 3)


@given(shape=sizes, spacing=spacings, seed=st.integers(0, 99), flipped=st.booleans())
def test_the_share_of_a_mask_is_its_mean_to_the_last_bit(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    seed: int,
    *,
    flipped: bool,
) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.4
    mask = mask[::-1, :, ::-1] if flipped else mask
    grid = blocks(shape, spacing, cell_mm=4.0)
    expected = pool(mask.astype(np.uint8), grid, limits=(0.0, 1.0))
    assert np.array_equal(share(mask, grid), expected)
