"""When the voxels that were read of a volume hold, and when they are read anew."""

import numpy as np
import pytest
import slicer
from SlideSAMBridge.scene import editing
from SlideSAMBridge.scene.source import SourceReader

from Testing.slicer import scenes
from Testing.slicer.scenes import SHAPE, Scene

pytestmark = pytest.mark.slicer

GEOMETRY = "Reference image geometry"


def geometry(scene, origin=(0, 0, 0), extent=(0, 19, 0, 15, 0, 11)):
    """Give the segmentation a lattice with voxels of 1 mm."""
    numbers = [*scenes.affine(np.eye(3), origin).ravel(), *extent]
    scene.contents.SetConversionParameter(GEOMETRY, ";".join(f"{n:g}" for n in numbers) + ";")


def place(node, matrix):
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))


def both_moved(scene, _transform):
    scene.volume.SetOrigin(0, 0, 5)
    geometry(scene, (0, 0, 5))


CHANGES = {
    "voxels": lambda scene, _: scene.volume.GetImageData().GetPointData().GetScalars().Modified(),
    "volume moved": lambda scene, _: scene.volume.SetOrigin(1e-3, 0, 0),
    "other part": lambda scene, _: geometry(scene, extent=(0, 19, 0, 15, 0, 8)),
    "other lattice": both_moved,
    "both scaled": lambda _, transform: place(transform, np.diag([2.0, 2.0, 2.0, 1.0])),
}


@pytest.fixture
def scene():
    scene = Scene(np.eye(4), ("volume", "segmentation"))
    geometry(scene)
    return scene


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_read_does_not_outlive(stage_of, scene, change):
    reader = stage_of(scene=scene).interaction.reader
    transform = scene.volume.GetParentTransformNode()
    source = reader.read()
    assert reader.read() is source and reader.unchanged(source)
    CHANGES[change](scene, transform)
    assert not reader.unchanged(source) and reader.read() is not source


def test_what_was_read_holds_where_both_are_moved_together(stage_of, scene):
    """And it lies where they are now: marks are placed by it."""
    reader = stage_of(scene=scene).interaction.reader
    source = reader.read()
    place(scene.volume.GetParentTransformNode(), scenes.affine(np.eye(3), (0, 0, 40)))
    assert reader.unchanged(source) and reader.read() is source
    assert np.allclose(source.part.ijk_to_ras[:3, 3], (0, 0, 40))


def test_a_volume_that_is_gone_has_changed(stage_of, scene):
    stage = stage_of(scene=scene)
    source = stage.interaction.reader.read()
    stage.editor.node.SetAndObserveSourceVolumeNode(None)
    assert not stage.interaction.reader.unchanged(source)


def test_only_what_the_volume_covers_is_read(stage_of):
    """On other voxels than its own, in a segmentation that is larger."""
    scene = Scene(np.eye(4))
    geometry(scene, (-0.5, -0.5, -0.5), (-5, 30, -5, 30, -5, 30))
    stage = stage_of(scene=scene)
    source = stage.interaction.reader.read()
    assert source.voxels.shape == source.part.shape == tuple(n + 1 for n in SHAPE)
    theirs = editing.image_array(stage.effect.sourceVolumeImageData())
    assert not np.shares_memory(source.voxels, theirs)  # the worker reads them when it likes


class Without:
    """An effect that has lost something."""

    def __init__(self, effect, lost):
        self._effect = effect
        setattr(self, lost, lambda: None)

    def __getattr__(self, name):
        return getattr(self._effect, name)


def test_a_segmentation_without_a_geometry_gets_one_with_its_volume(stage_of):
    effect = Without(stage_of(scene=Scene(np.eye(4))).effect, "referenceGeometryImage")
    effect.sourceVolumeImageData = lambda: delattr(effect, "referenceGeometryImage")
    assert SourceReader(effect).read().part.shape == SHAPE


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("sourceVolumeImageData", "cannot be brought onto the segmentation's geometry"),
        ("referenceGeometryImage", "has no geometry: choose a source volume"),
    ],
)
def test_what_slicer_cannot_give_is_told(stage_of, lost, told):
    scene = Scene(np.eye(4))
    geometry(scene, (-0.5, -0.5, -0.5))
    reader = SourceReader(Without(stage_of(scene=scene).effect, lost))
    with pytest.raises(RuntimeError, match=told):
        reader.read()


def test_without_nodes_image_or_geometry_there_is_nothing_to_mark(stage_of):
    stage = stage_of(scene=Scene(np.eye(4)))
    assert stage.interaction.reader.part() is not None
    for lost in ("parameterSetNode", "referenceGeometryImage"):
        assert SourceReader(Without(stage.effect, lost)).part() is None
    stage.scene.volume.SetAndObserveImageData(None)
    assert stage.interaction.reader.part() is None


def test_what_is_forgotten_is_let_go(stage_of, scene):
    reader = stage_of(scene=scene).interaction.reader
    source = reader.read()
    reader.forget()
    assert len(reader._made) == 1
    del source
    assert len(reader._made) == 0
