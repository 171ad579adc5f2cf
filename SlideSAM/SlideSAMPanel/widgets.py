"""Small makers of widgets, so that the sections read like what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ctk
import qt


def section(layout: Any, title: str, name: str, collapsed: bool = False) -> Any:
    """A collapsible section at the end of a layout; returns the form layout inside."""
    button = ctk.ctkCollapsibleButton()
    button.text = title
    button.objectName = name
    button.collapsed = collapsed
    layout.addWidget(button)
    return qt.QFormLayout(button)


def button(text: str, tip: str, name: str, action: Callable[[], None]) -> Any:
    """A push button."""
    made = qt.QPushButton(text)
    made.setToolTip(tip)
    made.objectName = name
    made.connect("clicked()", action)
    return made


def label(name: str, text: str = "") -> Any:
    """A label for sentences, which can be copied."""
    made = qt.QLabel(text)
    made.objectName = name
    made.wordWrap = True
    made.textFormat = qt.Qt.PlainText  # names from a scene or a file may look like HTML
    made.textInteractionFlags = qt.Qt.TextSelectableByMouse
    return made


def row(widgets: Sequence[Any]) -> Any:
    """Widgets side by side, as a layout."""
    line = qt.QHBoxLayout()
    line.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        line.addWidget(widget)
    return line


def choice(values: Sequence[str], name: str, tip: str) -> Any:
    """A combo box whose data are these values."""
    box = qt.QComboBox()
    box.objectName = name
    box.setToolTip(tip)
    for value in values:
        box.addItem(value, value)
    return box


def select(box: Any, value: str) -> None:
    """Show a value of a `choice` without telling anybody."""
    with silent(box):
        box.setCurrentIndex(max(box.findData(value), 0))


@contextmanager
def silent(widget: Any) -> Iterator[None]:
    """While this lasts, the widget tells nobody what changes in it."""
    blocked = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(blocked)


def size_text(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return ""
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
