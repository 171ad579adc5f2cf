"""The automatic intensity window."""

import numpy as np
import pytest

from SlideSAMLib.intensity import CT_WINDOW, automatic_window, value_range


def test_negative_air_means_ct():
    rng = np.random.default_rng(0)
    volume = rng.normal(40, 30, (20, 30, 30)).astype(np.int16)
    volume[:, :10] = -1000
    assert automatic_window(volume) == CT_WINDOW
    assert automatic_window(volume.astype(np.float64)) == CT_WINDOW


def test_other_data_get_robust_percentiles():
    rng = np.random.default_rng(1)
    volume = rng.uniform(0, 1000, (30, 30, 30)).astype(np.float32)
    volume[0, 0, 0] = 1e9
    low, high = automatic_window(volume)
    assert low == pytest.approx(5, abs=3)
    assert high == pytest.approx(995, abs=3)


@pytest.mark.parametrize(("lowest", "highest"), [(-30000, -10000), (-1400, -600)])
def test_far_negative_data_without_soft_tissue_are_not_ct(lowest, highest):
    rng = np.random.default_rng(2)
    volume = rng.uniform(lowest, highest, (10, 20, 20)).astype(np.int16)
    low, high = automatic_window(volume)
    assert lowest <= low < high <= highest


def test_mr_with_slightly_negative_values_is_not_ct():
    rng = np.random.default_rng(3)
    volume = rng.normal(100, 60, (10, 20, 20))
    assert automatic_window(volume) != CT_WINDOW


@pytest.mark.parametrize("fat", [1500, 5000])
def test_mr_that_rings_far_below_zero_is_not_ct(fat):
    """Splines undershoot beside bright fat; a little gas makes a CT all the same."""
    rng = np.random.default_rng(5)
    volume = rng.normal(100, 90, (20, 40, 40))
    volume[:, :12] = rng.normal(fat, 0.3 * fat, (20, 12, 40))
    volume[:4, 12, 5] = -700
    assert automatic_window(volume)[1] > fat
    volume = rng.normal(40, 60, (20, 40, 40))
    volume[4:8, 10:15, 10:13] = -900  # gas in the bowel, 0.2 %
    assert automatic_window(volume) == CT_WINDOW


@pytest.mark.parametrize(("middle", "spread"), [(0, 3000), (-600, 900), (0, 1500), (5000, 2600)])
def test_signed_microscopy_is_not_ct(middle, spread):
    """Electron microscopes store 16 bits around 0; unsigned, the same voxels get percentiles."""
    signed = np.random.default_rng(6).normal(middle, spread, (20, 40, 40)).clip(-32768, 32767)
    signed = signed.astype(np.int16)
    unsigned = (signed.astype(np.int32) + 32768).astype(np.uint16)
    low, high = automatic_window(signed)
    assert (low + 32768, high + 32768) == pytest.approx(automatic_window(unsigned))


@pytest.mark.parametrize("padding", [(-2000,), (-3024,), (-3024, -2000), (-32768,)])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_ct_with_padding_metal_and_noise_is_ct(padding, kind):
    rng = np.random.default_rng(7)
    volume = rng.normal(40, 40, (20, 60, 60))
    volume[:, :25] = rng.normal(-1000, 150, (20, 25, 60))
    volume[:, 30:34, 20:24] = rng.normal(9000, 6000, (20, 4, 4))  # a prosthesis, 0.4 %
    for row, value in enumerate(padding):
        volume[:, 20 * row : 20 * row + 10] = value
        # Resampled: what lies between the padding and the air.
        volume[:, 20 * row + 10, :] = rng.uniform(value, -1000, (20, 60))
    assert automatic_window(volume.astype(kind)) == CT_WINDOW


def test_nearly_empty_image_gets_its_full_range():
    volume = np.zeros((20, 40, 40), np.uint8)
    volume[10, 20, 20] = 200
    assert automatic_window(volume) == (0.0, 200.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_hot_pixel_does_not_hide_what_is_in_a_nearly_empty_image(sign):
    volume = np.zeros((40, 80, 80), np.int32)
    volume[10:15, 20:30, 20:30] = np.random.default_rng(8).normal(300, 30, (5, 10, 10))
    volume[0, 0, 0] = 65535
    low, high = sorted(sign * end for end in automatic_window(sign * volume))
    assert low == 0 and 330 < high < 450


def test_values_that_are_not_finite_are_ignored():
    volume = np.linspace(0, 100, 1000).reshape(10, 10, 10)
    volume[0, 0, :2] = (np.nan, -np.inf)
    volume[9, 9, 9] = np.inf
    expected = np.percentile(volume[np.isfinite(volume)], (0.5, 99.5))
    assert automatic_window(volume) == pytest.approx(tuple(expected))
    assert value_range(volume) == pytest.approx((0.2, 99.9), abs=0.01)
    assert value_range(np.full((2, 2, 2), np.nan)) is None
    assert automatic_window(np.full((2, 2, 2), np.nan)) == (0.0, 0.0)


def test_large_volumes_are_sampled_the_same_way_every_time():
    rng = np.random.default_rng(4)
    volume = rng.integers(0, 1000, (160, 160, 160), np.int16)
    window = automatic_window(volume)
    assert window == automatic_window(volume.copy())
    assert window == pytest.approx((5, 995), abs=3)


def test_no_slice_of_a_few_is_left_out_of_the_sample():
    volume = np.zeros((3, 1300, 1300), np.uint8)
    volume[1] = np.random.default_rng(12).integers(100, 200, (1300, 1300))
    assert automatic_window(volume) == (0, 198)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float16])
def test_two_values_are_the_window(kind):
    volume = np.zeros((10, 10, 10), kind)
    volume[:, 5:] = 1
    assert automatic_window(volume) == (0, 1)


def test_a_common_value_at_the_end_of_the_range_counts_like_all_others():
    volume = np.random.default_rng(13).integers(0, 1000, (10, 20, 30))
    volume[:, :15] = 0
    assert automatic_window(volume) == tuple(np.percentile(volume, (0.5, 99.5)))


def test_order_of_the_axes_in_memory_does_not_matter():
    volume = np.random.default_rng(5).normal(size=(4, 5, 6))
    assert value_range(volume.transpose(2, 0, 1)) == value_range(volume)
    assert value_range(volume[::-1]) == (volume.min(), volume.max())


def _brain(kind: type, level: float, spread: float) -> np.ndarray:
    """Noise in the middle, with room on all sides."""
    volume = np.zeros((20, 40, 40), kind)
    volume[:, 8:32, 8:32] = np.random.default_rng(9).normal(level, spread, (20, 24, 24))
    return volume


@pytest.mark.parametrize("padding", [0, 65535])
def test_padding_far_from_all_grey_values_does_not_hide_them(padding):
    """The cylinder that a micro-CT shows, in 16 bits, and what the file has around it."""
    image = _brain(np.uint16, 30000, 300)
    image[image == 0] = padding
    low, high = automatic_window(image)
    assert 28000 < low < 29150 and 30850 < high < 32000  # what is black there stays darker


def test_what_was_written_into_a_padded_image_does_not_hide_it_either():
    image = _brain(np.uint16, 30000, 300)
    expected = automatic_window(image)
    image[:, 12:14, 12:20] = 35000
    assert automatic_window(image) == pytest.approx(expected, abs=20)


@pytest.mark.parametrize("padding", [-1000, -32768])
def test_mr_with_negative_padding_is_no_ct(padding):
    image = _brain(np.int16, 300, 60)
    image[image == 0] = padding
    image[:, 30:32, 20:22] = 0  # air, where a magnitude image has nothing below
    low, high = automatic_window(image)
    assert -100 < low <= 0 and 400 < high < 600
    image[:, :4] = -2000  # and what another program has put around that
    assert automatic_window(image) != CT_WINDOW


def test_a_black_background_near_the_grey_values_is_no_padding():
    image = _brain(np.int16, 900, 100)
    low, high = automatic_window(image)
    assert low == 0 and 1000 < high < 1300


def test_a_background_with_little_in_it_is_no_padding():
    """A few bright cells: as padding, what is black around them would be as bright as the dimmest
    of them."""
    image = np.zeros((20, 40, 40), np.uint16)
    image[5:15, 15:25, 15:25] = np.random.default_rng(10).normal(30000, 300, (10, 10, 10))
    assert automatic_window(image)[0] == 0


def test_a_lung_with_little_tissue_around_it_is_ct():
    volume = np.random.default_rng(11).normal(-850, 40, (20, 40, 40))
    volume[:, :2, :20] = 40  # 2.5 %
    assert automatic_window(volume) == CT_WINDOW


def test_a_phantom_of_plain_values_is_ct():
    """Three kinds of air, and nothing as between them and water."""
    volume = np.full((12, 40, 40), 20, np.int16)
    for place, value in enumerate((-1000, -900, -800)):
        volume[4 * place : 4 * place + 4, :10] = value
    assert automatic_window(volume) == CT_WINDOW
