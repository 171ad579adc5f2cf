"""What the tests of the module's panel share."""

import time

from PySide6 import QtWidgets

from Testing.host.pythonqt_rules import qt


def find(panel, name):
    found = panel.parent.findChildren(QtWidgets.QWidget, name)
    assert len(found) == 1, name
    return found[0]


def wait(until, seconds=20):
    application = qt.QApplication.instance()
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it took too long"
        application.processEvents()
        time.sleep(0.002)
