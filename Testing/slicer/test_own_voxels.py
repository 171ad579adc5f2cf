"""The volume's own voxels are read where the labels have the same; else the logic resamples."""

import tracemalloc

import numpy as np
import pytest
import slicer
from SlideSAMBridge.scene import editing, lattice

from Testing.slicer import scenes
from Testing.slicer.scenes import GEOMETRIES, SHAPE, Scene

pytestmark = pytest.mark.slicer

GEOMETRY = "Reference image geometry"


class Counting:
    """A segment editor logic that counts how often all of the volume is worked out."""

    def __init__(self, logic):
        self._logic, self.aligned = logic, 0

    def __getattr__(self, name):
        return getattr(self._logic, name)

    def UpdateAlignedSourceVolume(self):
        self.aligned += 1
        return self._logic.UpdateAlignedSourceVolume()


def editor_of(session, scene):
    made = editing.Editor.private(session.scene, session.app_logic)
    made.logic = Counting(made.logic)
    made.point_at(scene.segmentation, scene.volume)
    return made


def scene_of(geometry, transforms=(), oversampling=1, dtype=np.int16):
    image = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    return Scene(GEOMETRIES[geometry], transforms, oversampling, image)


def theirs(editor, part):
    logic = editor.logic._logic
    assert logic.UpdateAlignedSourceVolume()
    image = logic.GetAlignedSourceVolume()
    grid = lattice.of_image(image, editor.node.GetSegmentationNode())
    return editing.image_array(image)[grid.slices(part)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_same_voxels_are_copied_without_the_logic(session, geometry, dtype):
    scene = scene_of(geometry, dtype=dtype)
    editor = editor_of(session, scene)
    volume, part = editor.source()
    assert editor.logic.aligned == 0
    assert volume.dtype == dtype and np.array_equal(volume, scene.image)
    assert np.array_equal(volume, theirs(editor, part))
    slicer.util.arrayFromVolume(scene.volume)[:] = 0  # a worker may still read the copy
    assert np.array_equal(volume, scene.image)


@pytest.mark.parametrize("transforms", [("volume",), ("segmentation",), ("volume", "segmentation")])
@pytest.mark.parametrize("oversampling", [1, 2])
def test_what_is_read_is_what_the_logic_has(session, transforms, oversampling):
    """Also under transforms; other voxels than the volume's are the logic's to make."""
    scene = scene_of("oblique", transforms, oversampling)
    editor = editor_of(session, scene)
    volume, part = editor.source()
    assert editor.logic.aligned == (oversampling == 2)
    assert np.array_equal(volume, theirs(editor, part))


@pytest.mark.parametrize(
    ("origin", "extent", "own"),
    [
        ((0, 0, -100), (0, 19, 0, 15, 102, 110), True),  # counted from elsewhere, and a part
        ((-5, 3, 2), (-4, 30, -9, 20, -7, 30), True),  # larger than the volume on all sides
        ((0, 0, 0.5), (0, 19, 0, 15, 0, 10), False),
        ((1e-4, 0, 0), (0, 19, 0, 15, 0, 11), False),
    ],
)
def test_other_indices_of_the_same_voxels(session, origin, extent, own):
    scene = scene_of("identity")
    numbers = [*scenes.affine(np.eye(3), origin).ravel(), *extent]
    text = ";".join(f"{n:g}" for n in numbers) + ";"
    scene.contents.SetConversionParameter(GEOMETRY, text)
    editor = editor_of(session, scene)
    volume, part = editor.source()
    assert editor.logic.aligned == (not own)
    assert volume.shape == part.shape and np.array_equal(volume, theirs(editor, part))


def test_a_slice_that_is_thicker_than_the_labels_is_not_the_same(session):
    scene = Scene(scenes.affine(np.diag([1, 1, 5])), image=np.ones((1, 16, 20), np.int16))
    numbers = [*np.eye(4).ravel(), 0, 19, 0, 15, 0, 0]
    text = ";".join(f"{n:g}" for n in numbers) + ";"
    scene.contents.SetConversionParameter(GEOMETRY, text)
    part = editor_of(session, scene).lattice()
    assert editing.own_voxels(scene.volume, part) is None


def test_what_may_be_written_costs_no_more_than_the_result(session):
    image = np.zeros((60, 128, 128), np.int16)
    scene = Scene(oversampling=None, image=image)
    scene.oversample(1)
    editor = editor_of(session, scene)
    volume, part = editor.source()
    mask = np.zeros(part.shape, bool)
    mask[20:25, 60:70, 50:58] = True
    mask[20, 60, 50] = False
    editor.node.SourceVolumeIntensityMaskOn()
    editor.node.SetSourceVolumeIntensityMaskRange(0, 700)
    tracemalloc.start()
    try:
        found, box = editor.writable(mask, volume, part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert box.extent == (50, 57, 60, 69, 20, 24) and np.array_equal(
        found, mask[20:25, 60:70, 50:58]
    )
    assert peak < mask.size / 10
    editor.node.SetSourceVolumeIntensityMaskRange(1, 700)
    assert editor.writable(mask, volume, part) is None
    assert editor.writable(np.zeros_like(mask), volume, part) is None


def test_masking_is_asked_for_the_part_of_the_result_only(session, slidesam, monkeypatch):
    """By the console and by segmenting all."""
    asked = []
    original = editing.Editor.editable

    def editable(self, volume, grid):
        asked.append((volume.shape, grid.extent))
        return original(self, volume, grid)

    monkeypatch.setattr(editing.Editor, "editable", editable)
    scene = Scene(oversampling=1)
    logic = slidesam.SlideSAMLogic()
    made = logic.segment(
        scene.volume, scene.segmentation, points=[scene.ras()], model=scenes.model()
    )
    assert logic.segmentAll(scene.segmentation, model=scenes.model()).written == [made]
    assert np.array_equal(scene.mask(made), scene.truth)
    assert asked == [((6, 9, 12), (5, 16, 4, 12, 3, 8))] * 2
