"""The globals that Slicer scripts rely on: slicer.app, slicer.mrmlScene, slicer.modules.

slicer-core gives the real MRML and VTK classes but none of these three. Only what the non-GUI half
of `slicer.util` and our own code ask for is made; everything else stays an AttributeError.
"""

from __future__ import annotations

import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, ClassVar

import slicer
from SlideSAMBridge.pictures import offscreen


class _Module:
    """A loaded module, as far as its logic accessor."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


class _Settings:
    """Stands in for the application's QSettings on an .ini file, which keeps text."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def value(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def setValue(self, key: str, value: Any) -> None:
        self._values[key] = str(value)

    def remove(self, key: str) -> None:
        self._values.pop(key, None)


class _ModuleManager:
    """Tells panels that their module is about to be unloaded; all are, when Slicer ends."""

    def __init__(self) -> None:
        self._told: list[Callable[[str], None]] = []

    def connect(self, signal: str, function: Callable[[str], None]) -> bool:
        self._told.append(function)
        return True

    def disconnect(self, signal: str, function: Callable[[str], None]) -> bool:
        self._told.remove(function)
        return True

    def unload(self, name: str) -> None:
        """Exceptions are printed, as of every slot."""
        from . import pythonqt_rules

        for function in list(self._told):
            try:
                function(name)
            except Exception:
                pythonqt_rules.complain(traceback.format_exc())


class _App:
    """The non-GUI calls of slicer.app that slicer.util makes on its own."""

    applicationName = "slicer-core"

    # Shared by all sessions: modules are loaded once, before or after the first one.
    _at_startup: ClassVar[list[Callable[[], None]]] = []

    def __init__(self, app_logic: Any) -> None:
        self._app_logic = app_logic
        self.testing = True
        self._settings = _Settings()
        self._modules = _ModuleManager()
        self.layout: Any = None  # what Slicer answers without a main window

    def applicationLogic(self) -> Any:
        return self._app_logic

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def testingEnabled(self) -> bool:
        return self.testing  # message boxes are logged instead of being shown

    def processEvents(self) -> None:
        """There is no event loop to run."""

    def pauseRender(self) -> None:
        """There is no view that renders by itself."""

    def resumeRender(self) -> None:
        """There is no view that renders by itself."""

    def connect(self, signal: str, function: Callable[[], None]) -> bool:
        """The one signal that modules wait for."""
        if signal != "startupCompleted()":
            print(f"QObject::connect() signal '{signal}' does not exist", file=sys.stderr)
            return False
        self._at_startup.append(function)
        return True

    def startup(self) -> None:
        """Emit startupCompleted(), as Slicer does once; exceptions are printed."""
        waiting, self._at_startup[:] = list(self._at_startup), []
        for function in waiting:
            try:
                function()
            except Exception:
                traceback.print_exc()

    def topLevelWidgets(self) -> list[Any]:
        """Where slicer.util.mainWindow() looks for the main window, if a test has made one."""
        from PySide6 import QtWidgets

        return QtWidgets.QApplication.topLevelWidgets()

    def moduleManager(self) -> Any:
        return self._modules

    def layoutManager(self) -> Any:
        return self.layout

    def userSettings(self) -> Any:
        return self._settings


def install() -> None:
    """Give slicer.app to module files that are loaded before there is a scene."""
    if not hasattr(slicer, "app"):
        slicer.app = _App(None)


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
    slicer.app = _App(None)
    slicer.modules = None
