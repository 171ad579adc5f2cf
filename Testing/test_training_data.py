"""Synthetic volumes, slabs cut from volumes, and rollouts over slabs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from SlideSAMLib.errors import InputError
from SlideSAMLib.training import appearance, fields, rollouts, shapes, slabs, sources
from SlideSAMLib.training.config import TrainConfig
from SlideSAMLib.training.generators import StateMismatch
from SlideSAMLib.training.mixture import Mixture
from SlideSAMLib.training.rollouts import Pool
from SlideSAMLib.training.simulated_user import jittered, largest_error, user_points
from SlideSAMLib.training.slabs import DEPTH, Slab
from Testing.training_data import small_map


@pytest.fixture(scope="module")
def volume() -> slabs.Labelled:
    return sources.invented(3)


def ball_slab(radius: float = 14.0, last: int = DEPTH - 1) -> Slab:
    """A bright cylinder on dark ground that ends behind slice `last`."""
    line = np.arange(64) - 32
    disc = line[:, None] ** 2 + line[None] ** 2 < radius**2
    mask = np.repeat(disc[None], DEPTH, 0)
    mask[last + 1 :] = False
    mask = torch.from_numpy(mask)
    return Slab(torch.where(mask, 0.8, 0.2), mask, np.ones(DEPTH, bool))


@pytest.fixture
def patient(monkeypatch) -> None:
    """No slide is given up, no slice corrected, no point asked again."""
    monkeypatch.setattr(rollouts, "LEFT", 0.0)
    monkeypatch.setattr(rollouts, "ASKED_AGAIN", 0.0)
    monkeypatch.setattr(rollouts, "CORRECTED", 0.0)


def test_label_maps_depend_on_their_seed_alone():
    (one, families, groups), (again, *same), (other, *_) = map(shapes.label_map, (5, 5, 6))
    assert np.array_equal(families, same[0]) and groups == same[1]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == shapes.SHAPE
    assert len(np.unique(one)) > 8


def test_slabs_hold_one_object_marked_on_slice_1(volume):
    rng = np.random.default_rng(0)
    found = [slabs.cut(volume, rng) for _ in range(12)]
    assert sum(slab is not None for slab in found) >= 10
    for slab in filter(None, found):
        assert slab.image.shape == slab.mask.shape
        assert len(slab.image) == len(slab.valid) == DEPTH
        assert slab.mask[1].sum() >= 15
        assert slab.valid[1]
        assert slab.image.dtype == torch.float32
        assert slab.image.min() >= 0 and slab.image.max() <= 1


def test_slabs_of_thick_slices_are_cut_across_the_slices():
    labels = np.zeros((12, 60, 60), np.uint8)
    labels[3:9, 20:40, 20:40] = 1
    thick = slabs.labelled(labels, labels.astype(np.float16), (6.0, 1.0, 1.0))
    rng = np.random.default_rng(1)
    for _ in range(5):
        slab = slabs.cut(thick, rng)
        areas = slab.mask.sum((1, 2)).numpy()
        assert set(np.flatnonzero(areas)) <= set(range(DEPTH))
        assert areas[areas > 0].min() > 0.6 * areas.max()  # a box: its sections are alike


def test_slices_that_nobody_has_labelled_teach_nothing():
    """Volumes with labels on some slices only: the others are marked as not valid."""
    labels = np.zeros((30, 60, 60), np.uint8)
    labels[:, 20:40, 20:40] = 1
    labels[18:] = 255
    image = (labels == 1).astype(np.float16)
    thick = slabs.labelled(labels, image, (6.0, 1.0, 1.0), unlabelled=255)
    thick.targets = [1]
    rng = np.random.default_rng(1)
    found = [slabs.cut(thick, rng) for _ in range(30)]
    assert all(slab.valid[1] for slab in found)
    # The object goes on as far as the labels do, unless it drifts out of the picture before.
    gone = [(slab.valid & ~slab.mask.numpy().any((1, 2))).any() for slab in found]
    assert sum(gone) <= 3
    assert sum(not slab.valid.all() for slab in found) > 5


def test_painted_objects_can_be_seen():
    rng = np.random.default_rng(2)
    target = torch.zeros(3, 40, 40, dtype=torch.bool)
    target[:, 10:30, 10:30] = True
    for _ in range(10):
        image = appearance._separate(torch.full(target.shape, 0.5), target, target, rng)
        assert abs(image[target].mean() - image[~target].mean()) > 0.05


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


def test_slabs_are_sampled_where_their_coordinates_say():
    """Beside scipy's sampling of the whole slices; beyond the slice its edge repeats."""
    rng = np.random.default_rng(3)
    planes = [rng.uniform(0, 1, (50, 70)).astype(np.float32) for _ in range(slabs.DEPTH)]
    for centre in ((25, 35), (2, 68)):
        places = slabs._coordinates(np.array(centre), np.array([0.4, 0.7]), 30, rng, "cpu")
        found = slabs._sample(*slabs._cropped(planes, places), "bilinear")
        for n, plane in enumerate(planes):
            at = places[:, n].numpy()
            expected = ndimage.map_coordinates(plane, at, order=1, mode="nearest")
            assert np.allclose(found[n], expected, atol=1e-3)


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


def test_shells_lie_along_the_outlines_of_bodies():
    labels = torch.zeros(2, 60, 60, dtype=torch.int64)
    labels[:, 10:50, 10:50] = 1
    added = 0
    for seed in range(8):
        shell = appearance._shells(labels, labels == 1, np.random.default_rng(seed))
        assert shell[:, 30, 30].tolist() == [0, 0]  # deep inside
        added += bool(shell[:, 10, 30].any())
    assert added >= 4


def test_bundles_are_alike_pieces_with_walls_between_them():
    canvas = shapes._Canvas(np.random.default_rng(7))
    shapes.bundles(canvas)
    pieces = [v for v in np.unique(canvas.labels) if v > 1]  # 1 is the wall
    assert len(pieces) >= 2
    assert len({int(canvas.families[v]) for v in pieces}) == 1
    assert canvas.families[1] not in {canvas.families[v] for v in pieces}
    for n, piece in enumerate(pieces):
        grown = ndimage.binary_dilation(canvas.labels == piece)
        others = [v for m, v in enumerate(pieces) if m != n]
        touching = np.isin(canvas.labels[grown], others).sum()
        assert touching < 0.3 * grown.sum()


def test_folds_lie_beside_each_other_in_one_body():
    bodies = set()
    for seed in range(6):
        canvas = shapes._Canvas(np.random.default_rng(seed))
        shapes.folds(canvas)
        sheet = canvas.labels == canvas.used
        rows = np.diff(sheet.astype(np.int8), axis=1) == 1  # where a column enters the sheet
        assert rows.sum(1).max() >= 2  # more than once: it is folded
        bodies.add(canvas.used)
    assert bodies == {1, 2}  # with and without what lies beyond the sheet


def test_tissue_is_full_of_alike_cells_with_walls_between_them():
    with_nuclei = 0
    for seed in range(6):
        canvas = shapes._Canvas(np.random.default_rng(seed))
        shapes.tissue(canvas)
        wall, *bodies = np.unique(canvas.labels)
        assert wall == 1
        kinds = {int(canvas.families[v]) for v in bodies}
        assert len(bodies) >= 5 and len(kinds) in (1, 2) and 1 not in kinds
        with_nuclei += len(kinds) == 2
        largest = bodies[np.argmax([(canvas.labels == v).sum() for v in bodies])]
        cell = ndimage.binary_fill_holes(canvas.labels == largest)
        rim = ndimage.binary_dilation(cell) & ~cell
        assert (canvas.labels[rim] == wall).mean() > 0.7
    assert 1 <= with_nuclei <= 5


def test_a_wall_and_what_it_holds_are_one_object_together():
    """What is joined lies side by side, and is filled where its outer part alone is hollow."""
    joined = 0
    for painter in (shapes.ellipsoid, shapes.tube, shapes.bundles, shapes.folds, shapes.tissue):
        for seed in range(8):
            canvas = shapes._Canvas(np.random.default_rng(seed))
            painter(canvas)
            for group in canvas.groups:
                masks = [canvas.labels == value for value in group]
                masks = [mask for mask in masks if mask.sum() > 50]
                if len(masks) < 2:
                    continue
                joined += 1
                for n, mask in enumerate(masks):
                    others = np.logical_or.reduce(masks[:n] + masks[n + 1 :])
                    assert (ndimage.binary_dilation(mask, iterations=4) & others).any()
    assert joined > 10


def test_a_label_of_a_group_means_the_group_at_times(monkeypatch):
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[2:18, 15:45, 15:45] = 1
    labels[2:18, 22:38, 22:38] = 2
    labels[2:18, 50:58, 50:58] = 3
    walled = slabs.labelled(labels, None, (6.0, 1.0, 1.0), whole=1.0, groups=[(1, 2)])
    rng = np.random.default_rng(0)
    meant = [slabs._meant(walled, 1, rng).tolist() for _ in range(300)]
    assert {tuple(values) for values in meant} == {(1,), (1, 2)}
    assert 0.25 < np.mean([len(values) == 2 for values in meant]) < 0.45
    assert slabs._meant(walled, 3, rng).tolist() == [3]
    for together in (0.0, 1.0):
        monkeypatch.setattr(slabs, "TOGETHER", together)
        hollow = 0
        for _ in range(30):
            slab = slabs.cut(walled, rng)
            mask = slab.mask[1].numpy()
            hollow += ndimage.binary_fill_holes(mask).sum() > 1.1 * mask.sum()
        assert hollow == 0 if together else hollow > 5


def test_wide_structures_are_picked_more_often():
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[:, 5:45, 5:45] = 1
    labels[:, 50:54, 50:54] = 2
    both = slabs.labelled(labels, None, (6.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    picked = np.array([slabs._target(both, 0, rng) for _ in range(400)])
    assert 0.64 < (picked == 1).mean() < 0.84  # 0.4 / 2 + 0.6 * 40 / 44


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


def test_heads_and_parts_of_one_structure_are_known_by_their_names():
    names = {
        2: "left cerebral white matter",
        3: "left cerebral cortex",
        7: "left cerebellum white matter",
        8: "left cerebellum cortex",
        11: "left caudate",
        12: "left putamen",
        24: "CSF",
        72: "head tissue outside the brain, class 72",
    }
    case = {"id": "head", "labels": [{"value": v, "name": n} for v, n in names.items()]}
    groups = [set(group) for group in sources.head_groups(case)]
    assert {2, 3, 7, 8, 11, 12} in groups
    assert {7, 8} in groups and {11, 12} in groups and {2, 3, 11, 12} in groups
    assert not any({24, 72} & group for group in groups)
    tumour = {1: "tumour core", 2: "oedema / infiltration", 4: "enhancing tumour"}
    case = {"id": "glioma_1", "labels": [{"value": v, "name": n} for v, n in tumour.items()]}
    assert sources.part_groups(case) == [[1, 2, 4], [1, 4]]
    assert sources.part_groups({**case, "id": "card_1"}) == []


def test_even_regions_follow_the_edges_of_an_image():
    image = np.full((20, 40, 40), 0.2, np.float32)
    image[5:15, 10:30, 10:30] = 0.9
    labels = sources.even_regions(image, (1.0, 1.0, 1.0), np.random.default_rng(0))
    inside = labels[10, 20, 20]
    assert inside > 0
    share = ((labels == inside) & (image > 0.5)).sum() / (image > 0.5).sum()
    assert share > 0.6  # its rim is lost to smoothing and opening
    assert ((labels == inside) & (image < 0.5)).sum() < 0.2 * (image > 0.5).sum()


def test_a_rollout_walks_on_with_the_networks_own_masks(patient):
    pool = Pool(1, ball_slab, np.random.default_rng(0))
    centres = []
    for _ in range(DEPTH - 2):
        step = pool.step()
        centres.append(pool.places[0].centre)
        assert bool(step.first[0]) == (centres[-1] == 1)
        pool.advance(step.target)
    assert centres == list(range(1, DEPTH - 1))
    pool.step()
    pool.advance(torch.zeros_like(step.target))  # nothing found: a fresh slab
    assert pool.places[0].centre == 1


def test_a_rollout_ends_behind_the_object():
    pool = Pool(1, lambda: ball_slab(last=3), np.random.default_rng(4))
    highest = 0
    for _ in range(40):
        step = pool.step()
        highest = max(highest, pool.places[0].centre)
        pool.advance(torch.ones_like(step.target))  # never stops by itself
    assert highest <= 4


def test_later_windows_get_masks_memory_and_a_box(patient):
    pool = Pool(8, ball_slab, np.random.default_rng(0))
    step = pool.step()
    pool.advance(step.target)
    batch = pool.step().batch
    assert batch.has_memory.all()
    assert batch.known[:, 2].sum() == 0  # the slice ahead is never known
    assert batch.known[:, 1].sum() >= 4
    assert batch.has_box.sum() >= 4


def test_targets_lie_where_the_image_shows_the_object():
    pool = Pool(4, ball_slab, np.random.default_rng(0))
    step = pool.step()
    image = step.batch.image
    assert image[step.target > 0.95].min() > image[step.target < 0.05].max()


def test_a_correction_is_a_point_inside_the_largest_error():
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    mask = truth.copy()
    mask[10:30, 22:30] = False  # missed
    mask[2:6, 2:6] = True  # too much, but smaller
    rng = np.random.default_rng(0)
    picked = [largest_error(mask, truth, rng) for _ in range(20)]
    assert all(
        (mask[int(y), int(x)], truth[int(y), int(x)]) == (not sign, sign) for x, y, sign in picked
    )
    assert sum(sign for *_, sign in picked) > 10
    assert largest_error(truth, truth, rng) is None


def test_a_corrected_place_stays_and_knows_its_mask():
    pool = Pool(1, ball_slab, np.random.default_rng(4))
    step = pool.step()
    place = pool.places[0]
    half = step.target.clone()
    half[..., : half.shape[-1] // 2] = 0
    assert pool._correct(place, pool._on_slices(place, half[0]))
    assert (place.centre, place.corrections, place.known_flags) == (1, 1, (0, 1, 0))
    x, y = place.points[-1]
    assert place.signs[-1] == 1 and place.mask[1, int(y), int(x)] == 1
    pool.step()
    assert pool._move(place, place.mask[0:3])
    assert (place.centre, place.corrections) == (2, 0) and place.memory is not None


def test_a_point_is_asked_again_with_the_box_of_its_answer(monkeypatch):
    """The region has the size of the answer; then the slide goes on as from any other prompt."""
    monkeypatch.setattr(rollouts, "ASKED_AGAIN", 1.0)
    monkeypatch.setattr(rollouts, "CORRECTED", 0.0)
    monkeypatch.setattr(rollouts, "LEFT", 0.0)
    pool = Pool(30, ball_slab, np.random.default_rng(0))
    step = pool.step()
    pointed = np.flatnonzero(step.ambiguous.numpy())
    before = [pool.places[n].points for n in pointed]
    assert len(pointed) >= 4
    half = step.target.clone()
    half[..., : half.shape[-1] // 2] = 0  # half of the object
    pool.advance(half)
    for n, points in zip(pointed, before, strict=True):
        place = pool.places[n]
        if place.box is None:  # that half was empty, or a fresh slab took the place
            continue
        assert place.points == points and place.centre == 1
        assert place.box[2] - place.box[0] < 0.8 * (place.box[3] - place.box[1])
    step = pool.step()
    assert sum(bool(step.batch.has_box[n]) for n in pointed) >= 3
    pool.advance(step.target)
    assert sum(pool.places[n].centre == 2 for n in pointed) >= 3


def test_hand_drawn_boxes_stay_within_their_jitter():
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = jittered((20.0, 30.0, 59.0, 49.0), (100, 100), rng, 0.08)
        assert np.all(np.abs(np.subtract(box, (20, 30, 59, 49))) <= [3.2, 1.6, 3.2, 1.6])


def test_points_lie_where_they_say():
    mask = ball_slab().mask[1].numpy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        points, signs = user_points(mask, rng)
        assert signs[0] == 1
        for (x, y), sign in zip(points, signs, strict=True):
            assert mask[int(y), int(x)] == bool(sign)


@pytest.fixture
def data(tmp_path) -> Path:
    """A training folder with one case."""
    image = np.random.default_rng(0).integers(0, 900, (10, 30, 30)).astype(np.int16)
    label = np.zeros(image.shape, np.uint8)
    label[2:8, 5:25, 5:25] = 4
    for name, array in (("a_image", image), ("a_label", label)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
    case = {"id": "card_a", "image": "a_image.nii.gz", "label": "a_label.nii.gz"}
    (tmp_path / "manifest.json").write_text(json.dumps({"cases": [case]}))
    return tmp_path


def test_real_volumes_come_from_a_manifest(data):
    (volume,) = sources.real(sources.read_manifest(data / "manifest.json"))
    assert volume.targets == [4]
    assert volume.image.max() <= 1
    with pytest.raises(InputError, match="cannot be read"):
        sources.read_manifest(data / "none.json")


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
        assert abs(image[target].mean() - image[ring].mean()) > 0.05


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


def test_implants_share_the_shapes_and_draw_from_every_kind(data, monkeypatch):
    monkeypatch.setattr(sources.shapes, "label_map", small_map)
    config = TrainConfig("x", str(data), shapes=2, sources={"implants": 1.0})
    ours = Mixture(config, 5)
    assert [source.name for source in ours.sources] == ["shapes", "implants"]
    slab = ours.draw()
    assert slab.mask[1].sum() >= 15 and slab.recipe[0] == 1
    again = ours.again(slab.recipe)
    assert torch.equal(slab.image, again.image) and torch.equal(slab.mask, again.mask)
    state = ours.state()
    state["sources"][1]["volumes"] = [7]
    with pytest.raises(StateMismatch, match="implants"):
        Mixture(config, 5, state)
