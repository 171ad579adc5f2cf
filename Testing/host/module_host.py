"""Scripted modules without the application: base classes, i18n, and the loading of a module file.

Own stand-ins with the behaviour that our module relies on; what Slicer's loader refuses (unknown
properties of the module object) is refused here too.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import slicer

from . import i18n
from .pythonqt_rules import qt

UNLOADED = "moduleAboutToBeUnloaded(QString)"


class ScriptedLoadableModule:
    """Fills in the module object that the loader hands over and registers the self-test."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        icons = Path(parent.path).parent / "Resources" / "Icons"
        found = [
            p for p in (icons / f"{self.moduleName}{e}" for e in (".svg", ".png")) if p.exists()
        ]
        if found:
            parent.icon = str(found[0])  # a QIcon of this file in Slicer
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        test = getattr(sys.modules[self.__module__], self.moduleName + "Test")()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The panel of a module; `parent` is a widget with a layout.

    Without one a window is made, and set up and shown at once.
    """

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        if parent is None:
            self.parent = qt.QWidget()
            self.parent.setLayout(qt.QVBoxLayout())
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect(UNLOADED, self._onModuleAboutToBeUnloaded)

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        """At the end of the application, also for a panel that was cleaned up and is gone."""
        if name == self.moduleName:
            self.cleanup()

    def setup(self) -> None:
        """Slicer adds its developer section here; there is none."""

    def cleanup(self) -> None:
        """Called before the module is unloaded."""

    def onReload(self) -> None:
        """The button of the developer section: the module's file is executed again, and only then
        the panel of before is cleaned up."""
        path = Path(sys.modules[type(self).__module__].__file__)
        self.reloaded = load(path)[0]
        self.cleanup()
        slicer.app.moduleManager().disconnect(UNLOADED, self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """The base of module logics; takes an optional parent as in Slicer."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The base of self-tests; `runTest` is what Slicer's runner calls."""

    def delayDisplay(self, message: str, requestedDelay: Any = None, msec: Any = None) -> None:
        logging.info(message)

    def runTest(self) -> None:
        logging.warning("No test is defined in %s", type(self).__name__)


class ModuleObject:
    """What Slicer passes to a module's constructor; it knows these properties and no others."""

    _PROPERTIES = (
        "title",
        "categories",
        "dependencies",
        "contributors",
        "helpText",
        "acknowledgementText",
        "icon",
        "hidden",
        "path",
    )

    def __init__(self, path: str) -> None:
        self.path = path

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._PROPERTIES:
            raise AttributeError(f"'{name}' does not exist on qSlicerScriptedLoadableModule")
        super().__setattr__(name, value)


def install() -> None:
    """Put slicer.ScriptedLoadableModule and slicer.i18n where `import` finds them."""
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for part in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, part.__name__, part)
    base.__all__ = [name for name in vars(base) if name.startswith("Scripted")]
    sys.modules["slicer.ScriptedLoadableModule"] = slicer.ScriptedLoadableModule = base
    i18n.install()


def load(path: Path) -> tuple[types.ModuleType, Any]:
    """Load a module file as Slicer does: (Python module, instance of the module class).

    Its folder goes on the path, the file is executed under its stem, and the class of the same
    name is called with the module object.
    """
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module, getattr(module, path.stem)(ModuleObject(str(path)))
