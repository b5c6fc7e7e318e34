"""How pictures are sized for Phi-4's crops, and what they cost in tokens."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from phi4.errors import ImageTooSmall
from worker.engines.crops import DETAIL_CROPS, fit, grid, image_tokens


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((448, 448), 545),
        ((640, 480), 1065),
        ((1000, 700), 1777),
        ((1024, 768), 1681),
        ((1240, 1754), 3281),  # A4 at 150 dpi
        ((1654, 2339), 6188),  # A4 at 200 dpi
    ],
)
def test_a_picture_costs_what_the_processor_makes_of_it(size: tuple[int, int], tokens: int) -> None:
    """The figures are those of Microsoft's processor."""
    assert image_tokens(*size) == tokens


@pytest.mark.parametrize(
    ("size", "crops", "fitted", "laid"),
    [
        ((1240, 1754), 12, (1240, 1754), (3, 4)),  # A4 at 150 dpi fits as it is
        ((1654, 2339), 12, (1267, 1792), (3, 4)),  # at 200 dpi it is scaled to just that
        ((1654, 2339), 36, (1654, 2339), (4, 6)),
        ((1240, 1754), 4, (633, 896), (2, 2)),
        ((4000, 300), 12, (4000, 300), (9, 1)),
        ((100, 60), 12, (100, 60), (1, 1)),  # never scaled up
    ],
)
def test_a_picture_is_scaled_to_the_largest_size_whose_crops_fit(
    size: tuple[int, int], crops: int, fitted: tuple[int, int], laid: tuple[int, int]
) -> None:
    """Without this the processor would take a grid of the nearest shape, which can be much smaller."""
    picture = fit(Image.new("RGB", size), crops)

    assert picture.size == fitted
    assert grid(*picture.size) == laid


@given(
    width=st.integers(20, 6_000),
    height=st.integers(20, 6_000),
    crops=st.sampled_from(sorted({n for steps in DETAIL_CROPS.values() for n in steps})),
)
def test_every_grid_stays_within_its_crops(width: int, height: int, crops: int) -> None:
    """Whatever the shape: the grid holds, the shape is kept within a pixel, and a crop more would not have fitted."""
    try:
        fitted = fit(Image.new("1", (width, height)), crops).size
    except ImageTooSmall:
        assert max(width, height) / min(width, height) > 20
        return

    assert math.prod(grid(*fitted)) <= crops
    assert fitted <= (width, height)
    # Cut off fractions of a pixel weigh most on the short side.
    assert fitted[0] / width == pytest.approx(fitted[1] / height, abs=1 / min(width, height))


@pytest.mark.parametrize("size", [(12, 9_000), (9_000, 12)])
def test_a_picture_that_would_vanish_is_refused(size: tuple[int, int]) -> None:
    """The processor would fail on it; the message names the picture's size."""
    with pytest.raises(ImageTooSmall, match=f"{size[0]} × {size[1]}"):
        fit(Image.new("RGB", size), 12)
