"""The parts of the evaluation: cases, prompts from labels, metrics, protocols, baselines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from SlideSAMLib import InputError, SlicePrompt
from SlideSAMLib.evaluation import baselines, metrics, prompting, protocols, surfaces
from SlideSAMLib.evaluation.cases import (
    check_structures,
    read_manifest,
    slide_axis,
    structures,
)
from Testing.evaluation_data import FIRST, LAST, column_case, write_manifest


def test_importing_the_evaluation_is_light():
    heavy = "torch", "scipy", "SimpleITK", "matplotlib"
    code = (
        "import sys, SlideSAMLib.evaluation, SlideSAMLib.evaluation.command;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Cases


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((3, 3, 3), 0), ((1, 1, 5), 2), ((1, 4, 1), 1), ((6.5, 0.8, 0.8), 0), ((1, 1.05, 1), 0)],
)
def test_slides_along_the_coarsest_axis_or_k(spacing, axis):
    assert slide_axis(spacing) == axis


def test_structures_are_the_largest_label_values():
    labels = np.zeros((4, 10, 10), np.uint8)
    labels[0], labels[1, :5], labels[2, :5], labels[3, 0, :3] = 7, 2, 9, 4
    found = structures(labels, {7: "slab"}, limit=3)
    assert [(s.value, s.voxels) for s in found] == [(7, 100), (2, 50), (9, 50)]
    assert [s.name for s in found[:2]] == ["slab", "label 2"]
    assert len(structures(labels, {}, limit=0)) == 4
    assert [s.value for s in structures(labels, {}, limit=0, min_voxels=50)] == [7, 2, 9]


def test_the_readme_says_what_a_manifest_is(tmp_path):
    readme = Path(__file__).parents[1] / "README.md"
    (example,) = re.findall(r"```json\n(.*?)```", readme.read_text(), re.DOTALL)
    (tmp_path / "manifest.json").write_text(example)
    for name in ("liver_001_0000.nii.gz", "liver_001.nii.gz"):
        voxels = np.ones((4, 8, 8), np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / name))
    (case,) = read_manifest(tmp_path / "manifest.json")
    assert [(s.value, s.name) for s in case.structures()] == [(1, "liver")]


def test_reads_a_manifest(tmp_path):
    cases = read_manifest(write_manifest(tmp_path))
    assert [case.id for case in cases] == ["block", "leaky"]
    content = cases[0].load()
    volume, labels = column_case()
    assert np.array_equal(content.volume, volume)
    assert np.array_equal(content.labels, labels)
    assert content.spacing == (1.0, 1.0, 1.0)
    assert cases[0].names == {1: "large block", 2: "small block"}
    assert [c.id for c in read_manifest(tmp_path / "manifest.json", ["leaky"])] == ["leaky"]


def test_a_manifest_with_a_byte_order_mark(tmp_path):
    path = write_manifest(tmp_path)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert [case.id for case in read_manifest(path)] == ["block", "leaky"]


def test_a_manifest_entry_without_an_image_is_left_out(tmp_path):
    path = write_manifest(tmp_path)
    content = json.loads(path.read_text())
    del content["cases"][0]["image"]
    path.write_text(json.dumps(content))
    assert [case.id for case in read_manifest(path)] == ["leaky"]
    with pytest.raises(InputError, match="no image"):
        read_manifest(path, ["block"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not JSON"),
        ("[1]", 'list "cases"'),
        ('{"cases": [{"image": "a"}]}', "id"),
        ('{"cases": []}', "no case"),
        ('{"cases": [{"id": "a", "image": "a", "label": "b", "labels": [1]}]}', "labels"),
    ],
)
def test_refuses_what_is_no_manifest(tmp_path, text, message):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_manifest(path)


def test_refuses_missing_changed_and_unknown(tmp_path):
    path = write_manifest(tmp_path)
    with pytest.raises(InputError, match="no case nothing"):
        read_manifest(path, ["block", "nothing"])
    with (tmp_path / "leaky_label.nii.gz").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match="leaky_label"):
        read_manifest(path)
    assert len(read_manifest(path, ["block"])) == 1
    (tmp_path / "block_image.nii.gz").unlink()
    with pytest.raises(InputError, match="missing"):
        read_manifest(path, ["block"])


def test_refuses_a_size_that_nothing_has(tmp_path):
    cases = read_manifest(write_manifest(tmp_path))
    check_structures(cases, limit=3, min_voxels=1200)
    with pytest.raises(InputError, match="1201 voxels"):
        check_structures(cases, limit=3, min_voxels=1201)
    empty = sitk.ReadImage(str(cases[0].label)) * 0
    sitk.WriteImage(empty, str(cases[0].label))
    with pytest.raises(InputError, match="No case has a structure: the labels of all are 0"):
        check_structures(cases[:1], limit=3, min_voxels=0)


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({"spacing": (1.01, 1.0, 1.0)}, True),  # 0.35 voxels at the last of 36
        ({"spacing": (1.02, 1.0, 1.0)}, False),
        ({"origin": (0.0, 0.4, -0.4)}, True),
        ({"origin": (0.0, 0.0, 0.6)}, False),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, False),
        ({"direction": (1, 1e-6, 0, -1e-6, 1, 0, 0, 0, 1)}, True),
    ],
)
def test_image_and_labels_must_lie_on_the_same_lattice(tmp_path, change, good):
    case = read_manifest(write_manifest(tmp_path))[0]
    image = sitk.ReadImage(str(case.label))
    for name, value in change.items():
        getattr(image, f"Set{name.title()}")(value)
    sitk.WriteImage(image, str(case.label))
    if good:
        assert case.load().spacing == (1.0, 1.0, 1.0)
        return
    with pytest.raises(InputError, match="Case block: spacing, origin or direction"):
        case.load()


# Prompts from labels


def block(shape=(40, 50), rows=(10, 30), columns=(15, 25)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask


def test_true_box_has_inclusive_corners():
    assert prompting.true_box(block()) == (15, 10, 24, 29)


def test_jitter_is_bounded_spread_and_reproducible():
    mask, true = block(), np.array([15, 10, 24, 29])
    boxes = np.array(
        [prompting.jittered_box(mask, prompting.generator("case", v)) for v in range(400)]
    )
    moves = (boxes - true) / np.array([10, 20, 10, 20])  # sides in voxels
    assert np.abs(moves).max() <= 0.05
    assert moves.min() < -0.045
    assert moves.max() > 0.045
    assert np.abs(moves.mean(axis=0)).max() < 0.005
    again = prompting.jittered_box(mask, prompting.generator("case", 7))
    assert tuple(boxes[7]) == again
    assert again != prompting.jittered_box(mask, prompting.generator("other case", 7))
    assert again != prompting.jittered_box(mask, prompting.generator("case", 7, seed=1))


def test_the_jittered_box_stays_inside_the_slice_and_is_never_empty():
    corner = block(rows=(0, 1), columns=(49, 50))
    for value in range(50):
        box = prompting.jittered_box(corner, prompting.generator("corner", value))
        x0, y0, x1, y1 = box
        assert 0 <= x0 < x1 <= 49
        assert 0 <= y0 < y1 <= 39
        SlicePrompt(0, box=box)


def test_innermost_point_of_the_largest_piece():
    mask = block(rows=(10, 21), columns=(15, 26))
    mask[0:3, 0:3] = True
    assert prompting.innermost_point(mask, (1.0, 1.0)) == (20, 15)


def test_innermost_point_is_measured_in_mm():
    # 5 rows of 4 mm and 12 columns of 1 mm: columns are what limits, the middle row is not
    mask = block(rows=(10, 15), columns=(10, 22))
    x, y = prompting.innermost_point(mask, (4.0, 1.0))
    distance = ndimage.distance_transform_edt(mask, sampling=(4.0, 1.0))
    assert distance[y, x] == distance.max() == 6
    assert x in (15, 16)
    # In voxels the shorter side would limit: every middle column is as good as the other
    assert ndimage.distance_transform_edt(mask).max() == 3


def test_the_edge_of_the_slice_counts_as_outside():
    mask = np.zeros((20, 20), bool)
    mask[0:9, 5:14] = True
    assert prompting.innermost_point(mask, (1.0, 1.0)) == (9, 4)


def test_prompts_lie_on_the_largest_slice():
    truth = np.zeros((6, 40, 50), bool)
    truth[1], truth[2], truth[3] = block(rows=(10, 20)), block(), block()
    random = prompting.generator("case", 1)
    box = prompting.make_prompt(truth, "box", (1, 1, 1), random)
    point = prompting.make_prompt(truth, "point", (1, 1, 1), random)
    assert box.index == point.index == 2
    assert box.points == ()
    assert point.box is None
    assert point.labels == (1,)
    assert truth[2][int(point.points[0][1]), int(point.points[0][0])]
    with pytest.raises(InputError, match="box, point"):
        prompting.make_prompt(truth, "scribble", (1, 1, 1), random)


# Metrics and protocols


def test_dice_values():
    truth, shifted = block(), block(columns=(20, 30))
    assert metrics.dice(truth, truth) == 1.0
    assert metrics.dice(shifted, truth) == 0.5
    assert metrics.dice(~truth, truth) == 0.0
    assert metrics.dice(truth & False, truth & False) == 1.0


def test_slices_leaked_and_missed():
    truth = np.zeros((12, 3, 3), bool)
    truth[4:9, 1, 1] = True
    prediction = np.zeros_like(truth)
    prediction[[1, 3, 4, 5, 8, 9, 10, 11], 0, 0] = True
    counts = metrics.count_slices(prediction, truth)
    assert (counts.leaked_before, counts.leaked_after, counts.missed) == (2, 3, 2)
    assert metrics.extent(truth) == (4, 8)


def test_protocols():
    truth = np.zeros((12, 3, 3), bool)
    truth[4:9, 1, 1] = True
    assert protocols.chosen("both") == ("full", "extent")
    assert protocols.chosen("all") == ("full", "extent", "clicks")
    assert protocols.chosen("clicks") == ("clicks",)
    assert protocols.limits("clicks", truth) == (None, None)
    assert protocols.judged("clicks", truth) == slice(None)
    assert protocols.limits("full", truth) == (None, None)
    assert protocols.limits("extent", truth) == (4, 8)
    assert protocols.judged("full", truth) == slice(None)
    assert protocols.judged("extent", truth) == slice(4, 9)
    with pytest.raises(InputError, match="full, extent, clicks, both, all"):
        protocols.chosen("half")


# Baselines


def cone() -> tuple[np.ndarray, np.ndarray]:
    """(image, truth): squares of sides 4, 8, 12, 8 on slices 2..5, bright on dark noise."""
    truth = np.zeros((8, 30, 30), bool)
    for index, half in zip(range(2, 6), (2, 4, 6, 4), strict=True):
        truth[index, 15 - half : 15 + half, 15 - half : 15 + half] = True
    noise = np.random.default_rng(0).normal(0, 3, truth.shape)
    return np.where(truth, 100, 0) + noise, truth


def prompt_of(truth: np.ndarray) -> SlicePrompt:
    return SlicePrompt(4, box=prompting.true_box(truth[4]))


def test_copied_mask_fills_the_extent():
    image, truth = cone()
    found = baselines.copied_mask(image, truth, prompt_of(truth))
    assert [int(part.sum()) for part in found] == [0, 0, 144, 144, 144, 144, 0, 0]
    assert metrics.dice(found, truth) == pytest.approx(2 * 288 / (576 + 288))


def test_copied_ellipse_is_inscribed_in_the_box():
    image, truth = cone()
    found = baselines.copied_ellipse(image, truth, prompt_of(truth))
    assert not (found & ~baselines.copied_mask(image, truth, prompt_of(truth))).any()
    assert found[4].sum() == pytest.approx(np.pi * 36, rel=0.05)
    assert prompting.true_box(found[4]) == prompting.true_box(truth[4])
    assert np.array_equal(found[2], found[4])
    assert not found[[0, 1, 6, 7]].any()


def test_region_growing_follows_the_intensity():
    image, truth = cone()
    noise = image - np.where(truth, 100, 0)
    clean = np.where(truth, 100.0, 0.0)
    found = baselines.region_growing(clean, truth, prompt_of(truth))
    assert np.array_equal(found, truth)
    noisy = baselines.region_growing(clean + noise, truth, prompt_of(truth))
    assert metrics.dice(noisy, truth) > 0.95


def test_region_growing_keeps_to_the_box_and_the_extent():
    _, truth = cone()
    bright = np.full(truth.shape, 50.0)
    found = baselines.region_growing(bright, truth, prompt_of(truth))
    assert np.array_equal(found, baselines.copied_mask(bright, truth, prompt_of(truth)))


def test_region_growing_from_a_point_has_no_box():
    _, truth = cone()
    clean = np.where(truth, 100.0, 0.0)
    prompt = SlicePrompt(4, points=[(15, 15)])
    assert np.array_equal(baselines.region_growing(clean, truth, prompt), truth)
    bright = np.full(truth.shape, 50.0)
    found = baselines.region_growing(bright, truth, prompt)
    assert found[2:6].all()
    assert not found[[0, 1, 6, 7]].any()


def test_region_growing_survives_voxels_that_are_not_finite():
    _, truth = cone()
    assert not baselines.region_growing(np.full(truth.shape, np.nan), truth, prompt_of(truth)).any()


def test_the_block_has_the_extent_that_the_tests_rely_on():
    _, labels = column_case()
    assert metrics.extent(labels == 1) == (FIRST, LAST)


def test_surfaces_are_measured_in_mm():
    """A block that is moved by two voxels along one axis, with voxels of three sizes."""
    truth = np.zeros((20, 24, 28), bool)
    truth[6:14, 6:16, 6:18] = True
    spacing = (3.0, 0.5, 1.0)
    for axis, size in enumerate(spacing):
        moved = np.roll(truth, 2, axis)
        assert surfaces.hausdorff_95(moved, truth, spacing) == pytest.approx(2 * size)
    assert surfaces.surface_dice(np.roll(truth, 2, 1), truth, spacing) == 1.0  # 1 mm of 3
    assert surfaces.surface_dice(np.roll(truth, 2, 0), truth, spacing) < 1.0
    assert surfaces.surface_dice(np.roll(truth, 8, 2), truth, spacing) < 0.7


def test_the_longer_way_between_two_surfaces_counts():
    """An arm is far from the block, which is near to what has the arm."""
    truth = np.zeros((12, 12, 40), bool)
    truth[4:8, 4:8, 4:8] = True
    armed = truth.copy()
    armed[5, 5, 8:38] = True
    # 85 border voxels: 55 of the block (the arm covers one of its 56) and 30 at distances 1 to 30.
    # Counted from 0, the one at the place 0.95 * 84 = 79.8 would be at 79.8 - 55 + 1 = 25.8.
    for one, other in ((armed, truth), (truth, armed)):
        assert surfaces.hausdorff_95(one, other, (1, 1, 1)) == pytest.approx(25.8)


def test_surfaces_of_empty_masks():
    truth = np.zeros((4, 6, 8), bool)
    nothing = truth.copy()
    truth[1:3, 2:4, 2:5] = True
    assert surfaces.surface_dice(nothing, truth, (1, 1, 1)) == 0.0
    assert surfaces.hausdorff_95(nothing, truth, (3, 1, 1)) == pytest.approx(np.sqrt(144 + 36 + 64))
    assert surfaces.surface_dice(nothing, nothing, (1, 1, 1)) == 1.0
    assert surfaces.hausdorff_95(nothing, nothing, (1, 1, 1)) == 0.0


def test_three_points_are_spread_inside():
    mask = np.zeros((30, 60), bool)
    mask[5:25, 5:55] = True
    points = prompting.inner_points(mask, (1.0, 1.0), 3)
    assert points[0] == prompting.innermost_point(mask, (1.0, 1.0))
    assert len(set(points)) == 3 and all(mask[y, x] for x, y in points)
    xs = sorted(x for x, _ in points)
    assert min(np.diff(xs)) > 8  # not side by side
    prompt = prompting.make_prompt(mask[None], "points", (1, 1, 1), np.random.default_rng(0))
    assert list(prompt.labels) == [1, 1, 1] and [tuple(p) for p in prompt.points] == points
    small = np.zeros((5, 5), bool)
    small[2, 2:4] = True
    assert sorted(prompting.inner_points(small, (1.0, 1.0), 3)) == [(2, 2), (3, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"cases": [{"id": "a", "image": "a.nii", "label": "b.nii", "labels": '
        '[{"value": 1e400, "name": "x"}]}]}',
    ],
)
def test_a_manifest_that_is_too_deep_or_too_large_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"is not JSON|must list objects"):
        read_manifest(tmp_path / "manifest.json", verify=False)
