"""New code for effects that exist, for developers: Slicer itself reloads the module's file only.

An effect cannot be taken out of the factory, and every editor widget has a clone of it. So the
objects of Slicer stay, and each gets a new Python half made of the files as they are now.
"""

from __future__ import annotations

import logging
import sys
import weakref
from typing import Any

PACKAGES = (
    "SegmentEditorSlideSAMLib",
    "SlideSAMPanel",
    "SlideSAMEffect",
    "SlideSAMBridge",
    "SlideSAMLib",
)

effects: weakref.WeakSet = weakref.WeakSet()  # the Python halves that exist


def reload() -> None:
    """Give every Slide-SAM effect the code of the files as they are now.

    A job that runs is ended, and what was not applied is lost, since it is made of the old code;
    prompts are kept, as they are in the segments. An effect that was active is active again
    afterwards.
    """
    found = []
    for python in list(effects):
        try:
            adaptor, wasActive = python.scriptedEffect, python.isActive
            frame = adaptor.optionsFrame()
            source = sys.modules[type(python).__module__].__file__
            python.cleanup()
        except (ValueError, RuntimeError) as error:
            # Its editor widget is gone, and its own widgets with it: nothing is left to renew.
            logging.info("Slide-SAM: an effect without an editor was left out: %s", error)
            continue
        found.append((adaptor, frame, source.replace("\\", "/"), wasActive))
    _end_worker()
    for name in list(sys.modules):
        if name.split(".")[0] in PACKAGES:
            del sys.modules[name]
    for adaptor, frame, source, wasActive in found:
        _renew(adaptor, frame, source, wasActive)


def _end_worker() -> None:
    """Let its thread end and forget the model: new code gets a thread of its own."""
    from SlideSAMBridge.tasks import shelf, worker

    if worker._shared is not None:
        worker._shared.close()
    shelf.shared_shelf.__init__()


def _renew(adaptor: Any, frame: Any, source: str, wasActive: bool) -> None:
    if not adaptor.setPythonSource(source):
        logging.error("Slide-SAM: %s could not be loaded again; restart Slicer.", source)
        return
    if frame is None:
        return
    layout = frame.layout()
    if layout is None or layout.count() == 0:
        return  # the prototype of the factory, which is never shown
    while layout.count():
        _delete(layout.takeAt(0))
    python = adaptor.self()
    python.setupOptionsFrame()
    if adaptor.parameterSetNode() is not None:
        python.setMRMLDefaults()
    if wasActive:
        python.updateGUIFromMRML()
        python.activate()


def _delete(item: Any) -> None:
    """Delete a layout's item, with the widgets in it."""
    widget, layout = item.widget(), item.layout()
    if widget is not None:
        widget.hide()
        widget.deleteLater()
    if layout is not None:
        while layout.count():
            _delete(layout.takeAt(0))
