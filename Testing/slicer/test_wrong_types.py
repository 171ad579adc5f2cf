"""Arguments of a wrong type are refused with one sentence, and the scene is left as it was."""

import numpy as np
import pytest

from Testing.slicer import scenes
from Testing.slicer.scenes import MIDDLE, Scene
from Testing.slicer.test_refusals import check

pytestmark = pytest.mark.slicer


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"points": 5}, "triples"),
        ({"points": None, "box": 7}, "triples"),
        ({"labels": 1}, "1 .positive. or 0"),
        ({"labels": np.array([[1, 0]])}, "1 .positive. or 0"),
        ({"segmentId": 3}, "no segment with the id"),
        ({"segmentId": ["Mine"]}, "no segment with the id"),
        ({"model": 5}, "model must be"),
        ({"model": None}, "model must be"),
        ({"model": "builtin", "device": ["cpu"]}, "device"),
        ({"first": [3]}, "whole number"),
        ({"first": "abc"}, "first slice .* whole number"),
        ({"last": float("nan")}, "last slice .* whole number"),
        ({"last": float("inf")}, "last slice .* whole number"),
        ({"settings": "x"}, "settings must be"),
        ({"settings": {}}, "settings must be"),
        ({"progress": "x"}, "progress must be a function"),
        ({"cancelled": 3}, "cancelled must be a function"),
        ({"editorNode": "x"}, "vtkMRMLSegmentEditorNode"),
        ({"editorLogic": "x"}, "vtkSlicerSegmentEditorLogic"),
    ],
)
def test_wrong_types(session, slidesam, options, match):
    check(slidesam, Scene(), ValueError, match, **options)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda logic, scene: logic.segmentAll("x"), "segmentation node"),
        (lambda logic, scene: logic.segmentAll(None), "segmentation node"),
        (lambda logic, scene: logic.segmentAll(scene.segmentation, scene.image), "scalar volume"),
        (lambda logic, scene: logic.segmentAll(scene.segmentation, model=5), "model must be"),
        (lambda logic, scene: logic.segmentAll(scene.segmentation, model=None), "model must be"),
        (lambda logic, scene: logic.segmentAll(scene.segmentation, cancelled=1), "a function"),
        (lambda logic, scene: logic.prompts("x", "y"), "segmentation node"),
        (lambda logic, scene: logic.prompts(scene.segmentation, None), "no segment with the id"),
    ],
)
def test_wrong_calls_of_the_others(session, slidesam, call, match):
    scene, logic = Scene(), slidesam.SlideSAMLogic()
    logic.segment(scene.volume, scene.segmentation, points=[scene.ras()], model=scenes.model())
    before = scenes.snapshot()
    with pytest.raises(ValueError, match=match):
        call(logic, scene)
    assert scenes.snapshot() == before


def test_points_may_come_from_a_generator(session, slidesam):
    scene = Scene()
    points = (scene.ras(voxel) for voxel in (MIDDLE, (9, 6, 6)))
    segment = slidesam.SlideSAMLogic().segment(
        scene.volume, scene.segmentation, points=points, labels=map(int, "11"), model=scenes.model()
    )
    assert np.array_equal(scene.mask(segment), scene.truth)
