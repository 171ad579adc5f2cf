"""Slabs cut from volumes, and the sources that volumes come from."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from SlideSAMLib.errors import InputError
from SlideSAMLib.training import slabs, sources
from SlideSAMLib.training.config import TrainConfig
from SlideSAMLib.training.generators import StateMismatch
from SlideSAMLib.training.mixture import Mixture
from SlideSAMLib.training.slabs import DEPTH
from Testing.training_data import small_map


@pytest.fixture(scope="module")
def volume() -> slabs.Labelled:
    return sources.invented(3)


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


def test_another_guise_is_the_same_object_mirrored_or_turned_in_other_greys(volume):
    slab = slabs.cut(volume, np.random.default_rng(0))
    slab.habit = True
    seen, changed = set(), 0
    for seed in range(40):
        other = slab.another(np.random.default_rng(seed))
        guises = [
            (turns, mirrored)
            for turns in range(4)
            for mirrored in (False, True)
            if torch.equal(other.mask, moved(slab.mask, turns, mirrored))
        ]
        assert len(guises) == 1 and guises[0] != (0, False)
        seen.update(guises)
        back = moved(slab.image, *guises[0])
        rising = np.corrcoef(back.flatten(), other.image.flatten())[0, 1]
        assert abs(rising) > 0.8
        changed += not torch.equal(back, other.image)
        assert other.image.is_contiguous() and 0 <= other.image.min() <= other.image.max() <= 1
        assert other.habit and np.array_equal(other.valid, slab.valid)
    assert len(seen) == 7 and changed > 25


def moved(stack: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    """A stack (S, H, W) turned by so many right angles, then mirrored."""
    stack = stack.rot90(turns, (1, 2))
    return stack.flip(2) if mirrored else stack


def test_slabs_are_drawn_again_in_other_guises_and_after_a_pause(data, monkeypatch):
    monkeypatch.setattr(sources.shapes, "label_map", small_map)
    config = TrainConfig("x", str(data), shapes=2, slab_uses=3, sources={"shapes": 1.0})
    ours = Mixture(config, 5)
    drawn = [ours.draw() for _ in range(200)]
    pieces = [slab.recipe[:3] for slab in drawn]
    counts = [pieces.count(piece) for piece in set(pieces)]
    assert max(counts) == 3 and len(counts) < 90  # 67, and those that are still to be used again
    assert len({slab.recipe for slab in drawn}) == 200
    assert sum(one == next_one for one, next_one in pairwise(pieces)) <= 4
    apart = [n - pieces.index(piece) for n, piece in enumerate(pieces) if piece in pieces[:n]]
    assert np.median(apart) > 20
    for slab in drawn[60:64]:
        again = ours.again(slab.recipe)
        assert torch.equal(slab.image, again.image) and torch.equal(slab.mask, again.mask)
        assert again.recipe == slab.recipe
    state = ours.state()
    resumed = Mixture(config, 5, state)
    for _ in range(30):
        assert torch.equal(ours.draw().image, resumed.draw().image)


def test_objects_are_often_marked_where_they_are_widest():
    """A cone: its widest slice is more often drawn than its size alone would have it."""
    labels = np.zeros((40, 80, 80), np.uint8)
    rows, columns = np.ogrid[:80, :80]
    for k in range(40):
        labels[k] = (rows - 40) ** 2 + (columns - 40) ** 2 < (10 + 0.5 * k) ** 2
    cone = slabs.labelled(labels, None, (3.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    starts = np.array([slabs._seed(cone, 0, rng)[0] for _ in range(400)])
    assert 0.2 < (starts == 39).mean() < 0.45  # by size alone: 0.05
    assert (starts < 6).mean() > 0.1


def test_some_painted_objects_are_labelled_beside_the_edge_that_is_seen(monkeypatch):
    labels = np.zeros((30, 80, 80), np.uint8)
    labels[:, 20:60, 20:60] = 1
    found = {}
    monkeypatch.setattr(slabs, "ALONE", 0.0)
    for share in (0.0, 1.0):
        monkeypatch.setattr(slabs, "HABIT", share)
        block = slabs.labelled(labels, None, (1.0, 1.0, 1.0))
        found[share] = [slabs.cut(block, np.random.default_rng(seed)) for seed in range(12)]
    inside = outside = 0
    for plain, other in zip(found[0.0], found[1.0], strict=True):
        assert not plain.habit and other.habit
        # Both are drawn alike until the label is changed; the greys that follow differ a little.
        smaller = bool((other.mask & ~plain.mask).sum() == 0)
        larger = bool((plain.mask & ~other.mask).sum() == 0)
        assert smaller != larger
        change = (other.mask != plain.mask)[1].sum() / plain.mask[1].sum()
        assert 0 < change < 0.5
        inside, outside = inside + smaller, outside + larger
    assert inside and outside
    monkeypatch.setattr(slabs, "HABIT", 1.0)
    real = slabs.labelled(labels, labels.astype(np.float16), (1.0, 1.0, 1.0))
    assert not slabs.cut(real, np.random.default_rng(0)).habit  # real labels have their own


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


def test_what_nobody_has_labelled_is_not_taken_from_around_an_object(monkeypatch):
    """It may be the object itself, on slices without labels."""
    labels = np.zeros((30, 60, 60), np.uint8)
    labels[:, 20:40, 20:40] = 1
    image = np.random.default_rng(3).uniform(0, 1, labels.shape).astype(np.float16)
    labels[18:] = 255
    found = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(slabs, "ALONE", share)
        for unlabelled in (255, None):
            thick = slabs.labelled(labels, image, (6.0, 1.0, 1.0), unlabelled=unlabelled)
            thick.targets = [1]
            found[share, unlabelled] = slabs.cut(thick, np.random.default_rng(2)).image
    assert torch.equal(found[0.0, 255], found[1.0, 255])
    assert not torch.equal(found[0.0, None], found[1.0, None])


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


def test_a_label_of_a_group_means_the_group_at_times(monkeypatch):
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[2:18, 15:45, 15:45] = 1
    labels[2:18, 22:38, 22:38] = 2
    labels[2:18, 50:58, 50:58] = 3
    walled = slabs.labelled(labels, None, (6.0, 1.0, 1.0), whole=1.0, groups=[(1, 2)])
    rng = np.random.default_rng(0)
    meant = [slabs.meant(walled, 1, rng).tolist() for _ in range(300)]
    assert {tuple(values) for values in meant} == {(1,), (1, 2)}
    assert 0.25 < np.mean([len(values) == 2 for values in meant]) < 0.45
    assert slabs.meant(walled, 3, rng).tolist() == [3]
    for together in (0.0, 1.0):
        monkeypatch.setattr(slabs, "TOGETHER", together)
        hollow = 0
        for _ in range(30):
            slab = slabs.cut(walled, rng)
            mask = slab.mask[1].numpy()
            hollow += ndimage.binary_fill_holes(mask).sum() > 1.1 * mask.sum()
        assert hollow == 0 if together else hollow > 5


@pytest.mark.parametrize(("filled", "holes"), [(0.0, True), (1.0, False)])
def test_an_object_may_mean_what_it_encloses(filled, holes):
    """In each slice by itself, and not the bay that is open to the rim of the slab."""
    labels = np.zeros((30, 80, 80), np.uint8)
    labels[:, 20:60, 20:60] = 1
    labels[:, 30:50, 30:50] = 0
    image = (labels == 1).astype(np.float16)
    ring = slabs.labelled(labels, image, (6.0, 1.0, 1.0), filled=filled)
    slab = slabs.cut(ring, np.random.default_rng(2))
    for mask in slab.mask.numpy()[slab.valid]:
        _, inside = ndimage.label(~np.pad(mask, 1))
        assert (inside > 1) == holes
    open_ring = torch.zeros(1, 20, 20, dtype=torch.bool)
    open_ring[0, 4:16, 4:16] = True
    open_ring[0, 8:12, 8:] = False
    assert torch.equal(slabs._filled(open_ring), open_ring)


def test_slices_lie_close_together_for_the_size_of_the_object():
    """A real structure changes little from slice to slice."""
    rng = np.random.default_rng(0)
    cube = slabs.labelled(np.ones((9, 9, 9), np.uint8), None, (1.0, 1.0, 1.0))
    gaps = [slabs._gap(cube, 0, 4.0, rng) for _ in range(400)]
    assert set(gaps) == {1, 2, 3, 4}
    assert 0.5 < np.mean(np.array(gaps) == 1) < 0.7
    assert {slabs._gap(cube, 0, 0.5, rng) for _ in range(50)} == {1}
    assert max(slabs._gap(cube, 0, 40.0, rng) for _ in range(400)) == 6
    thick = slabs.labelled(np.ones((9, 9, 9), np.uint8), None, (3.0, 1.0, 1.0))
    assert {slabs._gap(thick, 0, 40.0, rng) for _ in range(50)} == {1}


def test_wide_structures_are_picked_more_often():
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[:, 5:45, 5:45] = 1
    labels[:, 50:54, 50:54] = 2
    both = slabs.labelled(labels, None, (6.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    picked = np.array([slabs._target(both, 0, rng) for _ in range(400)])
    assert 0.64 < (picked == 1).mean() < 0.84  # 0.4 / 2 + 0.6 * 40 / 44


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


def write_label_map(folder: Path, labels: np.ndarray, names: dict[int, str]) -> dict:
    path = folder / "map.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(path))
    listed = [{"value": value, "name": name} for value, name in names.items()]
    return {"id": "map", "label": path, "labels": listed}


def test_label_maps_may_have_many_values(tmp_path):
    values = (np.arange(300) * 7).astype(np.uint16).reshape(3, 10, 10)
    labels = values.repeat(8, 0).repeat(8, 1).repeat(8, 2)
    (found,) = sources.label_maps([write_label_map(tmp_path, labels, {})])
    assert np.array_equal(found.labels, labels // 7)
    assert found.targets == list(range(1, 300))


def test_groups_are_of_the_values_that_are_there(tmp_path):
    labels = np.zeros((20, 20, 20), np.uint16)
    labels[:8], labels[8:14], labels[14:, :10] = 2, 3, 10
    names = {
        2: "left caudate",
        3: "left putamen",
        5: "left pallidum",
        10: "CSF",
        12: "left cerebellum x",
    }
    names |= {13: "left cerebellum y", 4: "right caudate", 6: "right putamen"}
    (found,) = sources.label_maps([write_label_map(tmp_path, labels, names)])
    assert found.labels.max() == 3
    assert found.groups and all(group == [1, 2] for group in found.groups)
    (found,) = sources.label_maps([write_label_map(tmp_path, labels[:14], names)])
    assert found.targets == [1, 2]  # and none of them is the background


def test_even_regions_follow_the_edges_of_an_image():
    image = np.full((20, 40, 40), 0.2, np.float32)
    image[5:15, 10:30, 10:30] = 0.9
    labels = sources.even_regions(image, (1.0, 1.0, 1.0), np.random.default_rng(0))
    inside = labels[10, 20, 20]
    assert inside > 0
    share = ((labels == inside) & (image > 0.5)).sum() / (image > 0.5).sum()
    assert share > 0.6  # its rim is lost to smoothing and opening
    assert ((labels == inside) & (image < 0.5)).sum() < 0.2 * (image > 0.5).sum()


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


def test_a_manifest_of_any_language_with_a_byte_order_mark(data):
    (case,) = sources.read_manifest(data / "manifest.json")
    cases = [{"id": "心臓", "image": str(case["image"]), "label": str(case["label"])}]
    text = json.dumps({"cases": cases}, ensure_ascii=False)
    (data / "manifest.json").write_text(text, encoding="utf-8-sig")
    assert sources.read_manifest(data / "manifest.json")[0]["id"] == "心臓"


@pytest.mark.parametrize(("case_id", "family"), [("card_a", "heart"), ("liver_01", "others")])
def test_volumes_of_no_known_family_are_a_family_of_their_own(data, case_id, family):
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace("card_a", case_id))
    ours = Mixture(TrainConfig("x", str(data), sources={"real": 0.7}), 5)
    assert [source.name for source in ours.sources] == [family]
    assert ours.sources[0].weight == pytest.approx(0.7)
    assert ours.draw().mask[1].sum() >= 15


def test_sources_for_which_there_is_nothing_are_left_out(data, monkeypatch, capsys):
    """The default ones of a folder of one's own, which has neither label maps nor large volumes."""
    monkeypatch.setattr(sources.shapes, "label_map", small_map)
    ours = Mixture(TrainConfig("x", str(data), shapes=2), 5)
    assert [source.name for source in ours.sources] == ["shapes", "heart"]
    assert "nothing for the sources label_maps, regions: left out" in capsys.readouterr().out
    assert all(ours.draw().mask[1].any() for _ in range(20))
    nothing = TrainConfig("x", str(data), sources={"label_maps": 1.0})
    with pytest.raises(InputError, match="no share to any source"):
        Mixture(nothing, 5)


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
