"""The SlideSAM module of 3D Slicer: segment with prompts on one slice.

This file is what Slicer loads at start-up; it imports neither torch nor SlideSAMLib. The work is
done in the package SlideSAMBridge (scene) and in SlideSAMLib (algorithm).
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from SlideSAMBridge import batch, checks
from SlideSAMBridge.scene import segmenting, segments
from SlideSAMBridge.scene.editing import Editor
from SlideSAMBridge.scene.editors import Editors
from SlideSAMBridge.setup import library, preferences
from SlideSAMBridge.tasks import shelf
from SlideSAMBridge.tasks.shortage import shortages_in_words
from SlideSAMPanel.self_tests import SelfTests

DOCUMENTATION = "https://github.com/SlideSAM/SlicerSlideSAM"
PUBLICATION = "https://proceedings.mlr.press/v250/quan24a.html"
EDITOR_TAG = "SegmentEditor"  # the singleton tag of the Segment Editor module's node


class SlideSAM(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "SlideSAM"  # a name, not to be translated
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations"]
        parent.contributors = ["The SlideSAM developers"]
        parent.helpText = _(
            "Mark an organ on one slice with points or a box; a window of three slices slides "
            "through the volume and segments it in 3D. For research only, not for clinical use. "
            '<a href="{address}">Documentation</a>'
        ).format(address=DOCUMENTATION)
        parent.acknowledgementText = _(
            '<a href="{address}">Slide-SAM</a> was published by Quan Quan and colleagues; it '
            "builds on Segment Anything by Meta AI. The weights that come with this module were "
            "trained for it."
        ).format(address=PUBLICATION)
        # Not yet: the effects' factory is there only when all modules are loaded.
        slicer.app.connect("startupCompleted()", self.registerEditorEffect)
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerEditorEffect(self) -> None:
        """Make the Slide-SAM effect known to the Segment Editor.

        Call it by hand where the module was added after Slicer had started.
        """
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        path = Path(__file__).resolve().parent / "SegmentEditorSlideSAMLib/SegmentEditorEffect.py"
        instance = effects.qSlicerSegmentEditorScriptedEffect(None)
        if not instance.setPythonSource(path.as_posix()):
            logging.error("SlideSAM: the Segment Editor effect could not be loaded from %s", path)
            return
        instance.self().register()

    def registerSampleData(self) -> None:
        """Offer a made-up volume in the Sample Data module; it needs no download."""
        from SlideSAMBridge import phantom

        icons = Path(__file__).resolve().parent / "Resources" / "Icons"
        phantom.register(str(icons / "SlideSAMPhantom.png"))


class SlideSAMWidget(ScriptedLoadableModuleWidget):
    """The panel: what is installed, the models, Segment all, and how to call it from Python."""

    def __init__(self, parent: Any = None) -> None:
        # Slicer enters and cleans up the panel even where setup() has failed, which the base class
        # calls at once where there is no parent.
        self.status = self.batch = self.models = self._sceneTag = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        from SlideSAMPanel.batch_section import BatchSection
        from SlideSAMPanel.models_section import ModelsSection
        from SlideSAMPanel.status_section import ExamplesSection, StatusSection

        library.make_importable()
        self.logic = SlideSAMLogic()
        self.status = StatusSection(self.layout, lambda: self.models.refresh())
        self.batch = BatchSection(self.layout, self.logic.editorFor, self.status.refresh)
        self.models = ModelsSection(self.layout, self.status.refresh)
        self.examples = ExamplesSection(self.layout)
        self.layout.addStretch(1)
        self._sceneTag = slicer.mrmlScene.AddObserver(
            slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClosing
        )
        self.enter()

    def enter(self) -> None:
        """Each time the panel is shown: packages or models may have been installed meanwhile."""
        if self.models is not None:
            self.status.refresh()
            self.batch.refresh()
            self.models.refresh()

    def cleanup(self) -> None:
        """The module is unloaded or reloaded."""
        if self._sceneTag is not None:
            slicer.mrmlScene.RemoveObserver(self._sceneTag)
            self._sceneTag = None
        for section in (self.batch, self.models):
            if section is not None:
                section.close()

    def onReload(self) -> None:
        """Reload of the developer section: effects that exist get the new code, too."""
        from SlideSAMEffect import reloading

        reloading.reload()
        ScriptedLoadableModuleWidget.onReload(self)

    def _onSceneClosing(self, caller: Any, event: str) -> None:
        self.batch.abandon()


class SlideSAMLogic(ScriptedLoadableModuleLogic):
    """Segmenting from Python; needs no main window.

    lastResult : the SlideSAMLib.SlideResult of the last successful `segment`: confidence by slice,
        stop reasons, times. Its slices count from the first slice of the volume.
    """

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self, parent)
        library.make_importable()
        self.lastResult = None
        self._loaded = None
        self._editors = Editors()
        # Their nodes go with this logic; not at exit, when the scene is gone.
        weakref.finalize(self, self._editors.release).atexit = False

    @shortages_in_words()
    def segment(
        self,
        volumeNode: Any,
        segmentationNode: Any,
        segmentId: str | None = None,
        points: Sequence[Sequence[float]] | None = None,
        labels: Sequence[int] | None = None,
        box: Sequence[Sequence[float]] | None = None,
        orientation: Any = "Axial",
        model: Any = "builtin",
        *,
        first: int | None = None,
        last: int | None = None,
        window: Sequence[float] | None = None,
        mode: str = "add",
        editorNode: Any = None,
        editorLogic: Any = None,
        device: str = "auto",
        precision: str = "auto",
        settings: Any = None,
        progress: Callable[[int, int | None, Any], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """Segment one object and write it into a segment; returns the segment's id.

        Positions are RAS in mm of the world, so transforms of volume and segmentation count.

        :param volumeNode: scalar volume; neither it nor its voxels are changed.
        :param segmentationNode: where to write. Without a geometry it gets the volume's.
        :param segmentId: id (not name) of the segment to write to; None makes a new one.
        :param points: [[r, a, s], ...]; points on several slices are used together.
        :param labels: 1 (positive, the default) or 0 (negative) for each point.
        :param box: two opposite corners [[r, a, s], [r, a, s]] on one slice.
        :param orientation: which slices: "Axial", "Sagittal" or "Coronal" (those nearest to the
            anatomical plane, also in an oblique scan), "I", "J" or "K" (axis of the
            segmentation's geometry), or a slice view node, which must show whole slices.
        :param model: a name or file that SlideSAMLib.load_model knows, or a loaded model.
        :param first: the slide stops there, as does `last`: slice indices of the segmentation's
            geometry along the slide axis, inclusive; None is no limit.
        :param window: (low, high) intensity window in image units; None chooses one.
        :param mode: "add" to the segment, or "replace" what it has.
        :param editorNode: a vtkMRMLSegmentEditorNode whose masking, overwrite mode and editable
            intensity range are respected. None: the Segment Editor module's, if it edits this
            segmentation; otherwise everything may be edited and no other segment loses a voxel.
        :param editorLogic: a vtkSlicerSegmentEditorLogic that you made yourself, whose editor node
            has these nodes. The result is then one step of its undo, with the settings of its
            node. None: use `undo` and `redo` of this logic. Slicer does not give out the logic of
            a Segment Editor widget: call the widget's `saveStateForUndo()` before, and its Undo
            takes the whole result back.
        :param device: "auto", "cpu", "cuda" or "mps"; `precision` is "auto", "float32",
            "bfloat16" or "float16". For models given by name.
        :param settings: a SlideSAMLib.SlideSettings.
        :param progress: called as progress(done, total, finished) after every slice;
            `finished.index` is a slice index as for `first`.
        :param cancelled: asked before every window; True ends the work and keeps what is finished.
        :raises ValueError: something in the call cannot be used.
        :raises RuntimeError: PyTorch is missing, the model cannot be used, or nothing was found.
            In both cases the scene is as it was.
        """
        request = segmenting.Request(
            points=points,
            labels=labels,
            box=box,
            orientation=orientation,
            segment_id=segmentId,
            first=first,
            last=last,
            window=window,
            mode=mode,
            settings=settings,
            progress=progress,
            cancelled=cancelled,
        )
        load = partial(self._loadedModel, model, device, precision)
        with self._editing(segmentationNode, editorNode, editorLogic) as editor:
            segmentId, self.lastResult = segmenting.segment(
                editor, volumeNode, segmentationNode, load, request
            )
        return segmentId

    @shortages_in_words()
    def segmentAll(
        self,
        segmentationNode: Any,
        volumeNode: Any = None,
        model: Any = "builtin",
        *,
        mode: str = "add",
        editorNode: Any = None,
        editorLogic: Any = None,
        device: str = "auto",
        precision: str = "auto",
        cancelled: Callable[[], bool] | None = None,
    ) -> Any:
        """Segment every segment that has prompts, each from its own, as one undo step.

        The prompts are what the Slide-SAM effect, or `segment`, keeps in the segments.

        :param volumeNode: None: the volume that gave the segmentation its geometry.
        :param cancelled: asked before every window; True ends the work. Finished segments stay.
        :returns: a SlideSAMBridge.batch.Report: `written` (ids) and `failed` (id -> sentence).
        :raises ValueError, RuntimeError: as `segment`; also where no segment has prompts.
        """
        with self._editing(segmentationNode, editorNode, editorLogic) as editor:
            work = batch.Batch(editor, segmentationNode, volumeNode, mode)
            load = partial(self._loadedModel, model, device, precision)
            work.run(load, self._cache, cancelled)
        return work.report

    def editorFor(self, segmentationNode: Any) -> Editor:
        """The editor that writes without a Segment Editor widget, with its present settings."""
        with self._editing(segmentationNode, None, None) as editor:
            return editor

    def undo(self) -> None:
        """Take back what the last call without `editorLogic` wrote, a new segment too.

        The whole segmentation is again as it was before that call: what was edited in it since
        goes, too, until `redo`. The steps are kept for the segmentation that was written last. The
        Segment Editor's own undo does not know of them.
        """
        if not self.canUndo():
            raise RuntimeError(_("There is nothing to undo."))
        self._editors.last.undo()

    def redo(self) -> None:
        """Bring back all that `undo` took."""
        if not self.canRedo():
            raise RuntimeError(_("There is nothing to redo."))
        self._editors.last.redo()

    def canUndo(self) -> bool:
        return self._editors.last is not None and self._editors.last.can_undo()

    def canRedo(self) -> bool:
        return self._editors.last is not None and self._editors.last.can_redo()

    def prompts(self, segmentationNode: Any, segmentId: str) -> Any:
        """A segment's marks (SlideSAMBridge.scene.marks.Marks); None where it has none."""
        return segments.saved_marks(segmentationNode, segmentId)

    def _cache(self) -> Any:
        from SlideSAMLib import EmbeddingCache

        return EmbeddingCache(preferences.cache_bytes())

    def _loadedModel(self, model: Any, device: str, precision: str) -> Any:
        name = checks.model_name(model)
        if name is None:
            return model
        choice = shelf.ModelChoice(name, str(device), str(precision))
        if self._loaded is None or not self._loaded.serves(choice):
            self._loaded = None  # one at a time: models are large
            self._loaded = shelf.load(choice)
        return self._loaded.model

    @contextmanager
    def _editing(
        self, segmentationNode: Any, editorNode: Any, editorLogic: Any
    ) -> Iterator[Editor]:
        """The editor to write with, with the settings that count."""
        if editorLogic is not None:
            if editorNode is not None:
                raise ValueError(
                    _("Give editorNode or editorLogic, not both: the logic has a node of its own.")
                )
            yield Editor.around(editorLogic)
            return
        made = self._editors.of(segmentationNode, slicer.mrmlScene, slicer.app.applicationLogic())
        with made as editor:
            editor.take_settings(editorNode or _openEditorNode(segmentationNode))
            yield editor


def _openEditorNode(segmentationNode: Any) -> Any:
    """The node of the Segment Editor module if it edits this segmentation, else None."""
    node = slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    return node if node is not None and node.GetSegmentationNode() is segmentationNode else None


class SlideSAMTest(SelfTests, ScriptedLoadableModuleTest):
    """Self-test; Slicer looks for it in this file."""

    Logic, Widget = SlideSAMLogic, SlideSAMWidget
