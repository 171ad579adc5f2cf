"""How sure the model is of each slice: the strip, dimmed slices, dashed outlines."""

import numpy as np
import pytest
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from Testing.host.pythonqt_host import SliceWidget
from Testing.slicer import scenes

pytestmark = pytest.mark.slicer


def test_strip_shows_the_slices_and_jumps(stage_of):
    from PySide6 import QtCore, QtTest

    stage = stage_of()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    state = stage.panel.strip.state
    assert (state.low, state.high, state.current) == (0, 11, 6)
    assert sorted(state.confidence) == list(range(3, 9)) and state.prompted == {6}
    label = stage.panel.strip.label
    x = 4 + round((label.width - 8) * 3.5 / 12)
    QtTest.QTest.mouseClick(label, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, QtCore.QPoint(x, 20))
    assert stage.panel.strip.state.current == 3
    weakest = stage.interaction.work.weakest
    stage.panel.weakest.click()
    assert stage.panel.strip.state.current == weakest != 6


def long_strip(width, current=None):
    """A strip of a thousand slices of which one is weak, and what would be painted."""
    from SlideSAMEffect import strip

    confidence = dict.fromkeys(range(1000), 0.9) | {500: 0.2}
    made = strip.ConfidenceStrip(lambda index: None, "")
    made.label.resize(width, 64)
    made.show(strip.StripState(0, 999, confidence, frozenset({7}), current))
    return made


def test_a_weak_slice_shows_among_many_in_a_narrow_strip(qt_application):
    strip = long_strip(300)
    image = strip.label.pixmap.toImage()
    colors = {image.pixelColor(x, 54).getRgb()[:3] for x in range(4, 296)}
    assert colors == {(86, 180, 120), (230, 150, 50)}
    painted = []

    class Painter:
        def fillRect(self, *arguments):
            painted.append(arguments)

    strip._draw_bars(Painter())
    assert 292 <= len(painted) <= 294  # a bar for each pixel, not for each slice, and two lines
    strip.close()


def test_bars_are_not_painted_anew_while_somebody_scrolls(qt_application, monkeypatch):
    from dataclasses import replace

    from SlideSAMEffect.strip import ConfidenceStrip

    painted, original = [], ConfidenceStrip._draw_bars

    def counted(self, painter):
        painted.append(1)
        original(self, painter)

    monkeypatch.setattr(ConfidenceStrip, "_draw_bars", counted)
    strip = long_strip(300, current=3)
    painted.clear()
    white = (250, 250, 250)
    for current, x in ((3, 4), (999, 295)):
        strip.show(replace(strip.state, current=current))
        image = strip.label.pixmap.toImage()
        line = [n for n in range(300) if image.pixelColor(n, 1).getRgb()[:3] == white]
        assert line == [x, x + 1]
    assert painted == []
    strip.show(replace(strip.state, weak_below=0.95))
    assert painted == [1]
    strip.close()


def test_weak_slices_are_dimmed(stage_of):
    stage = stage_of()
    stage.effect.setParameter("AutoApply", 0)
    stage.effect.setParameter("WeakBelow", 1)
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    values = stage.interaction.work.slices.values()
    assert all(confidence < 1 for _, confidence in values)
    node = stage.interaction.preview.node
    display = node.GetDisplayNode()
    assert display.GetSegmentOpacity2DFill("weak") < display.GetSegmentOpacity2DFill("sure")
    # Slicer's outline would fill the gaps of the dashed one that the overlays draw.
    assert display.GetSegmentOpacity2DOutline("weak") == 0
    shown = stage.scene.of(node)
    assert np.array_equal(shown.mask("weak"), stage.scene.truth) and not shown.mask("sure").any()


def weak_stage(stage_of, **options):
    stage = stage_of(view_names=("Red", "Yellow", "Green"), **options)
    stage.effect.setParameter("AutoApply", 0)
    stage.effect.setParameter("WeakBelow", 1)
    stage.empty = stage.props()
    stage.drag((4, 3, 6), (17, 12, 6), "Red")
    stage.wait()
    return stage


def dashes(stage, view="Red"):
    """The middles of the pieces of the dashed outline, in mm (RAS): (N, 3), or None."""
    actor = stage.python.views.overlay(SliceWidget(stage.views[view])).dashes
    if actor is None:
        return None
    view = stage.views[view]
    assert view.renderer.HasViewProp(actor)
    data = actor.GetMapper().GetInput()
    xy = vtk_to_numpy(data.GetPoints().GetData()).reshape(-1, 2, 3).mean(axis=1)
    xy_to_ras = slicer.util.arrayFromVTKMatrix(view.node.GetXYToRAS())
    return (np.c_[xy[:, :2], np.zeros(len(xy)), np.ones(len(xy))] @ xy_to_ras.T)[:, :3]


def test_dashes_that_are_there_are_not_worked_out_for_every_finished_slice(stage_of, monkeypatch):
    from SlideSAMBridge.drawing import dashes as pieces

    stage = weak_stage(stage_of)
    calls, original = [], pieces.dashes

    def counted(*arguments):
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(pieces, "dashes", counted)
    before, kept = dashes(stage, "Yellow"), stage.interaction.work.shown()
    sure = np.zeros((16, 20), bool)
    sure[1:3, 1:4] = True
    preview, source = stage.interaction.preview, stage.interaction.work.source
    for index in (0, 10):  # as a slide that finds slices it is sure of
        kept[index] = (sure, 1.0)
        preview.show(stage.scene.segmentation, source.part, 2, kept, preview.color, 1.0)
        stage.python.onChange()
    assert calls == [] and np.allclose(dashes(stage, "Yellow"), before)
    x, y, z = stage.views["Yellow"].node.GetFieldOfView()
    stage.views["Yellow"].node.SetFieldOfView(x / 2, y / 2, z)
    assert calls and len(dashes(stage, "Yellow")) > len(before)


def around(stage, ras, truth=None):
    """Whether every position lies between a voxel of the object's edge and one outside it.

    truth : the object where it is not the whole one: bool (K, J, I).
    """
    to_world = scenes.to_world(stage.scene.volume) @ stage.scene.ijk_to_ras
    ijk = (np.c_[ras, np.ones(len(ras))] @ np.linalg.inv(to_world).T)[:, :3]
    truth = np.pad(stage.scene.truth if truth is None else truth, 1)
    across = int(np.argmin(np.ptp(ijk, axis=0)))  # the view's slice is the same for all
    for position in ijk:
        place = [slice(int(v // 1) + 1, int(v // 1) + 3) for v in position]
        place[across] = round(position[across]) + 1
        near = truth[tuple(place[::-1])]  # (i, j, k) to (K, J, I)
        if near.all() or not near.any():
            return False
    return True


@pytest.mark.parametrize("transforms", [(), ("volume", "segmentation")])
def test_weak_slices_have_a_dashed_outline(stage_of, transforms):
    """On their slice, and where other views cut it, in place after zoom and scroll."""
    stage = weak_stage(stage_of, transforms=transforms)
    first = dashes(stage)
    assert len(first) > 8 and around(stage, first)
    window = np.zeros_like(stage.scene.truth)
    window[5:8] = stage.scene.truth[5:8]
    for name in ("Yellow", "Green"):
        assert around(stage, dashes(stage, name), window)
    red = stage.views["Red"]
    fov = red.node.GetFieldOfView()
    red.node.SetFieldOfView(fov[0] / 2, fov[1] / 2, fov[2])
    assert len(dashes(stage)) > 1.5 * len(first)  # of the same length on the screen
    assert around(stage, dashes(stage))
    stage.scroll_to((9, 7, 5), "Red")
    assert around(stage, dashes(stage))
    stage.scroll_to((9, 7, 8), "Red")  # no preview here
    assert dashes(stage) is None
    stage.scroll_to((9, 7, 40), "Red")  # nor beyond the volume
    stage.scroll_to((40, 40, 6), "Yellow")
    assert dashes(stage) is None and dashes(stage, "Yellow") is None
    stage.scroll_to((9, 7, 6), "Red")
    assert dashes(stage) is not None
    stage.panel.clear.click()
    assert stage.props() == stage.empty


def test_dashes_go_with_the_preview(stage_of):
    stage = weak_stage(stage_of)
    stage.panel.segment.click()
    stage.wait()
    assert around(stage, dashes(stage))
    stage.panel.apply.click()
    assert dashes(stage) is None
    stage.panel.discard.click()
    stage.drag((4, 3, 6), (17, 12, 6), "Red")
    stage.wait()
    assert dashes(stage) is not None
    stage.effect.setParameter("WeakBelow", 0)
    stage.drag((5, 3, 6), (17, 12, 6), "Red")
    stage.wait()
    assert stage.interaction.preview.shown and dashes(stage) is None  # sure of it
    stage.effect.setParameter("WeakBelow", 1)
    stage.drag((4, 3, 6), (17, 12, 6), "Red")
    stage.wait()
    assert dashes(stage) is not None
    stage.shut()
    assert stage.props() == stage.empty
