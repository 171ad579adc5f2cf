"""The contract's traps about threads, timers and references; `test_contract` lists all traps."""

import gc
import sys
import threading
import time
import types

import numpy as np
import pytest
import vtk
from PySide6 import QtCore, QtWidgets

pytestmark = pytest.mark.slicer


def test_the_worker_touches_neither_scene_nor_widgets(session, gl, quick_model, request):
    """No call of VTK, MRML or Qt on the thread that predicts: any of them may end Slicer."""
    calls = []

    def look(frame, event, function):
        owner = getattr(function, "__self__", None) if event == "c_call" else None
        if isinstance(owner, (vtk.vtkObjectBase, QtCore.QObject)):
            calls.append(repr(function))

    threading.setprofile(look)  # of threads that start from now on
    try:
        stage = request.getfixturevalue("stage_of")()
        stage.click()
        stage.wait()
        stage.panel.segment.click()
        stage.wait()
        stage.click((6, 5, 6))
        stage.wait()
        stage.panel.clear.click()
        assert np.array_equal(stage.mask(), stage.scene.truth) and calls == []
        node = stage.editor.node
        stage.interaction.jobs.worker.submit("test", lambda job: node.GetID())
        stage.wait(lambda: calls)
    finally:
        threading.setprofile(None)


def test_a_starved_worker_gets_on(stage_of, quick_model):
    """Slicer's idle loop keeps Python's lock: other threads run only where somebody waits."""
    stage = stage_of()
    quick_model.delay = 0.002
    stage.click()
    stage.wait()
    # Calls of Qt give the lock away for a moment; there are none while Slicer is idle.
    stage.interaction.on_change = lambda: None
    timer, pump = stage.python.pump._timer, stage.python.pump
    pump._timer = types.SimpleNamespace(isActive=lambda: True, stop=lambda: None)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody has to give the lock away
    try:
        stage.interaction.segment()
        end, before = time.monotonic() + 0.2, quick_model.predictions
        while time.monotonic() < end:
            pass  # an event loop without our timer
        starved = quick_model.predictions - before
        for _ in range(200):
            pump._tick()
    finally:
        sys.setswitchinterval(interval)
        pump._timer = timer
    assert starved <= 1
    assert stage.interaction.jobs.job is None
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_looking_is_not_reentrant(stage_of, quick_model):
    """While results are taken in, messages and scene events may ask for more of them."""
    stage = stage_of()
    stage.click()
    stage.wait()
    interaction = stage.interaction
    original, depth = interaction.on_change, []

    def on_change():
        depth.append(len(depth))
        interaction.poll(0.0)
        QtWidgets.QApplication.processEvents()
        original()
        depth.pop()
        assert len(depth) < 3

    interaction.on_change = on_change
    quick_model.delay = 0.2
    stage.key("Return")
    job = interaction.jobs.job
    stage.key("Return")  # a second one while it slides
    quick_model.delay = 0
    while not job.finished:  # all of its results are waiting now
        time.sleep(0.002)
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    stage.editor.logic.Undo()
    assert not stage.mask().any() and not stage.editor.logic.CanUndo()


def test_timers_and_shortcuts_are_held(stage_of, qt_application):
    """Objects without a parent die with their last reference."""
    from Testing.host.pythonqt_rules import qt

    window = qt.QMainWindow()
    window.objectName = "qSlicerMainWindow"
    stage = stage_of()
    gc.collect()
    stage.click()
    gc.collect()
    stage.wait()  # by the timer
    first = stage.preview()
    assert first.any()
    shortcuts = {s.key.toString(): s for s in window.findChildren(qt.QShortcut)}
    shortcuts["X"].activated.emit()
    assert "no result yet" in stage.message
    stage.shut()
    window.deleteLater()
    QtWidgets.QApplication.sendPostedEvents(None, 52)  # deferred deletes: not in another test


def test_the_timer_of_the_effect_belongs_to_its_frame(stage_of):
    """Else it goes with its wrapper, which the worker may do: it collects garbage, too."""
    stage = stage_of()
    assert stage.effect.optionsFrame().findChildren(QtCore.QTimer) == [stage.python.pump._timer]


def test_the_timers_of_the_panel_belong_to_it(panel):
    for section in (panel.batch, panel.models):
        assert section.ticker._timer in panel.parent.findChildren(QtCore.QTimer)
