"""The mouse pointer that Slicer gives to effects that make none."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui

ARROW = 21  # pixels, the width and the height of Slicer's picture of an arrow


def default_cursor(icon: Any) -> Any:
    """An arrow over the effect's icon, which is taken in the first size that it has.

    The icon is not made smaller, and gets a white frame. The hot spot is the tip of the arrow.
    """
    arrow = _arrow()
    if icon.isNull():
        return QtGui.QCursor(arrow, ARROW // 2, 0)
    picture = icon.pixmap(icon.availableSizes()[0])
    size = max(ARROW, picture.width(), ARROW + picture.height())
    whole = QtGui.QPixmap(size, size)
    whole.fill(QtCore.Qt.GlobalColor.transparent)
    left, top = size // 2 - picture.width() // 2, size - picture.height()
    painter = QtGui.QPainter(whole)
    painter.drawPixmap(size // 2 - ARROW // 2, 0, arrow)
    painter.drawPixmap(left, top, picture)
    painter.setPen(QtGui.QColor("white"))
    painter.drawRect(left, top, picture.width(), picture.height() - 1)
    painter.end()
    return QtGui.QCursor(whole, size // 2 - ARROW // 2 + 5, 2)


def _arrow() -> Any:
    """A stand-in for that picture: its tip is 5 pixels from the left and 2 from the top."""
    picture = QtGui.QPixmap(ARROW, ARROW)
    picture.fill(QtCore.Qt.GlobalColor.transparent)
    painter = QtGui.QPainter(picture)
    painter.setBrush(QtGui.QColor("white"))
    painter.drawPolygon([QtCore.QPoint(5, 2), QtCore.QPoint(5, 18), QtCore.QPoint(16, 13)])
    painter.end()
    return picture
