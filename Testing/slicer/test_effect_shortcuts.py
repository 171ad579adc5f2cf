"""The keys of the main window where the effect is active in two editor widgets at once."""

import pytest
import slicer
from PySide6 import QtCore, QtTest, QtWidgets

pytestmark = pytest.mark.slicer


@pytest.fixture
def window(session, qt_application, monkeypatch):
    made = QtWidgets.QMainWindow()
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: made)
    made.show()
    made.activateWindow()
    QtWidgets.QApplication.processEvents()
    yield made
    made.close()


def press(window):
    QtTest.QTest.keyClick(window, QtCore.Qt.Key.Key_C)


def test_the_key_is_that_of_the_effect_that_was_chosen_last(window):
    """To Qt, two shortcuts of one key are ambiguous, and neither is told."""
    from SlideSAMEffect.shortcuts import Shortcuts

    told = []
    first, second = (Shortcuts({"C": lambda n=n: told.append(n)}) for n in (1, 2))
    first.enable()
    press(window)
    second.enable()
    press(window)
    second.disable()
    press(window)
    first.disable()
    press(window)
    assert told == [1, 2, 1]
