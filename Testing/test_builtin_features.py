"""The prompt channels and appearance statistics of the built-in network."""

from __future__ import annotations

import pytest
import torch

from SlideSAMLib.builtin import features
from SlideSAMLib.builtin.features import BINS, CHANNELS, Batch
from SlideSAMLib.builtin.regions import GRID

RATIO = slice(6, 9)  # channels of the log-likelihood ratio
FILL, POSITIVE, NEGATIVE = 18, 19, 20
REFERENCE = slice(21, 24)
# Mean of every channel, before, centre and after, in the three windows of `shown`.
MEANS = [
    (-0.4259, 0.4259, -0.4259),
    (-0.2938, 0.2938, -0.2938),
    (-0.6900, 0.6900, -0.6900),
    (-0.6652, 2.5924, -0.5004),
    (-0.5376, 2.3753, -0.3479),
    (-0.9205, 2.8901, -0.8054),
    (-0.3359, -0.9919, -0.5613),
    (-0.2491, -0.9159, -0.3978),
    (-0.4704, -0.9687, -0.7437),
    (0.3144, 0.0109, 0.2206),
    (0.3650, 0.0271, 0.3093),
    (0.1973, 0.0007, 0.0790),
    (0.0, 0.0, -0.8035),
    (0.0, 0.0, -0.8035),
    (0.0, 0.0, 0.0),
    (0.0, 0.0, 1.0000),
    (0.0, 0.0, 1.0000),
    (0.0, 0.0, 0.0),
    (0.1945, 0.0, 0.0),
    (0.0, 0.0025, 0.0),
    (0.0, 0.0025, 0.0),
    (0.0, 0.0, -0.2938),
    (0.0, 0.0, -0.7816),
    (0.0, 0.0, 0.6065),
]


def disc(batch: Batch, bright: float = 0.8, dark: float = 0.3) -> torch.Tensor:
    """Put a bright disc into every slice; returns it as bool (GRID, GRID)."""
    line = torch.arange(GRID) - GRID / 2
    inside = line[:, None] ** 2 + line[None] ** 2 < 30**2
    batch.image[:] = torch.where(inside, bright, dark)
    return inside


def with_box(batch: Batch) -> Batch:
    batch.box[:] = torch.tensor([34.0, 34.0, 93.0, 93.0])
    batch.has_box[:] = 1
    return batch


def test_the_number_of_channels_is_what_the_network_expects():
    assert features.assemble(with_box(Batch.empty(2))).shape == (2, CHANNELS, GRID, GRID)


def shown() -> Batch:
    """Three windows: with a box, with points, and with masks and what is remembered."""
    batch = Batch.empty(3)
    x, y = torch.arange(GRID)[None, :], torch.arange(GRID)[:, None]
    waves = 0.45 + 0.25 * torch.sin(x / 7) * torch.cos(y / 11)
    disc = (x - 60) ** 2 + (y - 70) ** 2 < 24**2
    image = waves + 0.3 * disc
    batch.image[:] = torch.stack([torch.stack([c * image for c in (0.9, 1.0, 0.7)]) for _ in "abc"])
    batch.image[1] = 1 - batch.image[1]
    batch.box[0], batch.has_box[0] = torch.tensor([30.0, 44.0, 88.0, 97.0]), 1
    batch.points[1, :2] = torch.tensor([[60.0, 70.0], [20.0, 100.0]])
    batch.signs[1, :2] = torch.tensor([1.0, 0.0])
    batch.masks[2, :2] = 0.9 * disc
    batch.known[2, :2] = 1
    batch.memory[2] = torch.arange(2 * BINS).view(2, BINS) / sum(range(2 * BINS))
    batch.has_memory[2] = 1
    batch.reference[2] = torch.stack([image.flip(0), disc.flip(1)])
    batch.nearness[2] = features.nearness(4)
    return batch


def test_the_input_is_what_the_weights_were_trained_with():
    """Trained weights know no other: with these numbers the shipped ones must be trained anew."""
    means = features.assemble(shown()).mean((2, 3)).T
    for channel, (found, expected) in enumerate(zip(means.tolist(), MEANS, strict=True)):
        assert found == pytest.approx(expected, abs=1e-3), channel


def test_a_box_tells_the_object_from_its_surroundings_on_all_three_slices():
    batch = with_box(Batch.empty(1))
    inside = disc(batch)
    ratio = features.assemble(batch)[0, RATIO]
    assert (ratio[:, inside].mean(1) > 0.5).all()
    assert (ratio[:, ~inside].mean(1) < -0.2).all()


def test_a_point_does_so_too():
    batch = Batch.empty(1)
    inside = disc(batch)
    batch.points[0, 0] = torch.tensor([64.0, 64.0])
    batch.signs[0, 0] = 1
    ratio = features.assemble(batch)[0, RATIO]
    assert ratio[:, inside].mean() > ratio[:, ~inside].mean() + 0.5


def test_a_negative_point_tells_what_does_not_belong():
    batch = Batch.empty(1)
    disc(batch)
    batch.image[:, :, :, 100:] = 0.8  # a second object that looks the same
    batch.points[0, 0], batch.points[0, 1] = torch.tensor([64.0, 64.0]), torch.tensor([115.0, 64.0])
    batch.signs[0, :2] = torch.tensor([1.0, -1.0])
    unmarked = features.assemble(batch)[0, RATIO][1, 64, 64]
    batch.signs[0, 1] = 0
    marked = features.assemble(batch)[0, RATIO][1, 64, 64]
    assert marked < unmarked


def test_known_masks_outweigh_the_box():
    batch = with_box(Batch.empty(1))
    inside = disc(batch)
    batch.masks[0, 0] = (~inside).float()
    batch.known[0, 0] = 1
    ratio = features.assemble(batch)[0, RATIO]
    assert ratio[1][~inside].mean() > ratio[1][inside].mean()


def test_the_memory_holds_the_look_of_the_users_slice():
    batch = with_box(Batch.empty(1))
    inside = disc(batch)
    memory = features.mask_histograms(batch.image[:, 1:2], inside.float()[None, None])
    assert memory.shape == (1, 2, BINS)
    batch.image[:] = 0.3  # the object has faded
    without = features.assemble(batch)[0, RATIO].mean()
    batch.memory[:], batch.has_memory[:] = memory, 1
    assert features.assemble(batch)[0, RATIO].mean() < without


def test_the_remembered_slice_is_shown_in_the_greys_of_the_window():
    batch = with_box(Batch.empty(2))
    inside = disc(batch)
    assert not features.assemble(batch)[:, REFERENCE].any()
    batch.reference[:, 0] = batch.image[:, 1]
    batch.reference[:, 1] = inside.float()
    batch.nearness[0] = features.nearness(2)  # the second window has none
    out = features.assemble(batch)
    assert torch.equal(out[0, REFERENCE.start], out[0, 1])  # as the window's own centre slice
    assert (out[0, REFERENCE.start + 1] == torch.where(inside, 1, -1)).all()
    assert (out[0, REFERENCE.start + 2] == features.nearness(2)).all()
    assert not out[1, REFERENCE].any()
    assert 1 == features.nearness(0) > features.nearness(1) > features.nearness(50) > 0


def test_prompts_are_drawn_where_they_are():
    batch = with_box(Batch.empty(1))
    batch.points[0, :2] = torch.tensor([[20.0, 40.0], [90.0, 100.0]])
    batch.signs[0, :2] = torch.tensor([1.0, 0.0])
    out = features.assemble(batch)[0]
    assert out[FILL, 60, 60] == 1
    assert out[FILL, 20, 20] == 0
    assert out[POSITIVE].argmax() == 40 * GRID + 20
    assert out[NEGATIVE].argmax() == 100 * GRID + 90


def test_even_images_give_finite_inputs():
    batch = with_box(Batch.empty(1))
    assert features.assemble(batch).isfinite().all()


def test_the_ring_around_a_mask_is_square():
    """As wide on its diagonals as beside it, and nothing right next to the mask."""
    masks = torch.zeros(1, 1, GRID // 2, GRID // 2)
    masks[0, 0, 30, 20] = 1
    inside, ring = features._mask_weights(masks)
    reach = GRID // 2 // 10
    expected = torch.zeros_like(masks)
    expected[0, 0, 30 - reach : 31 + reach, 20 - reach : 21 + reach] = 1
    expected[0, 0, 29:32, 19:22] = 0
    assert torch.equal(ring, expected)
    assert torch.equal(inside, masks)
