"""What a person sees of the effect before anything is marked: the mouse pointer and the panel."""

import pytest
from PySide6 import QtCore

from Testing.slicer.effect_stage import SAMPLE_EFFECT

pytestmark = pytest.mark.slicer
CROSS = QtCore.Qt.CursorShape.CrossCursor


def test_slicers_own_cursor_is_as_large_as_the_icon(stage_of, qt_application):
    """An arrow over the icon in its full size: the host paints what Slicer would paint."""
    from Testing.host.cursor import default_cursor

    stage = stage_of()
    cursor = default_cursor(stage.effect.icon())
    size, spot = cursor.pixmap().size(), cursor.hotSpot()
    assert (size.width(), size.height(), spot.x(), spot.y()) == (149, 149, 69, 2)


def test_the_cursor_is_a_cross_that_hides_nothing(stage_of):
    """A shape of the system has its hot spot in the middle of the cross and no picture."""
    stage = stage_of(view_names=("Red", "Yellow"))
    for view in stage.views.values():
        assert view.cursor.shape() == CROSS and view.cursor.pixmap().isNull()
    stage.shut()
    for view in stage.views.values():
        assert view.cursor.shape() == QtCore.Qt.CursorShape.ArrowCursor


def test_another_effect_has_its_own_cursor(stage_of):
    stage = stage_of()
    stage.editor.addEffect(SAMPLE_EFFECT)
    stage.editor.setActiveEffectByName("Sample box")
    assert stage.view.cursor.pixmap().width() == 21  # it has neither icon nor cursor: an arrow
    stage.open()
    assert stage.view.cursor.shape() == CROSS


def test_the_button_of_the_effect_is_as_large_as_any(stage_of, qt_application):
    """The icon is drawn in the size that buttons have for icons, not in its own."""
    from PySide6 import QtGui, QtWidgets

    button, other = QtWidgets.QToolButton(), QtWidgets.QToolButton()
    button.setIcon(stage_of().effect.icon())
    other.setIcon(QtGui.QIcon(QtGui.QPixmap(21, 21)))
    assert button.sizeHint() == other.sizeHint()


def widths(stage):
    """How wide the lines of the first view's marks are, in render window pixels."""
    actors = stage.python.views.overlays[0].actors
    return [actor.GetProperty().GetLineWidth() for actor in actors if not is_filled(actor)]


def is_filled(actor):
    return actor.GetMapper().GetInput().GetNumberOfPolys() > 0


def test_marks_are_drawn_for_the_screen_also_before_the_layout(stage_of, monkeypatch):
    """A new view has its size only later; what the screen is like is known at once."""
    from Testing.host.views import SliceView

    monkeypatch.setattr(SliceView, "laid_out", False)
    stage = stage_of(ratio=2)
    stage.drag((4, 4, 6), (12, 9, 6))
    assert widths(stage) == [4.0]


def test_marks_follow_the_window_to_another_screen(stage_of, monkeypatch):
    from Testing.host.views import SliceView

    stage = stage_of(ratio=1)
    stage.drag((4, 4, 6), (12, 9, 6))
    assert widths(stage) == [2.0]
    monkeypatch.setattr(SliceView, "pixel_ratio", 2.0)
    stage.python.redraw()
    assert widths(stage) == [4.0]


def test_the_panel_can_be_made_narrow_again(stage_of, qt_application):
    """What the strip has drawn must not keep the panel as wide as it was at any time."""
    from PySide6 import QtWidgets

    stage = stage_of()
    frame, strip = stage.effect.optionsFrame(), stage.panel.strip.label
    window = QtWidgets.QWidget()
    layout = QtWidgets.QVBoxLayout(window)
    layout.addWidget(frame)
    window.show()
    widths = []
    for wanted in (900, 380):
        window.resize(wanted, 700)
        qt_application.processEvents()
        widths.append(
            (window.width(), strip.width > wanted - 60, strip.pixmap.width() == strip.width)
        )
    frame.setParent(None)  # the stage goes on with it
    assert widths == [(900, True, True), (380, True, True)]
    assert strip.height == 64


def test_names_in_messages_that_look_like_html_are_shown_as_they_are(stage_of):
    message = stage_of().effect.self().panel.message
    assert message.textFormat == QtCore.Qt.TextFormat.PlainText
