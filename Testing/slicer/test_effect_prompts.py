"""Prompts by real mouse events: where they land, how they are drawn, removed and kept."""

import numpy as np
import pytest
import slicer
import vtk

from Testing.slicer import scenes
from Testing.slicer.scenes import GEOMETRIES, MIDDLE, SHAPE

pytestmark = pytest.mark.slicer


def voxels(stage):
    """The prompts of the segment as (kind, axis, voxels of the volume, label)."""
    from SlideSAMBridge.scene import lattice

    grid = lattice.of_volume(stage.scene.volume)
    to_ras = stage.interaction.reader.part().local_to_ras
    found = []
    for mark in stage.interaction.book.prompts.marks:
        at = [
            tuple(grid.voxel((to_ras @ [*position, 1.0])[:3]).tolist())
            for position in mark.positions
        ]
        found.append((mark.kind, "IJK"[mark.axis], at, mark.label))
    return found


@pytest.mark.parametrize("geometry", ["oblique", "left-handed", "sagittal scan", "microscopy"])
@pytest.mark.parametrize("transforms", [(), ("volume", "segmentation"), ("volume",)])
def test_click_and_drag_are_voxel_exact(stage_of, geometry, transforms):
    """In all three orientations, whatever the lattice and the transforms."""
    stage = stage_of(geometry, transforms, view_names=("Red", "Yellow", "Green"))
    axes = set()
    for name in stage.views:
        stage.interaction.clear()
        stage.drag((6, 5, 4), (12, 10, 8), name)
        stage.click(MIDDLE, name)
        axis = stage.interaction.book.prompts.marks[0].axis
        axes.add(axis)
        low, high = [6, 5, 4], [12, 10, 8]
        low[axis] = high[axis] = MIDDLE[axis]
        box, point = voxels(stage)
        assert box[:2] == ("box", "IJK"[axis])
        assert np.array_equal(np.min(box[2], axis=0), low)
        assert np.array_equal(np.max(box[2], axis=0), high)
        assert point == ("point", "IJK"[axis], [MIDDLE], 1)
    assert axes == {0, 1, 2}


def test_positive_and_negative(stage_of):
    stage = stage_of()
    stage.click((6, 5, 6))
    stage.click((10, 5, 6), ctrl=1)
    assert [v[3] for v in voxels(stage)] == [1, 0]
    stage.wait()


def test_a_shaking_hand_is_a_click(stage_of):
    """Up to four Qt pixels; on a screen of double density these are eight pixels."""
    for ratio, pixels, kind in ((1, 3, "point"), (1, 40, "box"), (2, 7, "point")):
        stage = stage_of(ratio=ratio)
        start = stage.xy((7, 6, 6))
        stage.view.drag(start, np.add(start, (pixels, pixels if pixels > 9 else 0)))
        assert [v[0] for v in voxels(stage)] == [kind]
        stage.interaction.reset()
        stage.interaction.clear()


def test_events_are_consumed_only_where_they_are_ours(stage_of):
    stage = stage_of()
    seen = []
    view = stage.view
    for name in ("LeftButtonPressEvent", "MouseMoveEvent", "LeftButtonReleaseEvent"):
        view.interactor.AddObserver(name, lambda c, e: seen.append(e), 0.5)
    xy = stage.xy()
    view.event("MouseMoveEvent", xy)
    assert seen == ["MouseMoveEvent"]  # the data probe and the crosshair see it
    view.event("LeftButtonPressEvent", xy)
    view.event("MouseMoveEvent", xy + 30)
    view.event("LeftButtonReleaseEvent", xy + 30)
    assert seen == ["MouseMoveEvent"]
    view.event("LeftButtonPressEvent", xy, shift=1)
    assert seen[1:] == ["LeftButtonPressEvent"]
    view.event("LeftButtonReleaseEvent", xy)
    assert len(stage.interaction.book.prompts) == 1
    before = view.logic.GetSliceOffset()
    view.event("MouseWheelForwardEvent", xy)
    assert view.logic.GetSliceOffset() != before


OURS = ("LeftButtonPressEvent", "LeftButtonReleaseEvent", "LeftButtonDoubleClickEvent")


def test_what_is_not_ours_is_left_to_slicer(stage_of):
    """Zoom, pan, scroll, the context menu, and where the mouse is."""
    stage = stage_of()
    seen, view = [], stage.view
    others = [name for name in stage.editor.EVENTS if name not in OURS]
    for name in others:
        view.interactor.AddObserver(name, lambda caller, event: seen.append(event), 0.5)
    for name in others:
        view.event(name, stage.xy())
    assert [name for name in others if name not in seen] == []


class ThreeDWidget:
    """A qMRMLThreeDWidget has nothing of a slice widget."""

    def className(self):
        return "qMRMLThreeDWidget"


def test_3d_views_are_none_of_our_business(stage_of):
    """Their events reach the effect, too."""
    stage = stage_of()
    interactor, widget = stage.view.interactor, ThreeDWidget()
    for name in stage.editor.EVENTS:
        event = vtk.vtkCommand.GetEventIdFromString(name)
        assert stage.python.processInteractionEvents(interactor, event, widget) is False
    node = slicer.vtkMRMLViewNode()
    stage.python.processViewNodeEvents(node, vtk.vtkCommand.ModifiedEvent, widget)
    assert len(stage.interaction.book.prompts) == 0


def test_a_mark_is_not_under_a_mouse_that_has_left(stage_of):
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.view.event("MouseMoveEvent", stage.xy())
    stage.view.event("LeaveEvent", stage.xy())
    stage.key("Delete")
    assert len(stage.interaction.book.prompts) == 1


def test_lost_and_lone_releases(stage_of):
    stage = stage_of()
    xy = stage.xy()
    stage.view.event("LeftButtonReleaseEvent", xy)
    assert len(stage.interaction.book.prompts) == 0
    stage.view.event("LeftButtonPressEvent", xy)  # no release follows
    stage.click((6, 5, 6))
    assert voxels(stage)[0][2] == [(6, 5, 6)] and len(voxels(stage)) == 1
    stage.view.event("LeftButtonDoubleClickEvent", xy)
    stage.view.event("LeftButtonReleaseEvent", xy)
    assert len(stage.interaction.book.prompts) == 1


@pytest.mark.parametrize("how", ["escape", "scroll", "effect", "layout", "volume"])
def test_a_drag_is_cancelled(stage_of, how):
    stage = stage_of()
    props = stage.props()
    stage.view.event("LeftButtonPressEvent", stage.xy((6, 5, 6)))
    stage.view.event("MouseMoveEvent", stage.xy((12, 9, 6)))
    assert stage.props()[0] == props[0] + 1
    if how == "escape":
        stage.key("Escape")
    elif how == "scroll":
        stage.view.event("MouseWheelForwardEvent", stage.xy())
    elif how == "effect":
        stage.shut()
    elif how == "layout":
        stage.python.layoutChanged()
    else:
        stage.editor.node.SetAndObserveSourceVolumeNode(None)
    assert stage.props() == props
    stage.view.event("LeftButtonReleaseEvent", stage.xy((12, 9, 6)))
    assert stage.props() == props and stage.interaction.book.prompts.marks == ()


def test_the_box_follows_pan_and_zoom(stage_of):
    """The corner stays at its voxel when the view moves under the drag."""
    stage = stage_of()
    stage.view.event("LeftButtonPressEvent", stage.xy((6, 5, 6)))
    stage.view.event("MouseMoveEvent", stage.xy((9, 7, 6)))
    width, height, depth = stage.view.node.GetFieldOfView()
    stage.view.node.SetFieldOfView(width * 2, height * 2, depth)
    stage.view.event("MouseMoveEvent", stage.xy((12, 10, 6)))
    stage.view.event("LeftButtonReleaseEvent", stage.xy((12, 10, 6)))
    ((_, _, box, _),) = voxels(stage)
    assert np.array_equal(np.min(box, axis=0), [6, 5, 6])
    assert np.array_equal(np.max(box, axis=0), [12, 10, 6])


def test_a_box_is_cut_at_the_edge_and_outside_is_refused(stage_of):
    stage = stage_of()
    stage.drag((-3, -3, 6), (8, 7, 6))
    ((_, _, box, _),) = voxels(stage)
    assert np.array_equal(np.min(box, axis=0), [0, 0, 6])
    stage.click((-1, 5, 6))  # rounding towards zero would make it voxel 0
    assert len(voxels(stage)) == 1 and "outside the volume" in stage.message
    stage.drag((-6, -6, 6), (-2, -2, 6))
    assert len(voxels(stage)) == 1
    stage.click((-0.4, 5, 6))  # the outer half of the outermost voxel is in it
    assert voxels(stage)[1][2] == [(0, 5, 6)]


@pytest.mark.parametrize("corner", [(12, 5.3, 6), (4.3, 12, 6)])
def test_a_box_of_one_row_or_column_is_refused(stage_of, corner):
    stage = stage_of()
    stage.drag((4, 5, 6), corner)
    assert voxels(stage) == [] and "box is too small" in stage.message
    stage.drag((4, 5, 6), (5, 6, 6))
    assert [v[0] for v in voxels(stage)] == ["box"]


@pytest.mark.parametrize("view", ["Red", "Yellow", "Green"])
def test_the_outermost_slices_can_be_marked_and_no_other(stage_of, view):
    stage = stage_of(view_names=(view,))
    axis = {"Red": 2, "Yellow": 0, "Green": 1}[view]
    count = SHAPE[2 - axis]
    for index, good in ((-1, False), (0, True), (count - 1, True), (count, False)):
        stage.interaction.clear()
        voxel = list(MIDDLE)
        voxel[axis] = index
        stage.scroll_to(voxel, view)
        stage.click(voxel, view)
        assert len(stage.interaction.book.prompts) == good
        assert good or "outside the volume: scroll to the object" in stage.message
        stage.wait()


def test_a_box_beside_the_volume_is_refused_on_every_side(stage_of):
    stage = stage_of()
    for axis, count in ((0, SHAPE[2]), (1, SHAPE[1])):
        for side in ((-4, -1), (count, count + 3)):
            a, b = [3, 3, 6], [9, 9, 6]
            a[axis], b[axis] = side
            stage.drag(a, b)
            assert "box is outside the volume" in stage.message
            assert not stage.interaction.book.prompts


def test_an_oblique_view_is_refused_with_a_way_out(stage_of):
    stage = stage_of("oblique")
    stage.view.node.SetOrientation("Axial")  # anatomical, not the scan's
    stage.click()
    assert voxels(stage) == [] and "angle" in stage.message
    assert stage.panel.rotate.isVisibleTo(stage.effect.optionsFrame())
    stage.panel.rotate.click()
    assert not stage.panel.rotate.isVisibleTo(stage.effect.optionsFrame())
    stage.scroll_to(MIDDLE)
    stage.click()
    assert voxels(stage) == [("point", "K", [MIDDLE], 1)]


def test_a_hidden_segment_is_asked_about_first(stage_of):
    """The dialog swallows the release, so no drag may start."""
    stage = stage_of()
    stage.scene.segmentation.GetDisplayNode().SetSegmentVisibility("A", False)
    stage.click()
    assert voxels(stage) == [] and stage.python.gesture.view is None
    stage.click()
    assert len(voxels(stage)) == 1


def test_prompts_are_drawn_on_their_slice_only(stage_of):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click()
    stage.wait()
    yellow = stage.python.views.overlays[1]
    assert len(stage.python.views.overlays[0].actors) == 2 == len(yellow.actors)
    stage.drag((6, 5, 6), (12, 9, 6))
    assert len(stage.python.views.overlays[0].actors) == 3
    assert len(yellow.actors) == 2  # a box lies in one orientation
    stage.scroll_to((9, 7, 7), "Red")
    assert stage.python.views.overlays[0].actors == []
    stage.scroll_to(MIDDLE, "Red")
    assert len(stage.python.views.overlays[0].actors) == 3
    stage.wait()


def test_removing_prompts(stage_of):
    stage = stage_of()
    stage.click((6, 5, 6))
    stage.click((11, 9, 6))
    stage.click((6, 5, 6), ctrl=1, alt=1)
    assert [v[2] for v in voxels(stage)] == [[(11, 9, 6)]]
    stage.view.event("MouseMoveEvent", stage.xy((11, 9, 6)))
    stage.key("Delete")
    assert voxels(stage) == []
    stage.key("Delete")  # nothing under the mouse
    stage.click()
    stage.panel.clear.click()
    assert voxels(stage) == [] and stage.actors() == 0
    assert stage.scene.contents.GetSegment("A").HasTag("SlideSAM.Prompts") is False


def test_each_segment_has_its_own(stage_of):
    stage = stage_of()
    stage.click((6, 5, 6))
    stage.wait()
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("B")
    assert voxels(stage) == [] and stage.actors() == 0 and not stage.preview().any()
    stage.click((7, 6, 6), ctrl=1)
    stage.editor.node.SetSelectedSegmentID("A")
    assert [v[2:] for v in voxels(stage)] == [([(6, 5, 6)], 1)]
    assert stage.preview().any()
    stage.shut()
    stage.open()
    stage.editor.node.SetSelectedSegmentID("B")
    assert [v[2:] for v in voxels(stage)] == [([(7, 6, 6)], 0)]


def test_segments_share_what_was_encoded(stage_of, quick_model):
    """Another object on the same slices costs no encoding."""
    stage = stage_of()
    stage.click((6, 5, 6))
    stage.panel.segment.click()
    stage.wait()
    encoded = len(quick_model.encoded)
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("B")
    stage.click((9, 7, 6))
    stage.panel.segment.click()
    stage.wait()
    assert stage.mask("B").any() and len(quick_model.encoded) == encoded


def test_prompts_move_with_the_segmentation_and_outlive_its_geometry(stage_of):
    stage = stage_of("negative spacing", ("volume", "segmentation"))
    stage.click()
    stage.wait()
    parent = stage.scene.segmentation.GetParentTransformNode()
    parent.SetMatrixTransformToParent(scenes_matrix(GEOMETRIES["identity"]))
    assert voxels(stage) == [("point", "K", [MIDDLE], 1)]
    stage.scene.oversample(2)
    assert voxels(stage) == [("point", "K", [MIDDLE], 1)]


def scenes_matrix(array):
    import slicer

    return slicer.util.vtkMatrixFromArray(array)


@pytest.mark.parametrize("chosen", ["effect", "segment"])
def test_damaged_text_is_told_and_survived(stage_of, chosen):
    """As of a scene from a newer version: the next mark takes the place of what was saved."""
    stage = stage_of()
    other = stage.scene.contents.AddEmptySegment("", "Other")
    choose = stage.editor.node.SetSelectedSegmentID
    stage.shut() if chosen == "effect" else choose(other)
    stage.scene.contents.GetSegment("A").SetTag("SlideSAM.Prompts", '{"version": 9}')
    stage.open() if chosen == "effect" else choose("A")
    stage.wait()
    assert "saved prompts cannot be read" in stage.message
    assert stage.interaction.message.kind == "error"
    stage.click()
    stage.wait()
    assert [v[2] for v in voxels(stage)] == [[MIDDLE]] and stage.preview().any()


def test_prompts_are_there_once_their_volume_is_chosen(stage_of):
    """As in a scene that was opened with no source volume in the editor."""
    stage = stage_of()
    stage.click()
    stage.wait()
    text = stage.interaction.book.prompts.to_json() + " "  # not read before
    stage.shut()
    stage.editor.node.SetAndObserveSourceVolumeNode(None)
    stage.scene.contents.GetSegment("A").SetTag("SlideSAM.Prompts", text)
    stage.open()
    assert not stage.interaction.book.prompts and stage.actors() == 0
    stage.editor.node.SetAndObserveSourceVolumeNode(stage.scene.volume)
    stage.wait()
    assert voxels(stage) == [("point", "K", [MIDDLE], 1)] and stage.actors() == 2


def test_prompts_of_the_logic_are_shown(stage_of, slidesam):
    stage = stage_of()
    slidesam.SlideSAMLogic().segment(
        stage.scene.volume,
        stage.scene.segmentation,
        "A",
        points=[stage.scene.ras()],
        orientation="K",
        model="threshold",
    )
    stage.python.redraw()
    assert voxels(stage) == [("point", "K", [MIDDLE], 1)] and stage.actors() == 2
    assert stage.mask().shape == SHAPE


@pytest.mark.parametrize("size", [1e-5, 1e-4, 1.0, 100.0])
def test_saved_prompts_are_as_exact_as_the_voxels(stage_of, size):
    """From electron microscopy in 10 nm to a coarse grid; far from the origin, too."""
    place = scenes.affine(np.diag([-size, -size, 2 * size]), (3e3 * size, 4e3 * size, 5e3 * size))
    stage = stage_of(scene=scenes.Scene(place, oversampling=1))
    stage.click((9, 7, 6))
    stage.drag((4, 3, 6), (17, 12, 6))
    stage.wait()
    point, box = voxels(stage)
    assert point[2] == [(9, 7, 6)] and sorted(box[2]) == [(4, 3, 6), (17, 12, 6)]
    assert len(stage.interaction.work.previews) == 1
    text = stage.interaction.book.prompts.to_json()
    assert len(text) < 400
