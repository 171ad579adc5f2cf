"""Views a little oblique to the volume, as anatomical views of most MR scans are."""

import numpy as np
import pytest

from Testing.slicer import scenes
from Testing.slicer.scenes import affine
from Testing.slicer.test_effect_prompts import voxels

pytestmark = pytest.mark.slicer

SHAPE = (40, 200, 200)
CENTRE, EDGE = (100, 100, 21), (100, 185, 21)


def tilted(stage_of, degrees=2.4, place=EDGE):
    """An axial view through a voxel of a scan with 1 mm voxels that is turned around R.

    At 2.4 degrees the plane climbs one slice in 24 mm. There is something to find everywhere.
    """
    a = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    image = np.zeros(SHAPE, np.int16)
    image[:, 10:195, 95:105] = scenes.INSIDE
    where = affine(turn @ np.diag([-1.0, -1.0, 1.0]), (100, 100, -20))
    scene = scenes.Scene(where, image=image, oversampling=1)
    stage = stage_of(scene=scene, size=(400, 400))
    stage.view.node.SetOrientation("Axial")
    stage.view.logic.FitSliceToBackground()
    stage.scroll_to(place)
    return stage


def offers_to_rotate(stage):
    return stage.panel.rotate.isVisibleTo(stage.effect.optionsFrame())


def test_a_click_far_from_the_slice_of_the_view_is_refused(stage_of):
    """It was taken for a voxel four slices away from the one under the mouse."""
    stage = tilted(stage_of)
    stage.click(EDGE)
    assert voxels(stage) == [] and "angle" in stage.message and offers_to_rotate(stage)
    stage.panel.rotate.click()
    stage.scroll_to(EDGE)
    stage.click(EDGE)
    stage.wait()
    assert voxels(stage) == [("point", "K", [EDGE], 1)]


@pytest.mark.parametrize("swapped", [False, True])
def test_neither_corner_of_a_box_may_be_far_away(stage_of, swapped):
    stage = tilted(stage_of, place=CENTRE)
    near, far = stage.xy(CENTRE), stage.xy(EDGE)
    stage.view.drag(*((far, near) if swapped else (near, far)))
    assert voxels(stage) == [] and offers_to_rotate(stage)


def test_where_the_view_shows_its_slice_it_can_be_marked(stage_of):
    """In the middle, for 18 mm on either side."""
    stage = tilted(stage_of, place=CENTRE)
    stage.click(CENTRE)
    stage.click((100, 112, 21))
    stage.drag((92, 88, 21), (108, 112, 21))
    stage.wait()
    assert [(kind, at[0][2]) for kind, _axis, at, _label in voxels(stage)] == [
        ("point", 21),
        ("point", 21),
        ("box", 21),
    ]


def test_marks_are_shown_and_found_only_where_the_view_shows_their_slice(stage_of):
    """A mark made in a parallel view, seen later in a tilted one whose middle is on its slice."""
    stage = tilted(stage_of, place=CENTRE)
    node = stage.view.node
    node.RotateToVolumePlane(stage.scene.volume)
    stage.scroll_to(CENTRE)
    stage.click(CENTRE)
    stage.click(EDGE)
    stage.wait()
    assert stage.actors() == 2 and len(voxels(stage)) == 2  # one actor of discs, one of rims
    node.SetOrientation("Axial")
    stage.scroll_to(CENTRE)
    message = stage.interaction.message
    found = [stage.interaction.book.nearest(node, stage.xy(at), 12) for at in (CENTRE, EDGE)]
    assert found == [0, None]
    stage.view.event("MouseMoveEvent", stage.xy(EDGE))
    assert stage.python._hovered is None and stage.interaction.message is message
    stage.view.event("MouseMoveEvent", stage.xy(CENTRE))
    assert stage.python._hovered[1] == 0


def test_use_existing_wants_to_show_all_of_the_slice(stage_of):
    """The outline may be in the middle: the mask is that of the whole slice."""
    stage = tilted(stage_of, place=CENTRE)
    drawn = np.zeros(SHAPE, bool)
    drawn[21, 90:110, 95:105] = True
    stage.write("A", drawn)
    stage.panel.existing.click()
    assert voxels(stage) == [] and offers_to_rotate(stage)
    stage.panel.rotate.click()
    stage.scroll_to(CENTRE)
    stage.panel.existing.click()
    stage.wait()
    (mark,) = stage.interaction.book.prompts.marks
    assert mark.kind == "mask" and np.array_equal(mark.mask, drawn[21])


@pytest.mark.parametrize("offset", [-0.49, 0.49])
def test_a_parallel_view_between_two_slices_goes_on_working(stage_of, offset):
    """Everywhere: it is up to half a slice away from its slice, also at the corners."""
    stage = tilted(stage_of, degrees=0.0, place=(100, 100, 21 + offset))
    drawn = np.zeros(SHAPE, bool)
    drawn[21, 90:110, 95:105] = True
    stage.write("A", drawn)
    stage.click((100, 185, 21 + offset))
    stage.drag((5, 5, 21 + offset), (195, 195, 21 + offset))
    stage.panel.existing.click()
    stage.wait()
    assert [(kind, at[0][2]) for kind, _axis, at, _label in voxels(stage)] == [
        ("point", 21),
        ("box", 21),
        ("mask", 21),
    ]
