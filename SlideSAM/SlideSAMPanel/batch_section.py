"""Segment all: every segment with prompts, in one go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from SlideSAMBridge import batch
from SlideSAMBridge.effect import jobs
from SlideSAMBridge.effect.options import slices_text
from SlideSAMBridge.scene.segmenting import UndoStep
from SlideSAMBridge.setup import preferences
from SlideSAMBridge.tasks import retreat, worker
from SlideSAMBridge.tasks.shelf import ModelChoice, shared_shelf

from . import widgets
from .ticker import Ticker


class BatchSection:
    """Choose, start, watch and cancel.

    editor_for : makes the editor for a segmentation. on_end : called when a run has ended, which
    has found out what PyTorch and the model are good for.
    """

    def __init__(
        self, layout: Any, editor_for: Callable[[Any], Any], on_end: Callable[[], None]
    ) -> None:
        self._editor_for, self._on_end = editor_for, on_end
        self.batch: batch.Batch | None = None
        self._found: str | None = None  # id of the volume that belongs to the segmentation
        self._last: UndoStep | None = None  # of the last batch that has written something
        form = widgets.section(layout, _("Segment all"), "SlideSAMBatch")
        self.ticker = Ticker(form.parentWidget())
        self.segmentation = self._selector("vtkMRMLSegmentationNode", "SlideSAMSegmentation")
        self.volume = self._selector("vtkMRMLScalarVolumeNode", "SlideSAMVolume")
        self.segmentation.connect("currentNodeChanged(bool)", self._segmentation_changed)
        self.mode = qt.QCheckBox(_("replace what the segments have"))
        self.mode.objectName = "SlideSAMReplace"
        self.mode.setToolTip(_("Otherwise the results are added to the segments."))
        self.start = widgets.button(
            _("Segment all prompted segments"),
            _(
                "Segment every segment that was marked with the Slide-SAM effect, each from its "
                "own prompts. Masking settings count if the Segment Editor shows the segmentation."
            ),
            "SlideSAMSegmentAll",
            self._start,
        )
        self.cancel = widgets.button(
            _("Cancel"), _("Stop; finished segments stay."), "SlideSAMCancelAll", self.ticker.cancel
        )
        self.cancel.setEnabled(False)
        self.undo = widgets.button(
            _("Undo"),
            _(
                "Take back all that the last run has written, in one step, as long as nothing "
                "else has changed in the segmentation. The Segment Editor's Undo does it, too, if "
                "it showed the segmentation."
            ),
            "SlideSAMUndoAll",
            self._undo,
        )
        self.undo.setEnabled(False)
        self.progress = qt.QProgressBar()
        self.progress.objectName = "SlideSAMBatchProgress"
        self.progress.setVisible(False)
        self.message = widgets.label("SlideSAMBatchMessage")
        form.addRow(_("Segmentation:"), self.segmentation)
        form.addRow(_("Volume:"), self.volume)
        form.addRow("", self.mode)
        form.addRow(widgets.row([self.start, self.cancel, self.undo]))
        form.addRow(self.progress)
        form.addRow(self.message)

    def _selector(self, kind: str, name: str) -> Any:
        box = slicer.qMRMLNodeComboBox()
        box.objectName = name
        box.nodeTypes = [kind]
        box.addEnabled = box.removeEnabled = box.renameEnabled = False
        box.noneEnabled = True
        box.setMRMLScene(slicer.mrmlScene)
        return box

    def _segmentation_changed(self) -> None:
        """The volume that belongs to it is most likely the one that is wanted.

        The one that belonged to the segmentation before is not; one that was chosen by hand stays.
        """
        node, shown = self.segmentation.currentNode(), self.volume.currentNode()
        volume = None if node is None else batch.source_volume(node)
        if volume is not None or (shown is not None and shown.GetID() == self._found):
            self.volume.setCurrentNode(volume)
        self._found = None if volume is None else volume.GetID()

    def _start(self) -> None:
        if self.ticker.job is not None:
            return
        segmentation, volume = self.segmentation.currentNode(), self.volume.currentNode()
        if segmentation is None:
            self.message.text = _("Choose a segmentation whose segments have prompts.")
            return
        volume = volume or batch.source_volume(segmentation)
        try:
            mode = "replace" if self.mode.checked else "add"
            self.batch = batch.Batch(
                self._editor_for(segmentation), segmentation, volume, mode, segment_editor
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            self.message.text = jobs.sentence(error)
            return
        shelf, chosen = shared_shelf, preferences.read()
        choice = ModelChoice(chosen.model, chosen.device, chosen.precision)

        task = self.batch.task(lambda: shelf.model(choice), shelf.cache, again=True)
        task = retreat.on_any_device(shelf, choice, task)
        self.progress.setRange(0, max(len(self.batch.entries), 1))
        self.progress.value = 0
        self.message.text = _("Loading the model ...")
        self.ticker.follow(worker.shared_worker().submit("batch", task), self._take, self._end)
        self._busy(True)

    def _take(self, event: Any) -> None:
        self.batch.take(event)
        if isinstance(event, retreat.Notice):
            self.message.text = jobs.notice_text(event)
        elif isinstance(event, batch.Advance):
            entry = self.batch.entries[event.number]
            self.progress.value = event.number
            self.message.text = _("{name} ({number} of {count}): {slices}").format(
                name=entry.name,
                number=event.number + 1,
                count=len(self.batch.entries),
                slices=slices_text(event.slices),
            )

    def _end(self, job: Any) -> None:
        self.batch.finish()
        report, segmentation = self.batch.report, self.batch.segmentation_node
        lines = []
        if job.error is not None:
            lines.append(jobs.sentence(job.error))
        elif job.cancelled():
            lines.append(_("Cancelled."))
        lines.append(_("Segments written: {count}.").format(count=len(report.written)))
        for segment_id, failure in report.failed.items():
            segment = segmentation.GetSegmentation().GetSegment(segment_id)
            name = segment_id if segment is None else segment.GetName()
            lines.append(f"{name}: {failure}")
        self.message.text = "\n".join(lines)
        if report.written:
            self._last = self.batch.undo
        self.batch = None
        self._busy(False)
        self._on_end()

    def _busy(self, busy: bool) -> None:
        self.start.setEnabled(not busy)
        self.cancel.setEnabled(busy)
        self.progress.setVisible(busy)
        self.refresh()

    def refresh(self) -> None:
        """Each time the panel is shown: the segmentation may have been edited meanwhile."""
        idle = self.ticker.job is None
        self.undo.setEnabled(idle and self._last is not None and self._last.possible)

    def _undo(self) -> None:
        if self._last.possible:
            self.message.text = _("Taken back; segments restored: {count}.").format(
                count=self._last.take_back()
            )
        else:
            self.message.text = _(
                "Not taken back: the segmentation was changed afterwards, and that would be lost."
            )
        self.refresh()

    def abandon(self) -> None:
        """End what is under way, and write nothing more; what is written stays for good."""
        self._last = None
        if self.ticker.job is not None:
            self.ticker.abandon()
            self.batch.finish()
            self.batch = None
            self.message.text = _("Ended, because the scene was closed.")
        self._busy(False)

    def close(self) -> None:
        """Let go of everything."""
        self.abandon()
        self.ticker.close()


def segment_editor(segmentation: Any) -> Any:
    """The widget of the Segment Editor module if it shows this segmentation, else None.

    Slicer keeps the module's panel here once it was opened; to ask the module itself would open it.
    """
    panel = getattr(slicer.modules, "SegmentEditorWidget", None)
    widget = getattr(panel, "editor", None)
    if widget is None or widget.segmentationNode() is not segmentation:
        return None
    return widget
