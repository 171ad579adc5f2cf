"""What cannot be done says so in one sentence and leaves the scene as it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer

from Testing.slicer import scenes
from Testing.slicer.scenes import MIDDLE, Scene

pytestmark = pytest.mark.slicer
ROOT = Path(__file__).resolve().parents[2]


def check(slidesam, scene, error, match, **options):
    """The call fails with one sentence, and nothing in the scene has changed."""
    before = scenes.snapshot()
    call = {"points": [scene.ras()], "model": scenes.model(), **options}
    volume = call.pop("volume", scene.volume)
    segmentation = call.pop("segmentation", scene.segmentation)
    with pytest.raises(error, match=match) as caught:
        slidesam.SlideSAMLogic().segment(volume, segmentation, **call)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    assert scenes.snapshot() == before


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"points": None}, "Nothing is marked"),
        ({"points": []}, "Nothing is marked"),
        ({"labels": [0]}, "Nothing is marked"),
        ({"labels": [1, 1]}, "1 points but 2 labels"),
        ({"labels": [2]}, "1 .positive. or 0"),
        ({"points": [[1, 2]]}, "triples"),
        ({"points": [[1, 2, "x"]]}, "triples"),
        ({"points": [[1, 2, float("nan")]]}, "triples"),
        ({"points": [[1, 2, 3], [1, 2]]}, "triples"),
        ({"points": [[9999.0, 0, 0]]}, "outside the volume"),
        ({"box": [[0, 0, 0]]}, "two opposite corners"),
        ({"box": [[0, 0]]}, "triples"),
        ({"box": [[9e3, 9e3, -30], [9.1e3, 9.1e3, -30]]}, "outside the volume"),
        ({"orientation": "Red"}, "orientation must be"),
        ({"orientation": ""}, "orientation must be"),
        ({"orientation": None}, "orientation must be"),
        ({"first": -1}, "first slice .* 0 to 11 along K"),
        ({"last": 12}, "last slice .* 0 to 11 along K"),
        ({"first": 2.5}, "whole number"),
        ({"first": 8, "last": 4}, "behind the last"),
        ({"first": 7, "last": 9}, "slice 6"),
        ({"window": (5, 5)}, "window"),
        ({"mode": "overwrite"}, "'add' or 'replace'"),
        ({"segmentId": "Slide-SAM 1"}, "no segment with the id"),
        ({"segmentation": None}, "segmentation node"),
        ({"volume": None}, "scalar volume"),
        ({"volume": "Volume"}, "scalar volume"),
        ({"model": "no such model"}, "no such model"),
    ],
)
def test_wrong_calls(session, slidesam, options, match):
    check(slidesam, Scene(), ValueError, match, **options)


def test_box_across_slices_and_empty_boxes(session, slidesam):
    scene = Scene(scenes.GEOMETRIES["oblique"])
    across = [scene.ras((4, 3, 6)), scene.ras((12, 9, 7))]
    check(slidesam, scene, ValueError, "slices 6 and 7 along K", points=None, box=across)
    flat = [scene.ras((4, 3, 6)), scene.ras((4, 9, 6))]
    check(slidesam, scene, ValueError, "box is empty", points=None, box=flat)


def test_negative_points_alone_on_a_slice(session, slidesam):
    scene = Scene()
    points = [scene.ras(), scene.ras((9, 7, 8))]
    check(slidesam, scene, ValueError, "marks nothing", points=points, labels=[1, 0])


def test_a_box_is_clipped_to_the_volume(session, slidesam):
    scene = Scene()
    box = [scene.ras((-5, -5, 6)), scene.ras((60, 60, 6))]
    logic = slidesam.SlideSAMLogic()
    segment = logic.segment(scene.volume, scene.segmentation, box=box, model=scenes.model())
    assert np.array_equal(scene.mask(segment), scene.truth)
    assert logic.prompts(scene.segmentation, segment).box == ((0, 0, 6), (19, 15, 6))


def vector_volume(scene):
    colours = np.zeros((*scenes.SHAPE, 3), np.uint8)
    return slicer.util.addVolumeFromArray(colours, nodeClassName="vtkMRMLVectorVolumeNode")


def label_volume(scene):
    labels = scene.truth.astype(np.uint8)
    return slicer.util.addVolumeFromArray(labels, nodeClassName="vtkMRMLLabelMapVolumeNode")


def empty_volume(scene):
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")


def constant_volume(scene):
    return slicer.util.addVolumeFromArray(np.full(scenes.SHAPE, 7, np.int16), scene.ijk_to_ras)


def nan_volume(scene):
    return slicer.util.addVolumeFromArray(
        np.full(scenes.SHAPE, np.nan, np.float32), scene.ijk_to_ras
    )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (vector_volume, "3 values per voxel"),
        (label_volume, "label map"),
        (empty_volume, "no image data"),
        (constant_volume, "constant"),
        (nan_volume, "finite"),
    ],
)
def test_volumes_that_are_no_image(session, slidesam, make, match):
    scene = Scene()
    check(slidesam, scene, ValueError, match, volume=make(scene))


def test_nodes_outside_the_scene(session, slidesam):
    scene = Scene()
    check(
        slidesam,
        scene,
        ValueError,
        "must be in the scene",
        segmentation=slicer.vtkMRMLSegmentationNode(),
    )


@pytest.mark.parametrize("which", ["volume", "segmentation"])
def test_transforms_that_are_not_linear(session, slidesam, which):
    scene = Scene()
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    getattr(scene, which).SetAndObserveTransformNodeID(warp.GetID())
    check(slidesam, scene, ValueError, "not linear")


def test_volume_and_segmentation_apart(session, slidesam):
    scene, far = Scene(oversampling=1), Scene()
    far.volume.SetOrigin(5000, 0, 0)
    check(slidesam, scene, ValueError, "do not overlap", volume=far.volume)


def test_segments_stored_as_surfaces(session, slidesam):
    scene = Scene()
    scene.contents.SetSourceRepresentationName("Closed surface")
    scene.contents.AddEmptySegment("Surface")
    check(slidesam, scene, ValueError, "Closed surface")


def test_nothing_found(session, slidesam):
    """No voxel: no segment is left behind, and an existing one keeps its voxels."""
    scene = Scene()
    background = [scene.ras((1, 1, 6))]
    check(slidesam, scene, RuntimeError, "Nothing was found", points=background)
    logic = slidesam.SlideSAMLogic()
    segment = logic.segment(
        scene.volume, scene.segmentation, points=[scene.ras()], model=scenes.model()
    )
    check(slidesam, scene, RuntimeError, "Nothing", points=background, segmentId=segment)
    assert np.array_equal(scene.mask(segment), scene.truth)
    logic.undo()
    assert scene.contents.GetNumberOfSegments() == 0


class Broken(Exception):
    pass


def test_a_model_that_breaks(session, slidesam):
    scene = Scene()
    model = scenes.model()

    def fail(embedding, prompt):
        raise Broken("in the middle.")

    model.predict = fail
    check(slidesam, scene, Broken, "middle", model=model)


def test_a_progress_callback_that_breaks(session, slidesam):
    def fail(done, total, finished):
        raise KeyboardInterrupt("stop.")

    check(slidesam, Scene(), KeyboardInterrupt, "stop", progress=fail)


def test_cancel_before_the_first_slice(session, slidesam):
    check(slidesam, Scene(), RuntimeError, "Cancelled", cancelled=lambda: True)


def test_cancel_keeps_what_is_finished(session, slidesam):
    scene = Scene()
    done = []
    segment = slidesam.SlideSAMLogic().segment(
        scene.volume,
        scene.segmentation,
        points=[scene.ras()],
        model=scenes.model(),
        progress=lambda count, total, finished: done.append(finished.index),
        cancelled=lambda: len(set(done)) >= 3,
    )
    found = scene.mask(segment)
    kept = np.flatnonzero(found.any((1, 2)))
    assert MIDDLE[2] in kept and 0 < len(kept) < scene.truth.any((1, 2)).sum()
    assert np.array_equal(found[kept], scene.truth[kept])


def remove_segment(scene, segment):
    scene.contents.RemoveSegment(segment)


def move_segmentation(scene, segment):
    node = scenes.add_transform(scenes.TRANSFORM)
    scene.segmentation.SetAndObserveTransformNodeID(node.GetID())


def change_geometry(scene, segment):
    scene.oversample(2)


def close_scene(scene, segment):
    slicer.mrmlScene.Clear()


def move_volume(scene, segment):
    node = scenes.add_transform(scenes.affine(np.eye(3), (0, 9, 4)))  # less than its size
    scene.volume.SetAndObserveTransformNodeID(node.GetID())


def turn_volume(scene, segment):
    place = scene.ijk_to_ras @ np.diag([-1, 1, 1, 1]) @ scenes.affine(np.eye(3), (-19, 0, 0))
    scene.volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(place))  # on the same voxels


def change_voxels(scene, segment):
    slicer.util.arrayFromVolume(scene.volume)[:] = 0
    slicer.util.arrayFromVolumeModified(scene.volume)


VOLUME_CHANGES = [move_volume, turn_volume, change_voxels]


@pytest.mark.parametrize(
    "change",
    [remove_segment, move_segmentation, change_geometry, close_scene, *VOLUME_CHANGES],
)
def test_a_scene_that_changes_meanwhile(session, slidesam, change):
    """A progress callback may run the GUI; the result must not land in the wrong place."""
    scene = Scene(oversampling=1)
    logic = slidesam.SlideSAMLogic()
    segment = scene.contents.AddEmptySegment("Mine")
    pending = [change]

    def meanwhile(done, total, finished):
        if pending:
            pending.pop()(scene, segment)

    with pytest.raises(RuntimeError, match="scene changed"):
        logic.segment(
            scene.volume,
            scene.segmentation,
            segmentId=segment,
            points=[scene.ras()],
            model=scenes.model(),
            progress=meanwhile,
        )
    assert not logic.canUndo()


@pytest.mark.parametrize("change", VOLUME_CHANGES)
def test_a_volume_that_changes_while_all_are_segmented(session, slidesam, change):
    scene = Scene(oversampling=1)
    logic = slidesam.SlideSAMLogic()
    nodes = (scene.segmentation, scene.volume)
    segment = logic.segment(*nodes[::-1], points=[scene.ras()], model=scenes.model())
    pending = [change]

    def meanwhile():
        if pending:
            pending.pop()(scene, segment)
        return False

    report = logic.segmentAll(*nodes, scenes.model(), mode="replace", cancelled=meanwhile)
    assert not report.written and "scene changed" in report.failed[segment]
    logic.undo()
    assert not logic.canUndo()  # nothing was saved for undo either


WITHOUT_TORCH = """
import sys

for name in ("torch", "torchvision", "segment_anything"):
    sys.modules[name] = None  # as if it were not installed
sys.path[:0] = [ROOT]
sys.path.append(ROOT + "/SlideSAM")
from pathlib import Path
from Testing.host import headless, module_host, pythonqt_host

pythonqt_host.install()
session = headless.start()
slidesam, _ = module_host.load(Path(ROOT, "SlideSAM", "SlideSAM.py"))
assert "SlideSAMLib" not in sys.modules and "scipy" not in sys.modules, "heavy imports at load"
from Testing.slicer import scenes

scene = scenes.Scene()
before = scenes.snapshot()
try:
    slidesam.SlideSAMLogic().segment(scene.volume, scene.segmentation, points=[scene.ras()])
except RuntimeError as error:
    print(error)
assert scenes.snapshot() == before
from SlideSAMBridge.setup import library
print(library.status())
import slicer

slicer.app.startup()  # registers the effect, which the self-test uses
slidesam.SlideSAMTest().runTest()
"""


def test_without_torch():
    """The module loads, says what to install, and its self-test still runs."""
    script = f"ROOT = {str(ROOT)!r}\n{WITHOUT_TORCH}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    message, status = done.stdout.splitlines()[:2]
    for text in (message, status):
        assert "PyTorch extension" in text and text.endswith(".")
