"""What the module's self-test tries inside Slicer."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import qt
import slicer
from SlideSAMBridge.setup import library


class SelfTests:
    """The tests of SlideSAMTest, which says what `Logic` and `Widget` are.

    The built-in model takes part where its weights and PyTorch are there.
    """

    Logic: type
    Widget: type

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        for test in (
            self.test_segment,
            self.test_box_and_undo,
            self.test_refusals,
            self.test_segment_all,
            self.test_panel,
            self.test_effect,
            self.test_builtin_model,
        ):
            self.setUp()
            test()
        self.delayDisplay("SlideSAM: all tests passed")

    def test_segment(self) -> None:
        """A point in an oblique, transformed volume gives exactly the object's voxels."""
        scene = self._scene(transformed=True)
        before = slicer.util.arrayFromVolume(scene.volume).copy()
        segmentId = self.Logic().segment(
            scene.volume, scene.segmentation, points=[scene.centre], model=scene.model
        )
        self.assertTrue(np.array_equal(scene.mask(segmentId), scene.truth))
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(scene.volume), before))
        segment = scene.segmentation.GetSegmentation().GetSegment(segmentId)
        self.assertEqual(segment.GetName(), "Slide-SAM 1")

    def test_box_and_undo(self) -> None:
        """A box on each orientation finds the object; undo takes the segment away again."""
        scene = self._scene()
        logic = self.Logic()
        for axis in "IJK":
            segmentId = logic.segment(
                scene.volume,
                scene.segmentation,
                box=scene.box(axis),
                orientation=axis,
                model=scene.model,
            )
            self.assertTrue(np.array_equal(scene.mask(segmentId), scene.truth))
            logic.undo()
            self.assertEqual(scene.segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_refusals(self) -> None:
        """Wrong calls say so and leave no segment behind."""
        scene = self._scene()
        logic = self.Logic()
        with self.assertRaises(ValueError):
            logic.segment(scene.volume, scene.segmentation, model=scene.model)
        with self.assertRaises(ValueError):
            logic.segment(scene.volume, scene.segmentation, points=[[9e3, 0, 0]], model=scene.model)
        self.assertEqual(scene.segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_segment_all(self) -> None:
        """Segments with prompts are segmented again from these, the others are left alone."""
        scene = self._scene(transformed=True)
        logic = self.Logic()
        segmentId = logic.segment(
            scene.volume, scene.segmentation, points=[scene.centre], model=scene.model
        )
        empty = scene.segmentation.GetSegmentation().AddEmptySegment("", "No prompts")
        logic.segment(
            scene.volume,
            scene.segmentation,
            segmentId=segmentId,
            points=[scene.centre],
            orientation="K",
            model=scene.model,
            mode="replace",
            last=int(scene.middle[2]),
        )
        self.assertFalse(np.array_equal(scene.mask(segmentId), scene.truth))
        report = logic.segmentAll(scene.segmentation, scene.volume, scene.model)
        self.assertEqual((report.written, report.failed), ([segmentId], {}))
        self.assertTrue(np.array_equal(scene.mask(segmentId), scene.truth))
        self.assertFalse(scene.mask(empty).any())

    def test_panel(self) -> None:
        """The panel is made, says what is there, and goes without leaving anything."""
        parent = qt.QWidget()
        qt.QVBoxLayout(parent)
        widget = self.Widget(parent)
        widget.setup()
        try:
            self.assertTrue(widget.status.label.text)
            self.assertGreater(widget.models.list.topLevelItemCount, 3)
            widget.enter()
        finally:
            widget.cleanup()

    def test_effect(self) -> None:
        """The effect in a Segment Editor widget: a point, the slide, one step of undo."""
        from SlideSAMLib import models

        scene = self._scene(transformed=True)
        models.register_model("self-test", lambda device, precision: scene.model)
        scene.segmentation.CreateDefaultDisplayNodes()  # no dialog may ask for a visible segment
        segmentId = scene.segmentation.GetSegmentation().AddEmptySegment("", "Effect")
        widget = slicer.qMRMLSegmentEditorWidget()
        widget.setMRMLSegmentEditorNode(
            slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        )
        widget.setMRMLScene(slicer.mrmlScene)
        widget.setSegmentationNode(scene.segmentation)
        widget.setSourceVolumeNode(scene.volume)
        widget.setCurrentSegmentID(segmentId)
        try:
            widget.setActiveEffectByName("Slide-SAM")
            effect = widget.activeEffect()
            effect.setParameter("Model", "self-test")
            interaction = effect.self().interaction
            self.assertTrue(interaction.add_point(scene.slice_node(), scene.centre, 1))
            self._finish(interaction)
            self.assertEqual(len(interaction.preview.shown), 3)
            self.assertTrue(interaction.segment())
            self._finish(interaction)
            self.assertTrue(np.array_equal(scene.mask(segmentId), scene.truth))
            widget.undo()
            self.assertFalse(scene.mask(segmentId).any())
        finally:
            widget.setActiveEffectByName("")
        self.assertIsNone(interaction.preview.node)

    def _finish(self, interaction: Any) -> None:
        while interaction.poll(0.05):
            slicer.app.processEvents()

    def test_builtin_model(self) -> None:
        """The built-in model finds a bright ball from one box."""
        missing = library.missing_for_builtin()
        if missing:
            logging.info("SlideSAM: the test of the built-in model is skipped. %s", missing)
            return
        scene = self._scene()
        segmentId = self.Logic().segment(
            scene.volume, scene.segmentation, box=scene.box("K"), orientation="K"
        )
        mask = scene.mask(segmentId)
        dice = 2 * (mask & scene.truth).sum() / (mask.sum() + scene.truth.sum())
        self.assertGreater(dice, 0.6)

    def _scene(self, transformed: bool = False) -> Any:
        from SlideSAMBridge.selftest import TestScene  # needs SlideSAMLib

        library.make_importable()
        return TestScene(slicer.mrmlScene, transformed)
