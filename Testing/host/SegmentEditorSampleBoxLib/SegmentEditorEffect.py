"""Sample effect for the host: drag a box on a slice, it is added to the selected segment.

Only calls that exist in Slicer are used, so the same file runs there, too.
"""

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    def __init__(self, scriptedEffect):
        scriptedEffect.name = "Sample box"  # not translated, used as identifier
        scriptedEffect.title = _("Sample box")
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.start = None  # RAS of the pressed corner
        self.activeViewWidget = None
        self.outline = None

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(__file__.replace("\\", "/"))
        return clonedEffect

    def setupOptionsFrame(self):
        self.eraseCheckBox = qt.QCheckBox()
        self.eraseCheckBox.toolTip = _("Remove the box instead of adding it")
        self.scriptedEffect.addLabeledOptionsWidget(_("Erase:"), self.eraseCheckBox)
        self.clearButton = qt.QPushButton(_("Clear"))
        self.clearButton.objectName = self.__class__.__name__ + "Clear"
        self.clearButton.setToolTip(_("Empty the selected segment"))
        self.scriptedEffect.addOptionsWidget(self.clearButton)
        self.clearButton.connect("clicked()", self.onClear)
        self.eraseCheckBox.connect("stateChanged(int)", self.updateMRMLFromGUI)

    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault("Erase", 0)

    def updateGUIFromMRML(self):
        wasBlocked = self.eraseCheckBox.blockSignals(True)
        self.eraseCheckBox.checked = self.scriptedEffect.integerParameter("Erase") != 0
        self.eraseCheckBox.blockSignals(wasBlocked)

    def updateMRMLFromGUI(self):
        self.scriptedEffect.setParameter("Erase", 1 if self.eraseCheckBox.checked else 0)

    def deactivate(self):
        self.cancelDrag()

    def cancelDrag(self):
        if self.outline is not None:
            self.scriptedEffect.removeActor2D(self.activeViewWidget, self.outline)
        self.outline = self.start = self.activeViewWidget = None

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        if viewWidget.className() != "qMRMLSliceWidget":
            return False
        xy = callerInteractor.GetEventPosition()
        if eventId == vtk.vtkCommand.LeftButtonPressEvent:
            if callerInteractor.GetShiftKey() or callerInteractor.GetControlKey():
                return False
            if (
                self.scriptedEffect.confirmCurrentSegmentVisible()
                != self.scriptedEffect.ConfirmedWithoutDialog
            ):
                return True
            self.activeViewWidget = viewWidget
            self.start = self.xyToRas(xy, viewWidget)
            self.showOutline(xy, xy)
            return True
        if self.start is None or viewWidget != self.activeViewWidget:
            return False
        if eventId == vtk.vtkCommand.MouseMoveEvent:
            self.showOutline(self.rasToDisplay(self.start), xy)
            return True
        if eventId == vtk.vtkCommand.LeftButtonReleaseEvent:
            self.apply(self.start, self.xyToRas(xy, viewWidget))
            self.cancelDrag()
            return True
        if eventId == vtk.vtkCommand.KeyPressEvent and callerInteractor.GetKeySym() == "Escape":
            self.cancelDrag()
            return True
        return False

    def rasToDisplay(self, ras):
        m = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.activeViewWidget.sliceLogic().GetSliceNode().GetXYToRAS(), m)
        return m.MultiplyPoint([*ras, 1.0])[:2]

    def showOutline(self, a, b):
        points = vtk.vtkPoints()
        for x, y in ((a[0], a[1]), (b[0], a[1]), (b[0], b[1]), (a[0], b[1]), (a[0], a[1])):
            points.InsertNextPoint(x, y, 0)
        line = vtk.vtkPolyLineSource()
        line.SetPoints(points)
        if self.outline is None:
            self.outline = vtk.vtkActor2D()
            self.outline.SetMapper(vtk.vtkPolyDataMapper2D())
            self.outline.GetProperty().SetColor(1, 1, 0)
            self.scriptedEffect.addActor2D(self.activeViewWidget, self.outline)
        self.outline.GetMapper().SetInputConnection(line.GetOutputPort())
        self.activeViewWidget.sliceView().scheduleRender()

    def apply(self, ras1, ras2):
        segmentationNode = self.scriptedEffect.parameterSetNode().GetSegmentationNode()
        modifier = self.scriptedEffect.defaultModifierLabelmap()
        toIjk = vtk.vtkTransform()
        toIjk.PostMultiply()
        transformNode = segmentationNode.GetParentTransformNode()
        if transformNode:  # world -> segmentation
            worldToSegmentation = vtk.vtkMatrix4x4()
            transformNode.GetMatrixTransformFromWorld(worldToSegmentation)
            toIjk.Concatenate(worldToSegmentation)
        rasToIjk = vtk.vtkMatrix4x4()
        modifier.GetImageToWorldMatrix(rasToIjk)
        rasToIjk.Invert()
        toIjk.Concatenate(rasToIjk)
        p = toIjk.TransformPoint(ras1)
        q = toIjk.TransformPoint(ras2)
        extent = modifier.GetExtent()
        box = []
        for axis in range(3):
            lo, hi = sorted((round(p[axis]), round(q[axis])))
            box += [max(lo, extent[2 * axis]), min(hi, extent[2 * axis + 1])]
        if box[0] > box[1] or box[2] > box[3] or box[4] > box[5]:
            return
        dims = modifier.GetDimensions()
        voxels = vtk_to_numpy(modifier.GetPointData().GetScalars()).reshape(
            dims[2], dims[1], dims[0]
        )
        i, j, k = extent[0], extent[2], extent[4]
        voxels[
            box[4] - k : box[5] - k + 1, box[2] - j : box[3] - j + 1, box[0] - i : box[1] - i + 1
        ] = 1
        modifier.Modified()
        self.scriptedEffect.saveStateForUndo()
        effectClass = slicer.qSlicerSegmentEditorAbstractEffect
        mode = (
            effectClass.ModificationModeRemove
            if self.scriptedEffect.integerParameter("Erase")
            else effectClass.ModificationModeAdd
        )
        self.scriptedEffect.modifySelectedSegmentByLabelmap(modifier, mode, box)

    def onClear(self):
        self.scriptedEffect.saveStateForUndo()
        modifier = self.scriptedEffect.defaultModifierLabelmap()
        self.scriptedEffect.modifySelectedSegmentByLabelmap(
            modifier, slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeSet
        )
