"""What the tests of the module's panel share."""

import time

import numpy as np
from PySide6 import QtWidgets

from Testing.host.pythonqt_rules import qt


def find(panel, name):
    found = panel.parent.findChildren(QtWidgets.QWidget, name)
    assert len(found) == 1, name
    return found[0]


def names_the_button(panel):
    """What the status tells the user to press is what stands on the button."""
    button = find(panel, "SlideSAMInstall")
    assert f"press {button.text.removesuffix(' ...')} in" in panel.status.label.text


def wait(until, seconds=20):
    application = qt.QApplication.instance()
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it took too long"
        application.processEvents()
        time.sleep(0.002)


def exact(scene, name):
    """Whether a segment of `prompted` is the object, voxel by voxel."""
    found = np.rint(scene.found(scene.ids[name])).astype(int)
    return {tuple(v) for v in found.tolist()} == {
        tuple(v[::-1]) for v in np.argwhere(scene.truth).tolist()
    }
