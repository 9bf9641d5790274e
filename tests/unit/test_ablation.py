"""What is taken away from a network's output is taken away, and nothing else."""

import numpy as np
import pytest

from ocrstream.models.ctpn.decode import decode
from ocrstream.models.ctpn.slices import UNIT_PX, cell_centres
from training.ablation import Output, with_low_rows, with_wide_slices, without_ends, without_slope

LEFT_PX, RIGHT_PX, MIDDLE_PX, HEIGHT_PX, SLOPE = 40.0, 168.0, 48.0, 40.0, 0.1


@pytest.fixture
def output() -> Output:
    """One word of 128 by 40 px that leans a little, as a perfect network gives it."""
    x, y = cell_centres(60)[None, :], cell_centres(24)[:, None]
    middle = MIDDLE_PX + SLOPE * (x - (LEFT_PX + RIGHT_PX) / 2)
    is_core = (np.abs(y - middle) <= 0.3 * HEIGHT_PX) & (x > LEFT_PX + 12) & (x < RIGHT_PX - 12)
    distances = np.stack(
        np.broadcast_arrays(y - middle + HEIGHT_PX / 2, middle + HEIGHT_PX / 2 - y, x - LEFT_PX, RIGHT_PX - x)
    )
    logs = np.log(np.maximum(distances, 0.5) / UNIT_PX)
    score = np.where(is_core, 6.0, -6.0)[None]
    return np.concatenate([score, logs, np.full((1, 24, 60), SLOPE)]).astype(np.float32)


def test_a_perfect_output_is_decoded_the_same_with_wide_slices_and_low_rows(output: Output) -> None:
    (expected,) = decode(output).quads
    for share in (with_wide_slices, with_low_rows):
        (found,) = decode(share(output)).quads
        # What is rounded to 16 px in reach is told to the pixel all the same: each slice knows its distances.
        np.testing.assert_allclose(found, expected, atol=2.5)
        assert not np.array_equal(share(output), output)


def test_without_ends_they_are_guessed_from_the_last_slice(output: Output) -> None:
    output[3:5] += 0.5  # the slices tell ends that are wrong
    (told,), (guessed,) = decode(output).quads, decode(without_ends(output)).quads
    assert told[:, 0].min() < LEFT_PX - 6
    assert guessed[:, 0].min() == pytest.approx(LEFT_PX, abs=5)
    assert guessed[:, 0].max() == pytest.approx(RIGHT_PX, abs=5)


def test_without_slope_slices_say_nothing_of_it(output: Output) -> None:
    flat = without_slope(output)
    assert (flat[5] == 0).all()
    np.testing.assert_array_equal(flat[:5], output[:5])
