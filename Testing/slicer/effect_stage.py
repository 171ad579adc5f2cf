"""A stage for tests of the effect: scene, slice views, editor with the unchanged effect file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from PySide6 import QtWidgets

from Testing.host import pythonqt_host, views
from Testing.host.scripted_effect import LayoutManager
from Testing.slicer.scenes import GEOMETRIES, MIDDLE, Scene

EFFECT = (
    Path(__file__).resolve().parents[2] / "SlideSAM/SegmentEditorSlideSAMLib/SegmentEditorEffect.py"
)
# A plain effect of the host's own, to switch to.
SAMPLE_EFFECT = (
    Path(__file__).resolve().parents[1] / "host/SegmentEditorSampleBoxLib/SegmentEditorEffect.py"
)
NAMES = ("Red", "Yellow", "Green")
ORIENTATIONS = ("Axial", "Sagittal", "Coronal")
SLIDE_AXES = {"Red": 2, "Yellow": 0, "Green": 1}


def show(slice_node: Any, ras: Any) -> None:
    """Move a view to a position, also where the move is so small that Slicer would not draw it."""
    away = np.add(ras, slicer.util.arrayFromVTKMatrix(slice_node.GetSliceToRAS())[:3, 2])
    modifying = slice_node.StartModify()
    slice_node.JumpSliceByOffsetting(*away.tolist())
    slice_node.JumpSliceByOffsetting(*ras)
    slice_node.EndModify(modifying)


class Stage:
    """An editor on a scene, with views turned to the volume.

    model : a name that `SlideSAMLib.load_model` knows.
    """

    def __init__(
        self,
        session: Any,
        geometry: str = "negative spacing",
        transforms: tuple[str, ...] = (),
        view_names: tuple[str, ...] = ("Red",),
        model: str = "threshold",
        scene: Any = None,
        layout: bool = True,
        oversampling: float | None = 1,
        size: tuple[int, int] = (240, 240),
    ) -> None:
        self.session = session
        self.scene = scene or Scene(GEOMETRIES[geometry], transforms, oversampling)
        self.scene.segmentation.CreateDefaultDisplayNodes()
        self.views = {}
        for name, orientation in zip(NAMES, ORIENTATIONS, strict=True):
            if name in view_names:
                view = views.SliceView(session, name, orientation, size)
                view.show(self.scene.volume)
                view.node.RotateToVolumePlane(self.scene.volume)
                view.node.JumpSliceByOffsetting(*self.scene.ras(MIDDLE))
                view.logic.FitSliceToBackground()
                show(view.node, self.scene.ras(MIDDLE))
                self.views[name] = view
        if layout:
            slicer.app.layout = LayoutManager(list(self.views.values()))
        self.editor = pythonqt_host.Editor(
            session, self.scene.segmentation, self.scene.volume, list(self.views.values())
        )
        self.editor.logic.AddEmptySegment("A")
        self.editor.logic.ClearUndoState()
        self.editor.logic.SetMaximumNumberOfUndoStates(10)  # as the Segment Editor module has it
        self.effect = self.editor.addEffect(EFFECT)
        self.effect.setParameter("Model", model)
        self.python = self.effect.self()
        self.open()
        self.wait()  # for the model

    @property
    def view(self) -> Any:
        return next(iter(self.views.values()))

    @property
    def interaction(self) -> Any:
        return self.python.interaction

    @property
    def panel(self) -> Any:
        return self.python.panel

    @property
    def message(self) -> str:
        return self.interaction.message.text

    def open(self) -> None:
        self.editor.setActiveEffectByName("Slide-SAM")

    def shut(self) -> None:
        self.editor.setActiveEffectByName("")

    def xy(self, ijk: Any = MIDDLE, view: str | None = None) -> np.ndarray:
        """Where a voxel (i, j, k) of the volume is in a view."""
        return self._view(view).ras_to_xy(self.scene.ras(ijk))

    def click(self, ijk: Any = MIDDLE, view: str | None = None, **modifiers: int) -> None:
        self._view(view).click(self.xy(ijk, view), **modifiers)

    def drag(self, a: Any, b: Any, view: str | None = None) -> None:
        self._view(view).drag(self.xy(a, view), self.xy(b, view))

    def scroll_to(self, ijk: Any, view: str | None = None) -> None:
        show(self._view(view).node, self.scene.ras(ijk))

    def key(self, name: str, view: str | None = None) -> None:
        self._view(view).press_key(name)

    def _view(self, name: str | None) -> Any:
        return self.view if name is None else self.views[name]

    def wait(self, until: Any = None, seconds: float = 20.0) -> None:
        """Let timers run until the job is over, or `until()` is true."""
        application = QtWidgets.QApplication.instance()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            application.processEvents()
            if until() if until is not None else self.interaction.jobs.job is None:
                return
            time.sleep(0.002)
        raise AssertionError(f"nothing happened for {seconds} s: {self.message}")

    def preview(self) -> np.ndarray:
        """The voxels of the preview, on the volume: bool (K, J, I)."""
        node = self.interaction.preview.node
        if node is None:
            return np.zeros(self.scene.image.shape, bool)
        shown = self.scene.of(node)
        return shown.mask("sure") | shown.mask("weak")

    def mask(self, segment: str = "A") -> np.ndarray:
        return self.scene.mask(segment)

    def write(self, segment: str, mask: np.ndarray) -> None:
        """Put a mask into a segment, whatever it had."""
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype(np.uint8), self.scene.segmentation, segment, self.scene.volume
        )

    def save_and_load(self, folder: Path) -> None:
        """Go on with the segmentation as it comes back from a file; the effect is chosen anew."""
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(folder / "kept.seg.nrrd"))
        assert storage.WriteData(self.scene.segmentation)
        loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
        assert storage.ReadData(loaded)
        loaded.SetAndObserveTransformNodeID(self.scene.segmentation.GetTransformNodeID())
        self.shut()
        self.editor.node.SetAndObserveSegmentationNode(loaded)
        self.editor.node.SetSelectedSegmentID("A")
        self.scene.segmentation = loaded
        self.open()

    def actors(self) -> int:
        """How many prompts are drawn in all views (two actors a point, one a box)."""
        return sum(len(overlay.actors) for overlay in self.python.views.overlays)

    def props(self) -> list[int]:
        """How many props every view has."""
        return [v.renderer.GetViewProps().GetNumberOfItems() for v in self.views.values()]

    def close(self) -> None:
        """Nothing went wrong, and nothing is left behind."""
        self.editor.close()
        for view in self.views.values():
            view.close()
        assert self.editor.errors == []
        assert self.python.watch.observers == 0
        assert self.interaction.preview.node is None
        assert not self.python.pump.running
