"""A MRML scene and its views without the Slicer application: slicer-core, no Qt, no display.

Used outside Slicer only: by `render` for pictures and by the test host. The views are Slicer's own
displayable managers in an off-screen render window:

    qMRMLSliceView / qMRMLThreeDView  -> vtkRenderWindow and renderer
    qMRMLSliceWidget.sliceLogic()     -> vtkMRMLSliceLogic (adds slice and composite node)
    image actor of the slice view     -> vtkActor2D with a vtkImageMapper
    displayable managers              -> vtkMRMLDisplayableManagerGroup

Set VTK_DEFAULT_OPENGL_WINDOW (`use_software_window`) before vtk is imported the first time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def use_software_window() -> bool:
    """Choose an off-screen window class before `import vtk`; False where no GL library loads.

    Without any GL library VTK dies at the first Render(), so ask this before opening a view.
    """
    if not sys.platform.startswith("linux"):
        return True  # the window class of the platform renders off-screen as it is
    for library, window in (
        ("libEGL.so.1", "vtkEGLRenderWindow"),
        ("libOSMesa.so.8", "vtkOSOpenGLRenderWindow"),
    ):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", window)
        return True
    return False


@dataclass
class Session:
    """A scene with the logics that Slicer has; `logics` by module name."""

    scene: Any
    app_logic: Any
    logics: dict[str, Any] = field(default_factory=dict)

    def register(self, name: str, logic: Any) -> None:
        # The application logic goes in first: some logics look it up from SetMRMLScene.
        logic.SetMRMLApplicationLogic(self.app_logic)
        logic.SetMRMLScene(self.scene)
        self.app_logic.SetModuleLogic(name, logic)
        self.logics[name] = logic

    def close(self) -> None:
        """Clear the scene, singleton nodes too. Close the views before."""
        self.scene.Clear(True)


def start() -> Session:
    """Create scene, application logic and the module logics that editing and display need."""
    import slicer
    import vtk

    # One copy of each VTK message, on stderr: by default errors come through the coloured logger
    # and once more through the output window.
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    output = vtk.vtkOutputWindow()
    output.SetDisplayModeToAlwaysStdErr()
    vtk.vtkOutputWindow.SetInstance(output)

    scene = slicer.vtkMRMLScene()
    app_logic = slicer.vtkSlicerApplicationLogic()
    app_logic.SetMRMLScene(scene)  # adds selection and interaction nodes
    colors = app_logic.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()  # volumes are shown with the grey table
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    # The displayable managers ask the application logic for these collections.
    app_logic.SetSliceLogics(vtk.vtkCollection())
    app_logic.SetViewLogics(vtk.vtkCollection())

    session = Session(scene, app_logic)
    session.register("Colors", colors)
    session.register("SubjectHierarchy", slicer.vtkSlicerSubjectHierarchyModuleLogic())
    # "Data" removes display and storage nodes that lost their owner.
    session.register("Data", slicer.vtkSlicerDataModuleLogic())
    session.register("Volumes", slicer.vtkSlicerVolumesLogic())
    session.register("Segmentations", slicer.vtkSlicerSegmentationsModuleLogic())
    return session


class View:
    """An off-screen window with Slicer's displayable managers; the base of both views."""

    MANAGERS: tuple[str, ...] = ()

    def __init__(self, size: tuple[int, int]) -> None:
        import vtk

        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)  # the same pixels on every machine
        self.window.SetSize(*size)
        self.renderer = vtk.vtkRenderer()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)

    def _manage(self, factory: Any, app_logic: Any) -> None:
        import slicer

        factory.SetMRMLApplicationLogic(app_logic)
        for name in self.MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.Initialize(factory, self.renderer)

    def _interact(self, style: Any) -> None:
        import vtk

        self.style = style
        style.SetDisplayableManagers(self.group)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        style.SetInteractor(self.interactor)
        self.interactor.Initialize()

    def _grab(self) -> Any:
        import vtk

        self.window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.ReadFrontBufferOff()
        grabber.Update()
        return grabber.GetOutput()

    def pixels(self) -> np.ndarray:
        """Render; uint8 (height, width, 3), first row at the bottom as in XY coordinates."""
        from vtk.util.numpy_support import vtk_to_numpy

        image = self._grab()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1).copy()

    def save(self, path: str | os.PathLike) -> None:
        """Render into a PNG file."""
        import vtk

        writer = vtk.vtkPNGWriter()
        writer.SetFileName(os.fspath(path))
        writer.SetInputData(self._grab())
        writer.Write()

    def close(self) -> None:
        """Take the view apart; before the scene goes."""
        self.group.SetMRMLDisplayableNode(None)
        self.style.SetInteractor(None)
        self.window.Finalize()


class SliceView(View):
    """A slice view: the blended image of its slice logic, and the segments on it."""

    MANAGERS = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLCrosshairDisplayableManager")

    def __init__(
        self,
        session: Session,
        name: str = "Red",
        orientation: str = "Axial",
        size: tuple[int, int] = (400, 400),
    ) -> None:
        import slicer

        super().__init__(size)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._add_image_actor()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._manage(factory, session.app_logic)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(session.app_logic)
        session.app_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(session.scene)
        self.node = self.logic.AddSliceNode(name)
        self.composite_node = self.logic.GetSliceCompositeNode()
        self.node.SetOrientation(orientation)
        self.group.SetMRMLDisplayableNode(self.node)
        style = slicer.vtkMRMLSliceViewInteractorStyle()
        style.SetSliceLogic(self.logic)
        self._interact(style)
        self.resize(*size)

    def _add_image_actor(self) -> None:
        # It has to be the first prop of the renderer: props draw in the order they were added, and
        # the depth test would hide the image behind a half-transparent fill drawn before it.
        import vtk

        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        self.actor.VisibilityOff()  # until there is an image
        self.renderer.AddViewProp(self.actor)

    def resize(self, width: int, height: int) -> None:
        self.window.SetSize(width, height)
        self.logic.ResizeSliceNode(width, height)  # keeps XYToRAS in step

    def show(self, volume_node: Any, fit: bool = True) -> None:
        """Show a volume behind the segments; `fit` zooms to it."""
        self.composite_node.SetBackgroundVolumeID(volume_node.GetID())
        if fit:
            self.logic.FitSliceToBackground()
            self.logic.SnapSliceOffsetToIJK()
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())
        self.actor.VisibilityOn()


class ThreeDView(View):
    """A 3D view with models, segments and its camera."""

    MANAGERS = (
        "vtkMRMLCameraDisplayableManager",
        "vtkMRMLViewDisplayableManager",
        "vtkMRMLModelDisplayableManager",
        "vtkMRMLSegmentationsDisplayableManager3D",
    )

    def __init__(self, session: Session, size: tuple[int, int]) -> None:
        import slicer

        super().__init__(size)
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        self._manage(factory, session.app_logic)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(session.app_logic)
        session.app_logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(session.scene)
        self.node = self.logic.AddViewNode("1")
        self.group.SetMRMLDisplayableNode(self.node)
        self._interact(slicer.vtkMRMLThreeDViewInteractorStyle())
