"""Widgets of CTK and MRML that module panels use, under the rules of PythonQt."""

from __future__ import annotations

import sys
import types
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .pythonqt_rules import PythonQtRules


class _CollapsibleButton(QtWidgets.QGroupBox):
    """A box with a title; collapsing hides what is inside."""

    def __init__(self, parent: Any = None) -> None:
        QtWidgets.QGroupBox.__init__(self, parent)
        self._collapsed = False

    def _text(self) -> str:
        return QtWidgets.QGroupBox.title(self)

    def _set_text(self, text: str) -> None:
        QtWidgets.QGroupBox.setTitle(self, text)

    def _is_collapsed(self) -> bool:
        return self._collapsed

    def _collapse(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        limit = 24 if collapsed else 16777215
        QtWidgets.QGroupBox.setMaximumHeight(self, limit)

    text = QtCore.Property(str, _text, _set_text)
    collapsed = QtCore.Property(bool, _is_collapsed, _collapse)


class _NodeComboBox(QtWidgets.QComboBox):
    """Nodes of a scene by name. The first node is chosen unless `noneEnabled`."""

    currentNodeChanged = QtCore.Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        QtWidgets.QComboBox.__init__(self, parent)
        self._types, self._none, self._scene, self._tags = [], False, None, []
        self._flags = {"addEnabled": True, "removeEnabled": True, "renameEnabled": False}
        self._node = None
        QtWidgets.QComboBox.activated.__get__(self).connect(self._picked)

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            for event in (
                slicer.vtkMRMLScene.NodeAddedEvent,
                slicer.vtkMRMLScene.NodeRemovedEvent,
                slicer.vtkMRMLScene.EndCloseEvent,
            ):
                self._tags.append(scene.AddObserver(event, lambda *_: self._fill()))
        self._fill()

    def currentNode(self) -> Any:
        return self._node

    def setCurrentNode(self, node: Any) -> None:
        if node is not self._node:
            self._node = node
            self._show()
            self.currentNodeChanged.emit(node is not None)

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        found = []
        for kind in self._types:
            found += [
                node
                for node in slicer.util.getNodesByClass(kind)
                if node.GetClassName() == kind and not node.GetHideFromEditors()
            ]
        return found

    def _fill(self) -> None:
        nodes = self._nodes()
        chosen = self._node if self._node in nodes else None
        if chosen is None and nodes and not self._none:
            chosen = nodes[0]
        changed, self._node = chosen is not self._node, chosen
        self._show()
        if changed:
            self.currentNodeChanged.emit(chosen is not None)

    def _show(self) -> None:
        blocked = QtWidgets.QComboBox.blockSignals(self, True)
        QtWidgets.QComboBox.clear(self)
        if self._none:
            QtWidgets.QComboBox.addItem(self, "None")
        nodes = self._nodes()
        for node in nodes:
            QtWidgets.QComboBox.addItem(self, node.GetName())
        place = nodes.index(self._node) if self._node in nodes else -1
        QtWidgets.QComboBox.setCurrentIndex(self, place + int(self._none))
        QtWidgets.QComboBox.blockSignals(self, blocked)

    def _picked(self, place: int) -> None:
        nodes = [None, *self._nodes()] if self._none else self._nodes()
        self.setCurrentNode(nodes[place])

    def _types_get(self) -> list:
        return self._types

    def _types_set(self, types_: list) -> None:
        self._types = list(types_)
        self._fill()

    def _none_get(self) -> bool:
        return self._none

    def _none_set(self, enabled: bool) -> None:
        self._none = enabled
        self._fill()

    def _flag(name: str) -> Any:
        return QtCore.Property(
            bool,
            lambda self: self._flags[name],
            lambda self, value: self._flags.__setitem__(name, value),
        )

    addEnabled, removeEnabled = _flag("addEnabled"), _flag("removeEnabled")
    renameEnabled = _flag("renameEnabled")
    nodeTypes = QtCore.Property("QStringList", _types_get, _types_set)
    noneEnabled = QtCore.Property(bool, _none_get, _none_set)


def install() -> None:
    """Put `ctk` and the MRML widgets where `import` finds them."""
    ctk = types.ModuleType("ctk")
    rules = {"_pythonqt_base": True}
    ctk.ctkCollapsibleButton = type(
        "ctkCollapsibleButton", (PythonQtRules, _CollapsibleButton), dict(rules)
    )
    sys.modules["ctk"] = ctk
    slicer.qMRMLNodeComboBox = type(
        "qMRMLNodeComboBox", (PythonQtRules, _NodeComboBox), dict(rules)
    )
