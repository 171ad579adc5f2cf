"""The globals that Slicer scripts rely on: slicer.app, slicer.mrmlScene, slicer.modules.

slicer-core gives the real MRML and VTK classes but none of these three. Only what the non-GUI half
of `slicer.util` and our own code ask for is made; everything else stays an AttributeError.
"""

from __future__ import annotations

import types
from typing import Any

import slicer
from SlideSAMBridge import offscreen


class _Module:
    """A loaded module, as far as its logic accessor."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


class _App:
    """The non-GUI calls of slicer.app that slicer.util makes on its own."""

    applicationName = "slicer-core"

    def __init__(self, app_logic: Any) -> None:
        self._app_logic = app_logic

    def applicationLogic(self) -> Any:
        return self._app_logic

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def testingEnabled(self) -> bool:
        return True  # message boxes are logged instead of being shown

    def processEvents(self) -> None:
        """There is no event loop to run."""

    def pauseRender(self) -> None:
        """There is no view that renders by itself."""

    def resumeRender(self) -> None:
        """There is no view that renders by itself."""

    def layoutManager(self) -> None:
        return None  # what Slicer answers without a main window


def start() -> offscreen.Session:
    """Make a scene with its logics and the three globals."""
    session = offscreen.start()
    slicer.mrmlScene = session.scene
    slicer.modules = types.SimpleNamespace(
        **{name.lower(): _Module(logic) for name, logic in session.logics.items()}
    )
    slicer.app = _App(session.app_logic)
    return session


def stop(session: offscreen.Session) -> None:
    """Clear the scene and drop the globals. Close the views before."""
    session.close()
    slicer.mrmlScene = None
    slicer.app = None
    slicer.modules = None
