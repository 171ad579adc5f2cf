"""What the preview holds and writes: the box around what is shown, and only what is new of it."""

import tracemalloc

import numpy as np
import pytest
import slicer
from SlideSAMBridge.drawing.dashes import outlines
from SlideSAMBridge.drawing.preview import Preview
from SlideSAMBridge.scene.editing import on_lattice
from SlideSAMBridge.scene.lattice import Lattice, of_image

pytestmark = pytest.mark.slicer
RED = (1.0, 0.0, 0.0)


def lattice(shape, start=(0, 0, 0)):
    extent = [v for n in (2, 1, 0) for v in (start[n], start[n] + shape[n] - 1)]
    return Lattice(tuple(extent), np.eye(4), np.eye(4))


def image_of(preview):
    contents = preview.node.GetSegmentation()
    images = [contents.GetSegment(n).GetRepresentation("Binary labelmap") for n in ("sure", "weak")]
    assert images[0] is images[1]  # or they would be two layers
    return images[0]


def spot(shape, rows, columns):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.fixture
def segmentation(session):
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_the_box_around_what_is_shown_is_held(segmentation, axis):
    shape, preview = (60, 61, 62), Preview()
    sizes = [shape[n] for n in range(3) if n != 2 - axis]
    slices = {n: (spot(sizes, (20, 25), (30, 34)), 0.9) for n in range(10, 13)}
    preview.show(segmentation, lattice(shape), axis, slices, RED, 0.5)
    assert image_of(preview).GetNumberOfPoints() == 3 * 5 * 4
    for index in range(13, 40):  # a slide goes on
        slices[index] = (spot(sizes, (20, 25), (30, 34)), 0.9)
        preview.show(segmentation, lattice(shape), axis, slices, RED, 0.5, [index])
    assert image_of(preview).GetNumberOfPoints() <= 50 * 5 * 4
    preview.clear()


def test_a_slide_copies_what_is_shown_a_few_times_only(segmentation):
    preview, slices, images = Preview(), {}, set()
    for index in range(200):
        slices[index] = (spot((20, 20), (3, 9), (3, 9)), 0.9)
        preview.show(segmentation, lattice((200, 20, 20)), 2, slices, RED, 0.5, [index])
        images.add(image_of(preview).GetExtent())
    assert len(images) < 16
    preview.clear()


def test_the_labelmap_is_empty_before_its_node_goes(segmentation):
    """Slicer goes through all voxels twice when segments that share a labelmap are removed."""
    preview, held = Preview(), []
    mask = spot((30, 30), (0, 30), (0, 30))
    preview.show(segmentation, lattice((10, 30, 30)), 2, {4: (mask, 0.9)}, RED, 0.5)
    image, scene = image_of(preview), slicer.mrmlScene
    tag = scene.AddObserver(
        scene.NodeAboutToBeRemovedEvent, lambda *_: held.append(image.GetNumberOfPoints())
    )
    preview.clear()
    scene.RemoveObserver(tag)
    assert held and not any(held)


def test_writing_a_slice_makes_no_copy_of_it(segmentation):
    preview, size = Preview(), (2048, 2048)
    slices = {n: (spot(size, (900, 940), (900, 940)), 0.9) for n in (3, 4)}
    preview.show(segmentation, lattice((6, *size)), 2, slices, RED, 0.5)
    slices[4] = (spot(size, (905, 950), (905, 950)), 0.9)
    tracemalloc.start()
    preview.show(segmentation, lattice((6, *size)), 2, slices, RED, 0.5, [4])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000  # the slice has four million voxels
    preview.clear()


def test_what_is_shown_already_is_not_written_again(segmentation):
    preview, mask = Preview(), spot((9, 9), (2, 5), (2, 5))
    for _ in range(3):
        preview.show(segmentation, lattice((6, 9, 9)), 2, {3: (mask, 0.9)}, RED, 0.5)
    version, changed = preview.version, image_of(preview).GetMTime()
    preview.show(segmentation, lattice((6, 9, 9)), 2, {3: (mask, 0.9)}, RED, 0.5)
    assert (preview.version, image_of(preview).GetMTime()) == (version, changed)
    preview.show(segmentation, lattice((6, 9, 9)), 2, {3: (mask, 0.9)}, RED, 0.95)
    assert preview.version > version  # it is a weak one now
    preview.clear()


def test_another_lattice_gets_a_preview_of_its_own(segmentation):
    """As after a change of the segmentation's geometry."""
    preview, mask = Preview(), spot((9, 9), (2, 5), (2, 5))
    here = lattice((6, 9, 9))
    coarse = Lattice(here.extent, np.diag([2.0, 2.0, 2.0, 1.0]), np.eye(4))
    for part in (here, lattice((6, 9, 9), (0, 4, -3)), here, coarse):
        preview.show(segmentation, part, 2, {3: (mask, 0.9)}, RED, 0.5)
        image = image_of(preview)
        assert of_image(image, preview.node).same_grid(part)
        assert np.array_equal(on_lattice(image, part)[3] != 0, mask)
    preview.clear()


@pytest.mark.parametrize("only", [None, [3]])
def test_a_preview_that_somebody_deleted_comes_back_whole(segmentation, only):
    """The Data module lists its node; a slide goes on and asks for its newest slice only."""
    preview, mask, here = Preview(), spot((9, 9), (2, 5), (2, 5)), lattice((6, 9, 9))
    slices = {n: (mask, 0.2) for n in (1, 2, 3)}
    preview.show(segmentation, here, 2, slices, RED, 0.5)
    assert preview.weak_outlines(2, 1)
    slicer.mrmlScene.RemoveNode(preview.node)
    if only is None:  # a view is drawn meanwhile
        assert not preview.weak_outlines(2, 1) and not preview.shown and preview.node is None
    preview.show(segmentation, here, 2, slices, RED, 0.5, only)
    assert preview.node.GetScene() is slicer.mrmlScene and preview.shown == {1, 2, 3}
    assert on_lattice(image_of(preview), here)[1:4].any(axis=(1, 2)).all()
    preview.clear()


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_shows_what_is_asked_for(segmentation, seed):
    random = np.random.default_rng(seed)
    whole, preview = lattice((7, 9, 11), start=(-2, 3, 0)), Preview()
    slices, axis = {}, 2
    for _ in range(30):
        again = random.random() < 0.15
        if again:
            slices, axis = {}, int(random.integers(3))
        sizes = [whole.shape[n] for n in range(3) if n != 2 - axis]
        changed = random.integers(0, whole.shape[2 - axis], 2).tolist()
        for index in changed:
            slices.pop(index, None)
            if not slices or random.random() < 0.8:
                mask = random.random(sizes) < random.choice([0, 0.02, 0.5])
                slices[index] = (mask, random.choice([0.2, 0.8]))
        only = changed if random.random() < 0.7 and not again else None
        preview.show(segmentation, whole, axis, slices, RED, 0.5, only)
        wanted = np.zeros(whole.shape, np.uint8)
        for index, (mask, confidence) in slices.items():
            np.moveaxis(wanted, 2 - axis, 0)[index] = mask * (1 if confidence > 0.5 else 2)
        shown = on_lattice(image_of(preview), whole)
        assert np.array_equal(shown, wanted) and preview.shown == set(slices)
        for across in range(3):
            for index, labels in enumerate(np.moveaxis(wanted, 2 - across, 0)):
                assert as_set(preview.weak_outlines(across, index)) == as_set(outlines(labels == 2))
    preview.clear()


def as_set(lines):
    """Lines without order, direction and first point."""
    return {frozenset(map(tuple, line.tolist())) for line in lines}


def test_the_picture_follows_what_grows(stage_of):
    """Slicer's views keep the same labelmap object while its extent changes."""
    stage = stage_of()
    stage.effect.setParameter("AutoApply", 0)
    plain = {}
    for k in (8, 3, 6):
        stage.scroll_to((9, 7, k))
        plain[k] = stage.view.pixels()
    stage.click()
    stage.wait()
    before = image_of(stage.interaction.preview).GetExtent()
    stage.view.pixels()
    stage.panel.segment.click()
    stage.wait()
    assert image_of(stage.interaction.preview).GetExtent() != before
    x, y = (round(v) for v in stage.xy((6, 6, 6)))
    far = tuple(round(v) for v in stage.xy((1, 1, 6)))
    for k, image in plain.items():
        stage.scroll_to((9, 7, k))
        now = stage.view.pixels()
        assert not np.array_equal(now[y, x], image[y, x])
        assert np.array_equal(now[far[1], far[0]], image[far[1], far[0]])
    stage.scroll_to((9, 7, 8))
    scene, drawn = slicer.mrmlScene, []
    tag = scene.AddObserver(
        scene.NodeAboutToBeRemovedEvent, lambda *_: drawn.append(stage.view.pixels())
    )
    stage.panel.clear.click()  # views may draw at any time, also half way through it
    scene.RemoveObserver(tag)
    assert drawn and np.array_equal(stage.view.pixels(), plain[8])


def test_a_view_that_stands_still_shows_the_mask_of_now(stage_of):
    """As where *Other mask* gives a part of what was there: the box around it may stay."""
    stage = stage_of()
    show, segmentation = stage.interaction.preview.show, stage.scene.segmentation
    part = stage.interaction.reader.part()
    whole = spot(part.shape[1:], (2, 10), (3, 14))
    with_hole = whole.copy()
    with_hole[4:7, 5:8] = False
    x, y = (round(v) for v in stage.xy((6, 5, 6)))
    plain, seen = stage.view.pixels()[y, x].copy(), []
    for mask in (whole, with_hole, whole):
        show(segmentation, part, 2, {6: (mask, 0.9)}, RED, 0.5, [6])
        seen.append(stage.view.pixels()[y, x].copy())
    assert np.array_equal(seen[1], plain) and not np.array_equal(seen[0], plain)
    assert np.array_equal(seen[2], seen[0])
