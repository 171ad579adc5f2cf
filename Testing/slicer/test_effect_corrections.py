"""What a correction of an applied result writes, takes back, gives back, and leaves alone."""

import numpy as np
import pytest
from SlideSAMBridge import editing, lattice, neighbours

from Testing.slicer import scenes
from Testing.slicer.scenes import SHAPE

pytestmark = pytest.mark.slicer


def leaky(stage_of):
    """A stage whose volume has a second bright thing apart from the object, on every slice."""
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, 12:15, 16:20] = scenes.INSIDE
    return stage_of(scene=scenes.Scene(image=image, oversampling=1))


def leak(stage):
    """Segment both things with one box."""
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.image > 0)


@pytest.mark.parametrize("step", [0.5, 1, 2])
def test_segments_on_other_lattices_get_back_what_was_taken(stage_of, step):
    """As imported files bring them; edges coincide, so that the block has the same voxels."""
    stage = leaky(stage_of)
    stage.scene.import_segment("C", step, (12, 4, 2))
    block = np.zeros(SHAPE, bool)
    block[2:12, 4:16, 12:20] = True
    stage.editor.node.SetSelectedSegmentID("A")
    leak(stage)
    assert np.array_equal(stage.mask("C"), block & ~stage.mask())
    stage.click((18, 13, 6), ctrl=1)
    stage.wait()
    assert not stage.mask()[6, 12:15, 16:20].any()
    assert np.array_equal(stage.mask("C"), block & ~stage.mask())


@pytest.mark.parametrize(("step", "first"), [(1, (7, -2, 3)), (0.5, (7, 2, 3)), (3, (1, 2, 3))])
def test_layers_of_other_lattices_are_read_on_the_part_alone(stage_of, monkeypatch, step, first):
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.scene.import_segment("C", step, first)
    part = stage.interaction.reader.part().cropped((5, 12, 1, 9, 2, 6))
    size = np.array([8, 12, 10]) // step * step
    block = np.zeros(part.shape, bool)
    low = np.maximum(first - part.first, 0).astype(int)
    high = np.minimum(first + size - part.first, part.last - part.first + 1).astype(int)
    block[low[2] : high[2], low[1] : high[1], low[0] : high[0]] = True
    read = []
    original = editing.on_lattice

    def counted(image, where):
        read.append(where.shape)
        return original(image, where)

    monkeypatch.setattr(editing, "on_lattice", counted)
    where = np.ones(part.shape, bool)
    found = neighbours.owned(stage.scene.segmentation, "A", part, where)
    assert np.array_equal(found["C"], block) and read == [part.shape]
    far = lattice.Lattice((40, 42, 1, 9, 2, 6), part.ijk_to_local, part.local_to_ras)
    assert neighbours.owned(stage.scene.segmentation, "A", far, np.ones(far.shape, bool)) == {}
