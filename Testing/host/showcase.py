"""The effect on an image of any kind, in slice views with real events, for pictures and timings."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
EFFECT = ROOT / "SlideSAM/SegmentEditorSlideSAMLib/SegmentEditorEffect.py"


class Showcase:
    """An editor with the effect active, and views through one voxel.

    voxels : (K, J, I). ijk_to_ras : 4 x 4. centre : the voxel (i, j, k) that all views show.
    """

    def __init__(
        self,
        voxels: np.ndarray,
        ijk_to_ras: np.ndarray,
        centre: Sequence[float],
        model: str = "builtin",
        orientations: Sequence[str] = ("Axial", "Coronal"),
        size: tuple[int, int] = (480, 480),
    ) -> None:
        if str(ROOT / "SlideSAM") not in sys.path:
            sys.path.append(str(ROOT / "SlideSAM"))
        from SlideSAMBridge.pictures import offscreen

        offscreen.use_software_window()
        from Testing.host import headless, pythonqt_host

        self.application = pythonqt_host.install()
        self.session = headless.start()
        self.ijk_to_ras = ijk_to_ras
        self.volume = self._volume(voxels)
        self.views = self._views(orientations, size, self.ras(centre))
        self._edit(model)

    def _volume(self, voxels: np.ndarray) -> Any:
        import slicer

        volume = slicer.util.addVolumeFromArray(voxels, ijkToRAS=self.ijk_to_ras, name="Image")
        volume.CreateDefaultDisplayNodes()
        low, high = np.percentile(voxels[:: max(1, len(voxels) // 20)], (0.5, 99.5))
        display = volume.GetScalarVolumeDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(float(low), float(high))
        return volume

    def _views(self, orientations: Sequence[str], size: tuple[int, int], ras: Any) -> list[Any]:
        from Testing.host import views

        names = {"Axial": "Red", "Sagittal": "Yellow", "Coronal": "Green"}
        made = []
        for orientation in orientations:
            view = views.SliceView(self.session, names[orientation], orientation, size)
            view.show(self.volume)
            view.node.RotateToVolumePlane(self.volume)
            view.logic.FitSliceToBackground()
            view.node.JumpSliceByOffsetting(*ras)
            made.append(view)
        return made

    def _edit(self, model: str) -> None:
        import slicer

        from Testing.host import pythonqt_host
        from Testing.host.scripted_effect import LayoutManager

        slicer.app.layout = LayoutManager(self.views)
        segmentation = self.session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self.editor = pythonqt_host.Editor(self.session, segmentation, self.volume, self.views)
        self.editor.logic.AddEmptySegment("Object")
        segmentation.GetSegmentation().GetSegment("Object").SetColor(0.34, 0.71, 0.91)
        self.effect = self.editor.addEffect(EFFECT)
        self.effect.setParameter("Model", model)
        self.effect.setParameter("AutoApply", 0)
        self.editor.setActiveEffectByName("Slide-SAM")

    @property
    def python(self) -> Any:
        return self.effect.self()

    @property
    def message(self) -> str:
        return self.python.interaction.message.text

    def ras(self, ijk: Sequence[float]) -> np.ndarray:
        """The world position in mm of a voxel."""
        return (self.ijk_to_ras @ [*ijk, 1.0])[:3]

    def xy(self, ijk: Sequence[float], view: int = 0) -> np.ndarray:
        """Where a voxel is in a view."""
        return self.views[view].ras_to_xy(self.ras(ijk))

    def scroll_to(self, ijk: Sequence[float], view: int = 0) -> None:
        self.views[view].node.JumpSliceByOffsetting(*self.ras(ijk))

    def until(self, condition: Callable[[], bool]) -> None:
        """Let timers run until the condition holds."""
        while not condition():
            self.application.processEvents()
            time.sleep(0.001)

    def idle(self) -> bool:
        """Whether no job is under way."""
        return self.python.interaction.jobs.job is None

    def drawn(self) -> None:
        """Wait for the job, and draw all views."""
        self.until(self.idle)
        for view in self.views:
            view.window.Render()
