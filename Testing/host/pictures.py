"""Pictures of the effect at work, drawn by the host: slice views with the preview, and the panel.

    python -m Testing.host.pictures FOLDER [--model NAME|FILE] [--image FILE --label FILE:VALUE]

Without --image the MR brain of the demo is used. The views are Slicer's own, the panel is what
PySide6 makes of the same widgets.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
EFFECT = ROOT / "SlideSAM/SegmentEditorSlideSAMLib/SegmentEditorEffect.py"
SIZE = (480, 480)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--image")
    parser.add_argument("--label", help="FILE:VALUE, the object to mark in --image")
    arguments = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path.append(str(ROOT / "SlideSAM"))
    from SlideSAMBridge import offscreen

    offscreen.use_software_window()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    _Show(arguments).run()


class _Show:
    def __init__(self, arguments: argparse.Namespace) -> None:
        from Testing.host import headless, pythonqt_host

        self.folder, self.model = arguments.folder, arguments.model
        self.application = pythonqt_host.install()
        self.session = headless.start()
        self.voxels, truth, ijk_to_ras = _data(arguments.image, arguments.label)
        self.middle = int(np.argmax(truth.sum(axis=(1, 2))))
        rows, columns = np.nonzero(truth[self.middle])
        self.box = (columns.min(), rows.min(), columns.max(), rows.max())
        self.ijk_to_ras = ijk_to_ras
        self._open()

    def _open(self) -> None:
        import slicer

        from Testing.host import pythonqt_host, views
        from Testing.host.scripted_effect import LayoutManager

        self.volume = slicer.util.addVolumeFromArray(
            self.voxels, ijkToRAS=self.ijk_to_ras, name="Image"
        )
        self.volume.CreateDefaultDisplayNodes()
        low, high = np.percentile(self.voxels, (0.5, 99.5))
        display = self.volume.GetScalarVolumeDisplayNode()
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(float(low), float(high))
        segmentation = self.session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        x0, y0, x1, y1 = self.box
        centre = self.ras(((x0 + x1) / 2, (y0 + y1) / 2, self.middle))
        self.views = []
        for name, orientation in (("Red", "Axial"), ("Green", "Coronal")):
            view = views.SliceView(self.session, name, orientation, SIZE)
            view.show(self.volume)
            view.node.RotateToVolumePlane(self.volume)
            view.logic.FitSliceToBackground()
            view.node.JumpSliceByOffsetting(*centre)
            self.views.append(view)
        slicer.app.layout = LayoutManager(self.views)
        self.editor = pythonqt_host.Editor(self.session, segmentation, self.volume, self.views)
        self.editor.logic.AddEmptySegment("Object")
        segment = segmentation.GetSegmentation().GetSegment("Object")
        segment.SetColor(0.34, 0.71, 0.91)
        self.effect = self.editor.addEffect(EFFECT)
        self.effect.setParameter("Model", self.model)
        self.effect.setParameter("AutoApply", 0)
        self.editor.setActiveEffectByName("Slide-SAM")

    def ras(self, ijk: Any) -> np.ndarray:
        return (self.ijk_to_ras @ [*ijk, 1.0])[:3]

    def run(self) -> None:
        view, python = self.views[0], self.effect.self()
        x0, y0, x1, y1 = self.box
        corners = [view.ras_to_xy(self.ras((x, y, self.middle))) for x, y in ((x0, y0), (x1, y1))]
        view.event("LeftButtonPressEvent", corners[0])
        view.event("MouseMoveEvent", corners[1])
        view.save(self.folder / "effect-drag.png")
        self._timed("box, with loading the model", lambda: view.drag(*corners))
        self._save("preview")
        inside = view.ras_to_xy(self.ras(((x0 + x1) / 2, (y0 + y1) / 2, self.middle)))
        self._timed("click, window cached", lambda: view.click(inside))
        outside = view.ras_to_xy(self.ras((x0 + 2, y0 + 2, self.middle)))
        self._timed("negative click, cached", lambda: view.click(outside, ctrl=1))
        self._save("points")
        view.node.JumpSliceByOffsetting(*self.ras((x0, y0, self.middle + 6)))
        other = view.ras_to_xy(self.ras(((x0 + x1) / 2, (y0 + y1) / 2, self.middle + 6)))
        self._timed("click, new window", lambda: view.click(other))
        view.click(other, ctrl=1, alt=1)  # off again: the box says it all
        self._until(lambda: python.interaction.jobs.job is None)
        view.node.JumpSliceByOffsetting(*self.ras((x0, y0, self.middle)))
        python.onSegment()
        self._until(lambda: len(python.interaction.work.slices) > 20)
        self._panel("running")
        self._timed("segment", lambda: None)
        python.onWeakest()
        self._save("weakest")
        view.node.JumpSliceByOffsetting(*self.ras((x0, y0, self.middle)))
        self._save("result")
        self._timed("apply", python.onApply)
        self._save("applied")
        self._module_panel()
        print("errors:", self.editor.errors or "none")

    def _module_panel(self) -> None:
        """The panel of the SlideSAM module, as wide as Slicer's module panel."""
        import qt

        from Testing.host import module_host

        module, _ = module_host.load(ROOT / "SlideSAM" / "SlideSAM.py")
        parent = qt.QWidget()
        qt.QVBoxLayout(parent)
        widget = module.SlideSAMWidget(parent)
        widget.setup()
        widget.batch.segmentation.setCurrentNode(self.editor.node.GetSegmentationNode())
        parent.resize(420, 900)
        parent.show()
        self.application.processEvents()
        parent.grab().save(str(self.folder / "module-panel.png"))
        widget.cleanup()

    def _timed(self, what: str, action: Any) -> None:
        """Until it is drawn in all views."""
        began = time.perf_counter()
        action()
        self._until(lambda: self.effect.self().interaction.jobs.job is None)
        for view in self.views:
            view.window.Render()
        print(f"{what}: {time.perf_counter() - began:.2f} s; {self._message()}")

    def _message(self) -> str:
        return self.effect.self().interaction.message.text

    def _until(self, condition: Any) -> None:
        while not condition():
            self.application.processEvents()
            time.sleep(0.001)

    def _save(self, name: str) -> None:
        """The two views and the panel side by side."""
        from PySide6 import QtGui

        pictures = [np.flipud(view.pixels()).copy() for view in self.views]
        height, width = SIZE[1], SIZE[0]
        panel = self._panel(None)
        whole = QtGui.QPixmap(2 * width + panel.width() + 2, max(height, panel.height()))
        whole.fill(QtGui.QColor(239, 239, 239))
        painter = QtGui.QPainter(whole)
        for place, pixels in enumerate(pictures):
            image = QtGui.QImage(
                pixels.tobytes(), width, height, 3 * width, QtGui.QImage.Format.Format_RGB888
            )
            painter.drawImage(place * (width + 1), 0, image)
        painter.drawPixmap(2 * width + 2, 0, panel)
        painter.end()
        whole.save(str(self.folder / f"effect-{name}.png"))

    def _panel(self, name: str | None) -> Any:
        frame = self.effect.optionsFrame()
        frame.resize(380, frame.sizeHint.height())
        self.application.processEvents()
        picture = frame.grab()
        if name is not None:
            picture.save(str(self.folder / f"effect-{name}.png"))
        return picture


def _data(image: str | None, label: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(voxels (K, J, I), the object on the same voxels, IJK to RAS)."""
    from SlideSAMLib.volumes import read_image

    if image is None:
        from SlideSAMLib.demo.data import load_brain

        brain = load_brain()
        return brain.image.array, brain.mask, _to_ras(brain.image)
    volume = read_image(image)
    path, value = label.rsplit(":", 1)
    return volume.array, read_image(path, allow_labels=True).array == int(value), _to_ras(volume)


def _to_ras(volume: Any) -> np.ndarray:
    """ITK has LPS: the first two coordinates change their sign."""
    geometry = volume.geometry
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    matrix[:3, 3] = geometry.origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


if __name__ == "__main__":
    main()
