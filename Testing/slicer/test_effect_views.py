"""Which view is meant by a button of the panel: *Use existing*, and *Rotate view to the volume*."""

import numpy as np
import pytest
import slicer

from Testing.host.scripted_effect import LayoutManager
from Testing.slicer.scenes import MIDDLE, SHAPE

pytestmark = pytest.mark.slicer

ALL = ("Red", "Yellow", "Green")
AXES = {"Red": 2, "Yellow": 0, "Green": 1}


def drawn(stage, view):
    """What a person draws on the slice of a view: the object there."""
    mask = np.zeros(SHAPE, bool)
    where = [slice(None)] * 3
    where[2 - AXES[view]] = MIDDLE[AXES[view]]
    mask[tuple(where)] = stage.scene.truth[tuple(where)]
    return mask


def taken(stage):
    """The axes of the slices that were taken as prompts."""
    return [mark.axis for mark in stage.interaction.book.prompts.marks if mark.kind == "mask"]


def painted(stage_of, view="Yellow"):
    """The outline was drawn with another effect in one of three views; then Slide-SAM is chosen."""
    stage = stage_of(view_names=ALL)
    stage.shut()
    stage.write("A", drawn(stage, view))
    stage.open()
    stage.wait()
    return stage


def pass_through(stage, view):
    """The mouse crosses a view, as on its way to the panel."""
    for name in ("EnterEvent", "MouseMoveEvent", "LeaveEvent"):
        stage.views[view].event(name, stage.xy(MIDDLE, view))


def use(stage, view, how):
    """In a view, do what makes it the one that is meant."""
    there, xy = stage.views[view], stage.xy(MIDDLE, view)
    pass_through(stage, view)
    if how == "scroll":
        there.event("MouseWheelForwardEvent", xy)
        there.event("MouseWheelBackwardEvent", xy)
    elif how == "zoom":
        there.event("RightButtonPressEvent", xy)
        there.event("RightButtonReleaseEvent", xy)
    elif how == "key":
        there.press_key("s", xy)


@pytest.mark.parametrize("how", ["move", "scroll", "zoom", "key"])
@pytest.mark.parametrize("view", ALL)
def test_the_view_under_the_mouse_is_meant(stage_of, view, how):
    stage = stage_of(view_names=ALL)
    stage.write("A", stage.scene.truth)  # there is something in all of them
    use(stage, view, how)
    stage.panel.existing.click()
    stage.wait()
    assert taken(stage) == [AXES[view]]


@pytest.mark.parametrize("how", ["scroll", "zoom", "key"])
def test_views_on_the_way_to_the_panel_are_not_meant(stage_of, how):
    """In the usual layouts the panel lies beyond other views."""
    stage = painted(stage_of)
    use(stage, "Yellow", how)
    pass_through(stage, "Green")
    pass_through(stage, "Red")
    stage.panel.existing.click()
    stage.wait()
    assert taken(stage) == [0]


def test_rotate_turns_the_view_that_was_refused(stage_of):
    stage = stage_of("oblique", view_names=ALL)
    for view in stage.views.values():
        view.node.SetOrientation("Axial")
    pass_through(stage, "Yellow")
    stage.click(view="Yellow")
    pass_through(stage, "Green")
    stage.panel.rotate.click()
    turned = {name for name, v in stage.views.items() if v.node.GetOrientation() == "Reformat"}
    assert turned == {"Yellow"}


@pytest.mark.parametrize("view", ALL)
def test_where_no_view_was_used_one_that_has_the_outline_is_meant(stage_of, view):
    """Others cut it in a line."""
    stage = painted(stage_of, view)
    stage.panel.existing.click()
    stage.wait()
    assert taken(stage) == [AXES[view]]


def test_the_view_used_before_the_effect_was_left_is_meant(stage_of):
    stage = stage_of(view_names=ALL)
    use(stage, "Green", "scroll")
    stage.shut()
    stage.write("A", stage.scene.truth)
    stage.open()
    stage.panel.existing.click()
    stage.wait()
    assert taken(stage) == [1]


def test_not_if_it_has_nothing_to_take_or_is_gone(stage_of):
    stage = stage_of(view_names=ALL)
    use(stage, "Green", "scroll")
    stage.shut()
    stage.write("A", drawn(stage, "Yellow"))
    stage.scroll_to((9, 14, 6), "Green")  # nothing there
    stage.open()
    stage.panel.existing.click()
    stage.wait()
    assert taken(stage) == [0]
    use(stage, "Green", "scroll")
    slicer.app.layout = LayoutManager([stage.views["Red"], stage.views["Yellow"]])
    stage.python.layoutChanged()
    assert [node.GetName() for node in stage.python.views.nodes()] == ["Red", "Yellow"]
    stage.panel.existing.click()
    stage.wait()
    assert taken(stage) == [0]


def test_a_view_that_is_used_and_has_nothing_is_not_replaced(stage_of):
    """Another slice than the one looked at would be a surprise."""
    stage = painted(stage_of)
    stage.scroll_to((9, 14, 6), "Green")
    use(stage, "Green", "scroll")
    stage.panel.existing.click()
    assert taken(stage) == [] and "nothing on this slice" in stage.message


def test_a_new_layout_does_not_forget_the_view_in_use(stage_of):
    stage = stage_of(view_names=ALL)
    stage.write("A", stage.scene.truth)
    use(stage, "Yellow", "scroll")
    stage.python.layoutChanged()
    stage.panel.existing.click()
    stage.wait()
    assert taken(stage) == [0]


def test_without_a_segment_or_view_it_says_so(stage_of):
    stage = stage_of(view_names=ALL)
    stage.panel.existing.click()
    assert "nothing on this slice" in stage.message
    slicer.app.layout = LayoutManager([])
    stage.python.layoutChanged()
    stage.panel.existing.click()
    assert "no slice view" in stage.message


def confine(stage, *names):
    """Show the segmentation in these views only, as beside another study; choose the effect."""
    stage.shut()
    display = stage.scene.segmentation.GetDisplayNode()
    display.SetViewNodeIDs([stage.views[name].node.GetID() for name in names])
    stage.open()
    stage.wait()


def test_nothing_is_drawn_where_the_segmentation_is_not_shown(stage_of):
    stage = stage_of(view_names=ALL)
    stage.effect.setParameter("WeakBelow", 1.0)  # with a dashed outline
    confine(stage, "Red", "Green")
    stage.click()
    stage.wait()
    overlays = dict(zip(ALL, stage.python.views.overlays, strict=True))
    drawn = {n: (len(each.actors), each.dashes is not None) for n, each in overlays.items()}
    assert drawn == {"Red": (2, True), "Yellow": (0, False), "Green": (2, True)}
    display = stage.interaction.preview.node.GetDisplayNode()
    seen = [n for n in ALL if display.IsDisplayableInView(stage.views[n].node.GetID())]
    assert seen == ["Red", "Green"]
    confine(stage, *ALL)
    assert stage.actors() == 6
    stage.click((8, 7, 6))
    stage.wait()
    display = stage.interaction.preview.node.GetDisplayNode()
    assert all(display.IsDisplayableInView(view.node.GetID()) for view in stage.views.values())


def test_the_views_may_change_meanwhile(stage_of):
    """Slicer tells effects of it as of a new layout."""
    stage = stage_of(view_names=ALL)
    stage.click()
    stage.wait()
    assert stage.actors() == 6
    name = stage.views["Red"].node.GetID()
    stage.scene.segmentation.GetDisplayNode().SetViewNodeIDs([name])
    stage.python.layoutChanged()
    assert stage.actors() == 2
    assert stage.interaction.preview.node.GetDisplayNode().GetViewNodeIDs() == (name,)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationDisplayNode")
    stage.scene.segmentation.AddAndObserveDisplayNodeID(other.GetID())  # for all views
    stage.python.layoutChanged()
    assert stage.actors() == 6
    assert stage.interaction.preview.node.GetDisplayNode().GetViewNodeIDs() == ()


def test_an_effect_that_is_not_active_takes_no_view(stage_of):
    """A new layout is told to all effects of all editors."""
    stage = stage_of(view_names=ALL)
    stage.shut()
    stage.python.layoutChanged()
    assert stage.python.views.overlays == [] and stage.interaction.preview.node is None


def test_views_that_do_not_show_the_segmentation_stay_where_they_are(stage_of):
    stage = stage_of(view_names=ALL)
    other = stage.views["Yellow"]
    matrix = stage.views["Red"].node.GetSliceToRAS()
    other.node.GetSliceToRAS().DeepCopy(matrix)
    other.node.UpdateMatrices()
    confine(stage, "Red")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    before = [view.logic.GetSliceOffset() for view in (stage.view, other)]
    assert stage.python.jumpTo(3)
    after = [view.logic.GetSliceOffset() for view in (stage.view, other)]
    assert after[0] != before[0] and after[1] == before[1]
    stage.scroll_to((9, 7, 2), "Red")
    confine(stage, "Green")
    assert stage.python.views.earlier() == []
    assert stage.python.views.current() is stage.views["Green"].node
