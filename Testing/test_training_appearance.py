"""How slabs are painted, and how real ones are varied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from SlideSAMLib.training import appearance, fields


def test_painted_objects_can_be_seen_some_of_them_barely():
    rng = np.random.default_rng(2)
    target = torch.zeros(3, 40, 40, dtype=torch.bool)
    target[:, 10:30, 10:30] = True
    contrasts = []
    for _ in range(100):
        image = appearance._separate(torch.full(target.shape, 0.5), target, target, rng)
        contrasts.append(abs(float(image[target].mean() - image[~target].mean())))
    assert min(contrasts) > 0.99 * appearance.LEAST_CONTRAST
    assert 5 < np.sum(np.array(contrasts) < 0.06) < 40


def test_blur_noise_and_neighbourhoods_are_those_of_scipy():
    """Beside the library that works on the host; edges repeat."""
    rng = np.random.default_rng(0)
    image = fields.noise((7, 30, 40), rng)
    assert float(image.std()) == pytest.approx(1, abs=0.05)
    for sigmas in ((0.0, 1.2, 1.2), (0.7, 0.4, 2.0)):
        expected = ndimage.gaussian_filter(image.numpy(), sigmas, mode="nearest")
        assert np.allclose(fields.blur(image, sigmas), expected, atol=1e-4)
    mask = image > 2
    box = np.ones((3, 5, 5), bool)
    assert np.array_equal(fields.grown(mask, 2, 1), ndimage.binary_dilation(mask.numpy(), box))
    box = np.ones((1, 3, 3), bool)
    expected = ndimage.binary_erosion((image > -1).numpy(), box, border_value=1)
    assert np.array_equal(fields.shrunk(image > -1, 1), expected)
    knots, values = [0.1, 0.3, 0.8], [0.9, 0.2, 0.4]
    expected = np.interp(image.numpy(), knots, values)
    assert np.allclose(fields.interpolated(image, knots, values), expected, atol=1e-5)
    smooth = fields.smooth_noise((20, 60, 60), 4, rng)
    steps = [float(smooth.diff(dim=axis).abs().mean()) for axis in range(3)]
    assert float(smooth.std()) == pytest.approx(1, abs=1e-3) and max(steps) < 0.2


def test_members_of_a_family_look_alike():
    labels = torch.zeros(1, 40, 60, dtype=torch.int64)
    labels[:, 10:30, 10:25], labels[:, 10:30, 26:41] = 1, 2
    families = np.array([0, 1, 1])
    rng = np.random.default_rng(3)
    kin, others = [], []
    for _ in range(60):
        image = appearance.paint(labels, labels == 1, rng, families)[0]
        kin.append(abs(image[20, 12:23].mean() - image[20, 28:39].mean()))
        others.append(abs(image[20, 12:23].mean() - image[20, 50:58].mean()))
    assert np.median(kin) < 0.5 * np.median(others)


def test_distances_to_outlines_are_counted_in_steps():
    edges = torch.zeros(1, 30, 40, dtype=torch.bool)
    edges[0, 12, 20] = True
    found = appearance._distance(edges)[0].numpy()
    rows, columns = np.ogrid[:30, :40]
    steps = np.maximum(abs(rows - 12), abs(columns - 20))
    assert np.array_equal(found, np.minimum(steps, appearance.FARTHEST))


def test_shells_lie_along_the_outlines_of_bodies():
    labels = torch.zeros(2, 60, 60, dtype=torch.int64)
    labels[:, 10:50, 10:50] = 1
    added = 0
    for seed in range(8):
        shell = appearance._shells(labels, labels == 1, np.random.default_rng(seed))
        assert shell[:, 30, 30].tolist() == [0, 0]  # deep inside
        added += bool(shell[:, 10, 30].any())
    assert added >= 4


def test_levels_split_what_a_body_holds_along_one_line():
    labels = torch.zeros(3, 40, 40, dtype=torch.int64)
    labels[:, 10:30, 10:30] = 1
    split = 0
    for seed in range(10):
        added = appearance._level(labels, labels == 1, np.random.default_rng(seed))
        assert torch.equal(added[0], added[2])
        inside = added[0, 10:30, 10:30]
        assert len(torch.unique(inside)) <= 2
        pieces = ndimage.label((inside != 0).numpy())[1]
        split += pieces == 1 and bool((inside == 0).any())
    assert split >= 5


def test_implanted_objects_may_differ_from_what_they_hold():
    labels = torch.zeros(3, 60, 60, dtype=torch.int64)
    labels[:, 15:45, 15:45] = 1
    labels[:, 25:35, 25:35] = 2
    canvas = torch.full(labels.shape, 0.5)
    steps = []
    for seed in range(20):
        image = appearance.implant(labels, labels > 0, canvas, np.random.default_rng(seed))
        steps.append(abs(float(image[1, 28:32, 28:32].mean() - image[1, 18:22, 18:22].mean())))
    assert np.sum(np.array(steps) > 0.15) > 5


def test_implants_change_the_object_and_leave_what_is_far_from_it(monkeypatch):
    """The rest is the real image; the object covers it, and can be seen."""
    monkeypatch.setattr(appearance, "acquire", lambda image, rng: image)
    labels = torch.zeros(3, 60, 60, dtype=torch.int64)
    labels[:, 20:40, 20:40] = 1
    target = labels == 1
    far = ~fields.grown(target, 6)
    canvas = 0.3 + 0.2 * torch.rand(labels.shape, generator=torch.Generator().manual_seed(1))
    for seed in range(10):
        image = appearance.implant(labels, target, canvas, np.random.default_rng(seed))
        assert torch.allclose(image[far], canvas[far], atol=1e-6)
        assert not torch.allclose(image[target], canvas[target], atol=1e-2)
        ring = fields.grown(target, 3) & ~target
        contrast = abs(float(image[target].mean() - image[ring].mean()))
        assert contrast > 0.9 * appearance.LEAST_CONTRAST


def test_nothing_is_around_an_object_alone_but_some_of_the_other_bodies(monkeypatch):
    monkeypatch.setattr(appearance, "acquire", lambda image, rng: image)
    labels = torch.zeros(3, 60, 60, dtype=torch.int64)
    labels[:, 20:40, 20:40], labels[:, 5:15, 5:15], labels[:, 45:55, 5:15] = 1, 2, 3
    target = labels == 1
    image = 0.2 + 0.6 * torch.rand(labels.shape, generator=torch.Generator().manual_seed(1))
    beside = 0
    for seed in range(40):
        given = None if seed % 2 else labels
        found = appearance.alone(image, given, target, np.random.default_rng(seed))
        assert torch.equal(found[target], image[target])
        around = found[labels == 0]
        assert len(torch.unique(around)) == 1
        assert abs(float(around[0]) - float(image[target].mean())) >= 0.1
        for value in (2, 3):
            kept = torch.equal(found[labels == value], image[labels == value])
            assert kept or bool((found[labels == value] == around[0]).all())
            assert given is not None or not kept
            beside += kept
    assert 5 < beside < 20
    hidden = appearance.alone(torch.zeros(target.shape), None, target, np.random.default_rng(1))
    assert bool((hidden[~target] == 1).all())  # what is black is not put on black


def test_other_greys_never_hide_the_object(monkeypatch):
    monkeypatch.setattr(appearance, "acquire", lambda image, rng: image)
    target = torch.zeros(3, 40, 40, dtype=torch.bool)
    target[:, 10:30, 10:30] = True
    image = torch.where(target, 0.6, 0.45)
    image += 0.01 * fields.noise(image.shape, np.random.default_rng(2))
    changed = 0
    for seed in range(150):
        found = appearance.vary(image, target, np.random.default_rng(seed))
        ring = fields.grown(target, 3) & ~target
        assert abs(found[target].mean() - found[ring].mean()) > 0.05
        changed += abs(found[target].mean() - image[target].mean()) > 0.05
    assert 5 < changed < 50
