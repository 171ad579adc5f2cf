"""A thin host that runs Segment Editor effect files without Slicer.

`install` puts the stand-in modules where `import` finds them. `Editor` loads an effect file by the
rules of setPythonSource, observes the views with Slicer's priority and turns `return True` into an
abort flag.
"""

from __future__ import annotations

import sys
import traceback
import types
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtGui

from . import effect_factory, headless, module_host, panel_widgets, pythonqt_rules
from .effect_factory import load_effect
from .scripted_effect import AbstractScriptedSegmentEditorEffect, ScriptedEffect, SliceWidget


def install() -> Any:
    """Put all stand-in modules where `import` finds them; returns the QApplication."""
    app = pythonqt_rules.install()
    module_host.install()
    headless.install()
    panel_widgets.install()
    effects = types.ModuleType("SegmentEditorEffects")
    effects.AbstractScriptedSegmentEditorEffect = AbstractScriptedSegmentEditorEffect
    effects.__all__ = ["AbstractScriptedSegmentEditorEffect"]
    sys.modules["SegmentEditorEffects"] = effects
    slicer.qSlicerSegmentEditorAbstractEffect = ScriptedEffect
    slicer.qMRMLSegmentEditorWidget = EditorWidget
    effect_factory.install(ScriptedEffect)
    return app


class Editor:
    """What qMRMLSegmentEditorWidget does for effects: loads, activates and feeds them."""

    # The names that Slicer looks up, once, on the new Python object.
    API = (
        "icon",
        "helpText",
        "clone",
        "activate",
        "deactivate",
        "setupOptionsFrame",
        "createCursor",
        "processInteractionEvents",
        "processViewNodeEvents",
        "setMRMLDefaults",
        "referenceGeometryChanged",
        "sourceVolumeNodeChanged",
        "masterVolumeNodeChanged",
        "layoutChanged",
        "interactionNodeModified",
        "updateGUIFromMRML",
        "updateMRMLFromGUI",
        "cleanup",
    )
    EVENTS = (
        "LeftButtonPressEvent",
        "LeftButtonReleaseEvent",
        "LeftButtonDoubleClickEvent",
        "RightButtonPressEvent",
        "RightButtonReleaseEvent",
        "RightButtonDoubleClickEvent",
        "MiddleButtonPressEvent",
        "MiddleButtonReleaseEvent",
        "MiddleButtonDoubleClickEvent",
        "MouseMoveEvent",
        "MouseWheelForwardEvent",
        "MouseWheelBackwardEvent",
        "MouseWheelLeftEvent",
        "MouseWheelRightEvent",
        "KeyPressEvent",
        "KeyReleaseEvent",
        "EnterEvent",
        "LeaveEvent",
    )

    def __init__(
        self, session: Any, segmentationNode: Any, volumeNode: Any, views: list, node: Any = None
    ) -> None:
        self.node = node or session.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLApplicationLogic(session.app_logic)
        self.logic.SetMRMLScene(session.scene)
        self.logic.SetSegmentEditorNode(self.node)
        self.node.SetAndObserveSegmentationNode(segmentationNode)
        self.node.SetAndObserveSourceVolumeNode(volumeNode)
        self.views = list(views)
        self.effects: dict[str, ScriptedEffect] = {}
        self.active: ScriptedEffect | None = None
        self.errors: list[str] = []
        self.dialogs = 0  # how many modal dialogs would have been shown
        self._tags: list[tuple[Any, int]] = []
        self._shown = self._selection()
        self._own_tags = self._observe_node()

    def _observe_node(self) -> list[int]:
        return [
            self.node.AddObserver(self.node.EffectParameterModified, lambda *_: self._update_gui()),
            self.node.AddObserver("ModifiedEvent", lambda *_: self._on_node()),
        ]

    def addEffect(self, path: Path) -> ScriptedEffect:
        """Load an effect file as setPythonSource does.

        Module name = folder name, class name = file name; a class that is already in sys.modules
        wins, otherwise the file (not a package) becomes that module.
        """
        effect = load_effect(ScriptedEffect(self), path)
        return self._take(effect)

    def cloneEffect(self, prototype: ScriptedEffect) -> ScriptedEffect:
        """What an editor widget does with every registered effect: a clone of its own."""
        effect = prototype.self().clone()
        effect.__dict__["_editor"] = self
        return self._take(effect)

    def _take(self, effect: ScriptedEffect) -> ScriptedEffect:
        effect._look_up(self.API)
        self.effects[effect.name] = effect
        self._call(effect, "setMRMLDefaults")
        self._call(effect, "setupOptionsFrame")
        effect._frame.setVisible(False)
        return effect

    def _selection(self) -> tuple:
        node = self.node
        return (node.GetSegmentationNode(), node.GetSourceVolumeNode())

    def _on_node(self) -> None:
        """The node changed: what a widget does when segmentation, volume or segment are others."""
        before, self._shown = self._shown, self._selection()
        segmentation = self._shown[0]
        if self.active is not None and (
            segmentation is None
            or (self.active.perSegment and not self.node.GetSelectedSegmentID())
        ):
            self.setActiveEffectByName("")
        if self._shown[1] is not before[1]:
            for effect in self.effects.values():
                self._call(effect, "sourceVolumeNodeChanged")

    def _call(self, effect: ScriptedEffect, method: str, *args: Any) -> Any:
        function = effect._methods.get(method)
        if function is None:
            return None
        try:
            return function(*args)
        except Exception:  # printed and swallowed, as in Slicer; tests look at `errors`
            self.errors.append(traceback.format_exc())
            traceback.print_exc()
            return None

    def setParameterNode(self, node: Any) -> None:
        """Another editor node, as after closing a scene: all effects get their defaults anew."""
        self.setActiveEffectByName("")
        for tag in self._own_tags:
            self.node.RemoveObserver(tag)
        self.node = node
        self.logic.SetSegmentEditorNode(node)
        self._shown = self._selection()
        self._own_tags = self._observe_node()
        for effect in self.effects.values():
            self._call(effect, "setMRMLDefaults")

    def setPlaceMode(self, on: bool) -> None:
        """Markups are placed with the mouse: by default that ends the effect."""
        if self.active is None:
            return
        if "interactionNodeModified" in self.active._methods:
            self._call(self.active, "interactionNodeModified", None)
        elif on:
            self.setActiveEffectByName("")

    def _update_gui(self) -> None:
        for effect in self.effects.values():
            if effect._active:
                self._call(effect, "updateGUIFromMRML")

    def setActiveEffectByName(self, name: str) -> None:
        """Switch effects in Slicer's order; "" switches off."""
        old, new = self.active, self.effects.get(name)
        if old is new:
            return
        if old is not None:
            old._frame.setVisible(False)
            old._active = False
            self._call(old, "deactivate")
            for observed, tag in self._tags:
                observed.RemoveObserver(tag)
            self._tags = []
        self.node.SetActiveEffectName("" if new is None else new.name)
        if new is not None:
            for view in self.views:  # of the others nothing is heard
                if self.logic.IsSegmentationDisplayableInView(view.node):
                    self._observe(view)
            new._frame.setVisible(True)
            new._active = True
            self._call(new, "updateGUIFromMRML")  # before activate()
            self._call(new, "activate")
        self._set_cursors(new)
        self.active = new

    def _set_cursors(self, effect: ScriptedEffect | None) -> None:
        """In the slice views; Slicer asks every view of the layout, after activate()."""
        for widget in (SliceWidget(view) for view in self.views if not view.closed):
            cursor = QtGui.QCursor()
            if effect is not None and effect.showEffectCursorInSliceView:
                cursor = effect.createCursor(widget)
                if not isinstance(cursor, QtGui.QCursor):
                    self.errors.append("createCursor is expected to return a QCursor")
            widget.sliceView().setViewCursor(cursor)

    def _observe(self, view: Any) -> None:
        interactor = view.interactor
        tags: dict[str, int] = {}

        def on_event(caller: Any, event: str) -> None:
            if self.active is None:
                return
            event_id = vtk.vtkCommand.GetEventIdFromString(event)
            widget = SliceWidget(view)  # a new wrapper each time, as PythonQt makes them
            result = self._call(self.active, "processInteractionEvents", caller, event_id, widget)
            if result is not None and type(result) is not bool:
                self.errors.append("processInteractionEvents is expected to return a boolean")
            if result is True:
                caller.GetCommand(tags[event]).SetAbortFlag(1)

        def on_view_node(caller: Any, event: str) -> None:
            if self.active is not None:
                modified = vtk.vtkCommand.ModifiedEvent
                widget = SliceWidget(view)
                self._call(self.active, "processViewNodeEvents", caller, modified, widget)

        for event in self.EVENTS:
            tags[event] = interactor.AddObserver(event, on_event, 1.0)
            self._tags.append((interactor, tags[event]))
        node = view.node
        self._tags.append((node, node.AddObserver("ModifiedEvent", on_view_node, 1.0)))

    def close(self) -> None:
        self.setActiveEffectByName("")
        for effect in self.effects.values():
            self._call(effect, "cleanup")
        for tag in self._own_tags:
            self.node.RemoveObserver(tag)


class EditorWidget:
    """slicer.qMRMLSegmentEditorWidget for scripts: an Editor with clones of what is registered."""

    def __init__(self) -> None:
        self._node: Any = None
        self._editor: Editor | None = None

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node

    def setMRMLScene(self, scene: Any) -> None:
        if self._node is None:
            raise RuntimeError("invalid parameter set node")  # logged in Slicer, and nothing works
        session = types.SimpleNamespace(scene=scene, app_logic=slicer.app.applicationLogic())
        self._editor = Editor(session, None, None, [], self._node)
        self._editor.logic.SetMaximumNumberOfUndoStates(5)
        for prototype in slicer.qSlicerSegmentEditorEffectFactory.instance().prototypes.values():
            self._editor.cloneEffect(prototype)

    def setSegmentationNode(self, node: Any) -> None:
        self._node.SetAndObserveSegmentationNode(node)

    def segmentationNode(self) -> Any:
        return self._node.GetSegmentationNode()

    def setSourceVolumeNode(self, node: Any) -> None:
        self._node.SetAndObserveSourceVolumeNode(node)

    def setCurrentSegmentID(self, segmentId: str) -> None:
        self._node.SetSelectedSegmentID(segmentId)

    def setActiveEffectByName(self, name: str) -> None:
        self._editor.setActiveEffectByName(name)

    def activeEffect(self) -> ScriptedEffect | None:
        return self._editor.active

    def effectByName(self, name: str) -> ScriptedEffect | None:
        return self._editor.effects.get(name)

    def saveStateForUndo(self) -> None:
        self._editor.logic.SaveStateForUndo()

    def undo(self) -> None:
        self._editor.logic.Undo()

    def redo(self) -> None:
        self._editor.logic.Redo()
