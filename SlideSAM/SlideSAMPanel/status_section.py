"""What is installed, and the button that installs the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from SlideSAMBridge.setup import installing, library

from . import widgets


class StatusSection:
    """The status line and Install. on_installed : called when packages have been installed."""

    def __init__(self, layout: Any, on_installed: Callable[[], None]) -> None:
        self._on_installed = on_installed
        self.label = widgets.label("SlideSAMStatus")
        layout.addWidget(self.label)
        self.install = widgets.button(
            _("Install Python packages ..."),
            _(
                "Install PyTorch and segment-anything into Slicer. The PyTorch extension is used "
                "where it is installed, because it finds the build for your graphics card."
            ),
            "SlideSAMInstall",
            self._install,
        )
        layout.addWidget(self.install)

    def refresh(self, said: str = "") -> None:
        """Show what is installed now. said : a sentence that is shown first."""
        self.label.text = "\n".join(filter(None, [said, library.status()]))
        self.install.setVisible(bool(installing.missing()))

    def _install(self) -> None:
        self.install.setEnabled(False)
        try:
            names = installing.install(slicer.util.confirmOkCancelDisplay)
            said = _("Installed: {names}.").format(names=", ".join(names)) if names else ""
        except RuntimeError as error:
            said = str(error)
        finally:
            self.install.setEnabled(True)
        self._on_installed()
        self.refresh(said)


class ExamplesSection:
    """Text to copy into the Python console."""

    TEXT = """import SlideSAM
logic = SlideSAM.SlideSAMLogic()

# a point [R, A, S] in mm inside the object, or box=[[r, a, s], [r, a, s]]
segmentId = logic.segment(volumeNode, segmentationNode, points=[[r, a, s]])
logic.lastResult.confidence   # slice -> 0..1
logic.undo()

# all segments that have prompts of the Slide-SAM effect
report = logic.segmentAll(segmentationNode)
report.written, report.failed
"""

    def __init__(self, layout: Any) -> None:
        form = widgets.section(layout, _("Python console"), "SlideSAMExamples", collapsed=True)
        self.text = qt.QPlainTextEdit(self.TEXT)
        self.text.objectName = "SlideSAMUsage"
        self.text.readOnly = True
        self.text.setLineWrapMode(qt.QPlainTextEdit.NoWrap)
        lines = self.TEXT.count("\n") + 2
        self.text.setMinimumHeight(lines * self.text.fontMetrics().height())
        form.addRow(self.text)
        form.addRow(
            widgets.button(
                _("Copy"),
                _("Copy the examples to the clipboard."),
                "SlideSAMCopy",
                lambda: qt.QApplication.clipboard().setText(self.TEXT),
            )
        )
