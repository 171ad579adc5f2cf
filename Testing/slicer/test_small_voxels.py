"""Slices closer than a micrometre: Slicer's views do not follow a move that is so small.

What a view shows and where a click lands is its XYToRAS, which stays as it was; SliceToRAS moves.
"""

import numpy as np
import pytest
import slicer
from SlideSAMBridge.drawing import slice_views
from SlideSAMBridge.scene import lattice

from Testing.slicer import scenes
from Testing.slicer.scenes import Scene

pytestmark = pytest.mark.slicer

SPACINGS = (1.0, 1e-2, 3e-4, 1e-5)


def part_and_view(spacing, orientation="Axial"):
    turned = scenes.affine(scenes._turn() @ np.diag([-1.0, -1.0, 1.0]) * spacing, (3, -4, 5))
    image = np.zeros((40, 16, 20), np.int16)
    scene = Scene(turned, ("volume",), image=image)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    node.SetName("Red")
    node.SetLayoutName("Red")
    node.SetOrientation(orientation)
    node.SetDimensions(300, 200, 1)
    node.SetFieldOfView(30 * spacing, 20 * spacing, spacing)
    node.RotateToVolumePlane(scene.volume)
    node.JumpSliceByOffsetting(*scene.ras((9, 7, 6)))
    return scene, lattice.of_volume(scene.volume), node


def picture(node, part, axis, xy=(150, 100)):
    """The slice that lies under a pixel."""
    return int(part.voxel(slice_views.ras_of(node, xy))[axis])


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("orientation", ["Axial", "Sagittal", "Coronal"])
def test_the_shown_slice_is_the_one_in_the_picture(session, spacing, orientation):
    scene, part, node = part_and_view(spacing, orientation)
    axis = slice_views.shown_slice(node, part)[0]
    for step in (7, 8, 11, 6, 12, 1):
        ijk = [9, 7, 6]
        ijk[axis] = step
        node.JumpSliceByOffsetting(*scene.ras(ijk))
        assert slice_views.shown_slice(node, part) == (axis, picture(node, part, axis))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_jump_arrives(session, spacing):
    _, part, node = part_and_view(spacing)
    axis = slice_views.shown_slice(node, part)[0]
    before = slice_views.ras_of(node, (150, 100))
    for index in (7, 8, 25, 24, 0, 39):
        slice_views.jump(node, part, axis, index)
        assert (
            slice_views.shown_slice(node, part)
            == (axis, index)
            == (axis, picture(node, part, axis))
        )
        moved = part.position(slice_views.ras_of(node, (150, 100))) - part.position(before)
        moved[axis] = 0
        assert np.allclose(moved, 0, atol=1e-3)  # not panned
        assert np.isclose(
            part.position(slice_views.ras_of(node, (150, 100)))[axis], index, atol=1e-3
        )


def test_a_small_move_that_is_not_shown_ends_no_gesture(session):
    scene, _, node = part_and_view(1e-5)
    plane = slice_views.plane(node)
    node.JumpSliceByOffsetting(*scene.ras((9, 7, 12)))
    assert slice_views.same_plane(node, plane)


@pytest.mark.parametrize("spacing", [1.0, 1e-2])
def test_a_move_that_is_shown_ends_a_gesture(session, spacing):
    scene, part, node = part_and_view(spacing)
    axis = slice_views.shown_slice(node, part)[0]
    plane = slice_views.plane(node)
    node.SetFieldOfView(15 * spacing, 10 * spacing, spacing)
    node.JumpSliceByOffsetting(*scene.ras((11, 9, 6)))
    assert slice_views.same_plane(node, plane)
    slice_views.jump(node, part, axis, 7)
    assert not slice_views.same_plane(node, plane)
