"""What a Segment Editor effect is given: its C++ object, its base class, and slice widgets.

Every edit goes to the real vtkSlicerSegmentEditorLogic. What Slicer refuses is refused here.
"""

from __future__ import annotations

import traceback
from typing import Any

import slicer
from PySide6 import QtGui

from .cursor import default_cursor
from .pythonqt_rules import complain, qt


class _SliceView:
    """What sliceView() of a slice widget gives: the part that draws."""

    def __init__(self, view: Any) -> None:
        self._view = view

    @property
    def width(self) -> int:
        """In Qt pixels: half the render window's on a screen of double density.

        Until Qt has laid out a new view it is the width that every widget starts with.
        """
        if not self._view.laid_out:
            return 640
        return round(self._view.window.GetSize()[0] / self._view.pixel_ratio)

    def devicePixelRatioF(self) -> float:
        """Of the screen that the view is on, which may become another one."""
        return self._view.pixel_ratio

    def scheduleRender(self) -> None:
        """Nothing is shown, so nothing has to be drawn soon."""

    def forceRender(self) -> None:
        self._view.window.Render()

    def renderWindow(self) -> Any:
        return self._view.window

    def setViewCursor(self, cursor: Any) -> None:
        self._view.cursor = cursor


class SliceWidget:
    """What an effect may ask of a qMRMLSliceWidget; wraps views.SliceView.

    Wrappers are not unique objects, but compare and hash by what they wrap. Once the view is
    closed every call is an error, as PythonQt has it for destroyed widgets.
    """

    def __init__(self, view: Any) -> None:
        self._view = view

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SliceWidget) and other._view is self._view

    def __hash__(self) -> int:
        return hash(id(self._view))

    def _alive(self) -> Any:
        if self._view.closed:
            raise ValueError("Trying to call a method of a destroyed qMRMLSliceWidget object")
        return self._view

    def className(self) -> str:
        self._alive()
        return "qMRMLSliceWidget"

    def sliceLogic(self) -> Any:
        return self._alive().logic

    def mrmlSliceNode(self) -> Any:
        return self._alive().node

    def sliceView(self) -> _SliceView:
        return _SliceView(self._alive())


class LayoutManager:
    """What an effect may ask of slicer.app.layoutManager(); None without a main window."""

    def __init__(self, views: list) -> None:
        self._views = list(views)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(view.node.GetName() for view in self._views)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        found = [view for view in self._views if view.node.GetName() == name]
        return SliceWidget(found[0]) if found else None


class ScriptedEffect:
    """The C++ side of an effect: parameters, options, images, edits, actors."""

    ModificationModeSet = 0
    ModificationModeAdd = 1
    ModificationModeRemove = 2
    ModificationModeRemoveAll = 3
    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = range(3)
    # `scriptedEffect.name = ...` is a Qt property; anything else is refused.
    _PROPERTIES = (
        "name",
        "title",
        "perSegment",
        "requireSegments",
        "showEffectCursorInSliceView",
        "showEffectCursorInThreeDView",
    )

    def __init__(self, editor: Any) -> None:
        self.__dict__.update(
            name="",
            title="",
            perSegment=True,
            requireSegments=True,
            showEffectCursorInSliceView=True,
            showEffectCursorInThreeDView=False,
            _editor=editor,
            _frame=qt.QFrame(),
            _self=None,
            _api=(),
            _active=False,
        )
        qt.QFormLayout(self._frame)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self._PROPERTIES:
            raise AttributeError(f"'{name}' does not exist on qSlicerSegmentEditorScriptedEffect")
        self.__dict__[name] = value

    def self(self) -> Any:
        return self._self

    def setPythonSource(self, path: str) -> bool:
        """A new Python half; Slicer looks its methods up then, and only then."""
        from .effect_factory import load_effect

        try:
            load_effect(self, path)
        except Exception:  # printed, and told by the result, as in Slicer
            traceback.print_exc()
            return False
        if self._api:
            self._look_up(self._api)
        return True

    def _look_up(self, names: Any) -> None:
        self._api = names
        self._methods = {n: getattr(self._self, n) for n in names if hasattr(self._self, n)}

    # Parameters: strings in node attributes, doubles keep six significant digits.

    def parameterSetNode(self) -> Any:
        return None if self._editor is None else self._editor.node

    def parameter(self, name: str) -> str:
        node = self.parameterSetNode()
        if node is None:
            complain(f"parameter '{name}': invalid parameter set node")
            return ""
        own = node.GetAttribute(f"{self.name}.{name}")
        value = node.GetAttribute(name) if own is None else own
        if value is None:
            complain(f"Parameter named {name} cannot be found for effect {self.name}")
        return value or ""

    def integerParameter(self, name: str) -> int:
        try:
            return int(self.parameter(name))
        except ValueError:
            complain(f"Parameter named {name} cannot be converted to integer!")
            return 0

    def doubleParameter(self, name: str) -> float:
        try:
            return float(self.parameter(name))
        except ValueError:
            complain(f"Parameter named {name} cannot be converted to floating point number!")
            return 0.0

    def setParameter(self, name: str, value: Any) -> None:
        self.setCommonParameter(f"{self.name}.{name}", value)

    def setCommonParameter(self, name: str, value: Any) -> None:
        text = f"{value:.6g}" if type(value) is float else str(value)
        node = self.parameterSetNode()
        if node is None:
            complain(f"setParameter '{name}': invalid parameter set node")
            return
        if node.GetAttribute(name) == text:
            return
        was = node.GetDisableModifiedEvent()
        node.SetDisableModifiedEvent(1)
        node.SetAttribute(name, text)
        node.SetDisableModifiedEvent(was)
        node.InvokeCustomModifiedEvent(node.EffectParameterModified)

    def setParameterDefault(self, name: str, value: Any) -> None:
        if not self.parameterDefined(name):
            self.setParameter(name, value)

    def parameterDefined(self, name: str) -> bool:
        node = self.parameterSetNode()
        return node is not None and bool(node.GetAttribute(f"{self.name}.{name}"))

    # Options

    def optionsFrame(self) -> Any:
        return self._frame

    def addOptionsWidget(self, widget: Any) -> None:  # or a layout
        self._adopt(widget)
        self._frame.layout().addRow(widget)

    def _adopt(self, widget: Any) -> None:
        """Slicer overwrites the size policy of a widget, but not of what a layout holds."""
        if widget.inherits("QWidget"):
            widget.setParent(self._frame)
            widget.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.MinimumExpanding)

    def addLabeledOptionsWidget(self, text: str, widget: Any) -> Any:
        label = qt.QLabel(text)
        self._adopt(widget)
        self._frame.layout().addRow(label, widget)
        return label

    # Images: always the same objects, refreshed by the logic on each call.

    def _updated(self, update: Any, image: Any) -> Any:
        return image if update() else None

    def defaultModifierLabelmap(self) -> Any:
        logic = self._editor.logic
        return self._updated(logic.ResetModifierLabelmapToDefault, logic.GetModifierLabelmap())

    def modifierLabelmap(self) -> Any:
        return self._editor.logic.GetModifierLabelmap()

    def maskLabelmap(self) -> Any:
        logic = self._editor.logic
        return self._updated(logic.UpdateMaskLabelmap, logic.GetMaskLabelmap())

    def sourceVolumeImageData(self) -> Any:
        logic = self._editor.logic
        return self._updated(logic.UpdateAlignedSourceVolume, logic.GetAlignedSourceVolume())

    def selectedSegmentLabelmap(self) -> Any:
        logic = self._editor.logic
        return self._updated(
            logic.UpdateSelectedSegmentLabelmap, logic.GetSelectedSegmentLabelmap()
        )

    def referenceGeometryImage(self) -> Any:
        logic = self._editor.logic
        return self._updated(logic.UpdateReferenceGeometryImage, logic.GetReferenceGeometryImage())

    # Editing

    def saveStateForUndo(self) -> None:
        self._editor.logic.SaveStateForUndo()

    def modifySelectedSegmentByLabelmap(self, labelmap: Any, mode: int, *rest: Any) -> None:
        node = self.parameterSetNode()
        segment = node.GetSelectedSegmentID() or ""
        self.modifySegmentByLabelmap(node.GetSegmentationNode(), segment, labelmap, mode, *rest)

    def modifySegmentByLabelmap(
        self, segmentationNode: Any, segmentId: str, labelmap: Any, mode: int, *rest: Any
    ) -> None:
        left = list(rest)
        has_extent = bool(left) and not isinstance(left[0], bool)
        extent = left.pop(0) if has_extent else [0, -1, 0, -1, 0, -1]
        bypass = left.pop(0) if left else False
        # The logic's enum members are ints for Python, but no argument for Qt's overloads.
        if left or len(extent) != 6 or type(mode) is not int:
            raise ValueError("Could not find matching overload for given arguments")
        logic = self._editor.logic
        modes = (  # the logic wants its enum type, not an int
            logic.ModificationModeSet,
            logic.ModificationModeAdd,
            logic.ModificationModeRemove,
            logic.ModificationModeRemoveAll,
        )
        member = next(m for m in modes if int(m) == int(mode))
        logic.ModifySegmentByLabelmap(
            segmentationNode, segmentId, labelmap, member, list(extent), self.perSegment, bypass
        )

    def confirmCurrentSegmentVisible(self) -> int:
        """A hidden segment brings up a dialog, once."""
        node = self.parameterSetNode()
        segment, display = node.GetSelectedSegmentID(), node.GetSegmentationNode().GetDisplayNode()
        if not segment:
            return self.NotConfirmed
        if display is not None and not display.GetSegmentVisibility(segment):
            display.SetSegmentVisibility(segment, True)
            self._editor.dialogs += 1  # also in testing mode: it would wait for somebody
            return self.ConfirmedWithDialog
        return self.ConfirmedWithoutDialog

    def selectEffect(self, name: str) -> None:
        self._editor.setActiveEffectByName(name)

    def active(self) -> bool:
        return self._active

    # Views

    def icon(self) -> Any:
        found = self._methods.get("icon")
        return qt.QIcon() if found is None else found()

    def createCursor(self, viewWidget: Any) -> Any:
        """What the Python half makes of it, or Slicer's own: an arrow over the icon."""
        found = self._methods.get("createCursor")
        return default_cursor(self.icon()) if found is None else found(viewWidget)

    def segmentationDisplayableInView(self, viewNode: Any) -> bool:
        return bool(self._editor.logic.IsSegmentationDisplayableInView(viewNode))

    def viewNode(self, viewWidget: Any) -> Any:
        return viewWidget.mrmlSliceNode()

    def renderWindow(self, viewWidget: Any) -> Any:
        return viewWidget.sliceView().renderWindow()

    def renderer(self, viewWidget: Any) -> Any:
        return viewWidget._alive().renderer

    def scheduleRender(self, viewWidget: Any) -> None:
        viewWidget.sliceView().scheduleRender()

    def addActor2D(self, viewWidget: Any, actor: Any) -> None:
        self.renderer(viewWidget).AddViewProp(actor)

    def removeActor2D(self, viewWidget: Any, actor: Any) -> None:
        self.renderer(viewWidget).RemoveViewProp(actor)

    def xyToRas(self, xy: Any, viewWidget: Any) -> Any:
        ras = [0.0] * 3
        node = viewWidget.mrmlSliceNode()
        slicer.vtkSlicerSegmentEditorLogic.XyToRas([xy.x(), xy.y()], ras, node)
        return QtGui.QVector3D(*ras)  # single precision, as in Slicer

    def xyToIjk(self, xy: Any, viewWidget: Any, image: Any, parentTransformNode: Any = None) -> Any:
        ijk = [0] * 3
        slicer.vtkSlicerSegmentEditorLogic.XyToIjk(
            [xy.x(), xy.y()], ijk, viewWidget.mrmlSliceNode(), image, parentTransformNode
        )
        return QtGui.QVector3D(*ijk)


class AbstractScriptedSegmentEditorEffect:
    """Stand-in for the base class that Slicer ships in SegmentEditorEffects."""

    def __init__(self, scriptedEffect: Any) -> None:
        self.scriptedEffect = scriptedEffect

    def register(self) -> None:
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def xyToRas(self, xy: Any, viewWidget: Any) -> list[float]:
        v = self.scriptedEffect.xyToRas(qt.QPoint(xy[0], xy[1]), viewWidget)
        return [v.x(), v.y(), v.z()]

    def xyToIjk(
        self, xy: Any, viewWidget: Any, image: Any, parentTransformNode: Any = None
    ) -> list[int]:
        point = qt.QPoint(xy[0], xy[1])
        v = self.scriptedEffect.xyToIjk(point, viewWidget, image, parentTransformNode)
        return [int(v.x()), int(v.y()), int(v.z())]
