"""Pictures of the effect at work, drawn by the host: slice views with the preview, and the panel.

    python -m Testing.host.pictures FOLDER [--model NAME|FILE] [--image FILE --label FILE:VALUE]

Without --image the MR brain of the demo is used. The views are Slicer's own, the panel is what
PySide6 makes of the same widgets.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from Testing.host.showcase import ROOT, Showcase

SIZE = (480, 480)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--image")
    parser.add_argument("--label", help="FILE:VALUE, the object to mark in --image")
    arguments = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    _Show(arguments).run()


class _Show:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.folder = arguments.folder
        voxels, truth, ijk_to_ras = image_and_object(arguments.image, arguments.label)
        self.middle = int(np.argmax(truth.sum(axis=(1, 2))))
        rows, columns = np.nonzero(truth[self.middle])
        self.box = (columns.min(), rows.min(), columns.max(), rows.max())
        x0, y0, x1, y1 = self.box
        centre = ((x0 + x1) / 2, (y0 + y1) / 2, self.middle)
        self.case = Showcase(voxels, ijk_to_ras, centre, arguments.model, size=SIZE)

    def run(self) -> None:
        view, python = self.case.views[0], self.case.python
        x0, y0, x1, y1 = self.box
        corners = [
            view.ras_to_xy(self.case.ras((x, y, self.middle))) for x, y in ((x0, y0), (x1, y1))
        ]
        view.event("LeftButtonPressEvent", corners[0])
        view.event("MouseMoveEvent", corners[1])
        view.save(self.folder / "effect-drag.png")
        self._timed("box, with loading the model", lambda: view.drag(*corners))
        self._save("preview")
        inside = view.ras_to_xy(self.case.ras(((x0 + x1) / 2, (y0 + y1) / 2, self.middle)))
        self._timed("click, window cached", lambda: view.click(inside))
        outside = view.ras_to_xy(self.case.ras((x0 + 2, y0 + 2, self.middle)))
        self._timed("negative click, cached", lambda: view.click(outside, ctrl=1))
        self._save("points")
        view.node.JumpSliceByOffsetting(*self.case.ras((x0, y0, self.middle + 6)))
        other = view.ras_to_xy(self.case.ras(((x0 + x1) / 2, (y0 + y1) / 2, self.middle + 6)))
        self._timed("click, new window", lambda: view.click(other))
        view.click(other, ctrl=1, alt=1)  # off again: the box says it all
        self.case.until(lambda: python.interaction.jobs.job is None)
        view.node.JumpSliceByOffsetting(*self.case.ras((x0, y0, self.middle)))
        python.onSegment()
        self.case.until(lambda: len(python.interaction.work.slices) > 20)
        self._panel("running")
        self._timed("segment", lambda: None)
        python.onWeakest()
        self._save("weakest")
        view.node.JumpSliceByOffsetting(*self.case.ras((x0, y0, self.middle)))
        self._save("result")
        self._timed("apply", python.onApply)
        self._save("applied")
        self._module_panel()
        print("errors:", self.case.editor.errors or "none")

    def _module_panel(self) -> None:
        """The panel of the SlideSAM module, as wide as Slicer's module panel."""
        import qt

        from Testing.host import module_host

        module, _ = module_host.load(ROOT / "SlideSAM" / "SlideSAM.py")
        parent = qt.QWidget()
        qt.QVBoxLayout(parent)
        widget = module.SlideSAMWidget(parent)
        widget.setup()
        widget.batch.segmentation.setCurrentNode(self.case.editor.node.GetSegmentationNode())
        parent.resize(420, 900)
        parent.show()
        self.case.application.processEvents()
        parent.grab().save(str(self.folder / "module-panel.png"))
        widget.cleanup()

    def _timed(self, what: str, action: Any) -> None:
        """Until it is drawn in all views."""
        began = time.perf_counter()
        action()
        self.case.drawn()
        print(f"{what}: {time.perf_counter() - began:.2f} s; {self.case.message}")

    def _save(self, name: str) -> None:
        """The two views and the panel side by side."""
        from PySide6 import QtGui

        pictures = [np.flipud(view.pixels()).copy() for view in self.case.views]
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
        frame = self.case.effect.optionsFrame()
        frame.resize(380, frame.sizeHint.height())
        self.case.application.processEvents()
        picture = frame.grab()
        if name is not None:
            picture.save(str(self.folder / f"effect-{name}.png"))
        return picture


def image_and_object(
    image: str | None, label: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(voxels (K, J, I), the object on the same voxels, IJK to RAS)."""
    from SlideSAMLib.images.volumes import read_image

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
