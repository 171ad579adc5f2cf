"""What a write respects and leaves behind: masking, overwrite, range, names, tags."""

import numpy as np
import pytest
import slicer

from Testing.slicer import scenes
from Testing.slicer.editing_tools import add_block, editor_node, half, run
from Testing.slicer.scenes import Scene

pytestmark = pytest.mark.slicer


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("EditAllowedEverywhere", "everything"),
        ("EditAllowedInsideAllSegments", "inside"),
        ("EditAllowedInsideVisibleSegments", "inside"),
        ("EditAllowedOutsideAllSegments", "outside"),
        ("EditAllowedOutsideVisibleSegments", "outside"),
        ("EditAllowedInsideSingleSegment", "inside"),
    ],
)
def test_mask_modes(session, slidesam, mode, expected):
    scene = Scene(oversampling=1)
    scene.segmentation.CreateDefaultDisplayNodes()
    add_block(scene, "Half", half())
    node = editor_node(
        scene,
        MaskMode=getattr(slicer.vtkMRMLSegmentationNode, mode),
        MaskSegmentID="Half",
        OverwriteMode=slicer.vtkMRMLSegmentEditorNode.OverwriteNone,
    )
    segment = run(slidesam.SlideSAMLogic(), scene, editorNode=node)
    truths = {
        "everything": scene.truth,
        "inside": scene.truth & half(),
        "outside": scene.truth & ~half(),
    }
    assert np.array_equal(scene.mask(segment), truths[expected])
    assert np.array_equal(scene.mask("Half"), half())


@pytest.mark.parametrize(
    ("mode", "hidden", "loses"),
    [
        ("OverwriteAllSegments", True, True),
        ("OverwriteVisibleSegments", False, True),
        ("OverwriteVisibleSegments", True, False),
        ("OverwriteNone", False, False),
    ],
)
def test_overwrite_modes(session, slidesam, mode, hidden, loses):
    scene = Scene(oversampling=1)
    scene.segmentation.CreateDefaultDisplayNodes()
    add_block(scene, "Half", half())
    scene.segmentation.GetDisplayNode().SetSegmentVisibility("Half", not hidden)
    node = editor_node(scene, OverwriteMode=getattr(slicer.vtkMRMLSegmentEditorNode, mode))
    segment = run(slidesam.SlideSAMLogic(), scene, editorNode=node)
    assert np.array_equal(scene.mask(segment), scene.truth)
    assert np.array_equal(scene.mask("Half"), half() & ~scene.truth if loses else half())


def test_intensity_range(session, slidesam):
    image = np.where(scenes.object_mask(), 400, 0).astype(np.int16)
    image[:, ::2] *= 2  # every other row of the object is 800
    scene = Scene(image=image)
    node = editor_node(
        scene, SourceVolumeIntensityMask=True, SourceVolumeIntensityMaskRange=(300, 500)
    )
    segment = run(slidesam.SlideSAMLogic(), scene, editorNode=node)
    assert np.array_equal(scene.mask(segment), image == 400)


def test_neutral_without_an_editor(session, slidesam):
    """No Segment Editor around: other segments keep every voxel."""
    scene = Scene(oversampling=1)
    add_block(scene, "Half", half())
    segment = run(slidesam.SlideSAMLogic(), scene)
    assert np.array_equal(scene.mask(segment), scene.truth)
    assert np.array_equal(scene.mask("Half"), half())


def test_open_segment_editor_is_respected(session, slidesam):
    """The Segment Editor module's node counts, but only where it edits this segmentation."""
    scene = Scene(oversampling=1)
    add_block(scene, "Half", half())
    node = slicer.vtkMRMLSegmentEditorNode()
    node.SetSingletonTag("SegmentEditor")
    node = slicer.mrmlScene.AddNode(node)
    node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    logic = slidesam.SlideSAMLogic()
    assert np.array_equal(scene.mask(run(logic, scene)), scene.truth)
    logic.undo()
    node.SetAndObserveSegmentationNode(scene.segmentation)
    assert np.array_equal(scene.mask(run(logic, scene)), scene.truth & ~half())


def test_the_users_editor_node_is_not_changed(session, slidesam):
    scene = Scene(oversampling=1)
    node = editor_node(scene, OverwriteMode=slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    before = node.GetMTime()
    run(slidesam.SlideSAMLogic(), scene, editorNode=node)
    assert node.GetMTime() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"MaskMode": slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments},
        {"SourceVolumeIntensityMask": True, "SourceVolumeIntensityMaskRange": (500, 900)},
    ],
)
def test_everything_masked_writes_nothing(session, slidesam, settings):
    scene = Scene(oversampling=1)
    add_block(scene, "Object", scene.truth)
    node = editor_node(scene, **settings)
    before = scenes.snapshot()
    with pytest.raises(RuntimeError, match="masking"):
        run(slidesam.SlideSAMLogic(), scene, editorNode=node)
    assert scenes.snapshot() == before


def test_add_and_replace(session, slidesam):
    scene = Scene(oversampling=1)
    corner = np.zeros(scenes.SHAPE, bool)
    corner[0, :3, :3] = True
    segment = add_block(scene, "Mine", corner)
    logic = slidesam.SlideSAMLogic()
    assert run(logic, scene, segmentId=segment) == segment
    assert np.array_equal(scene.mask(segment), scene.truth | corner)
    run(logic, scene, segmentId=segment, mode="replace")
    assert np.array_equal(scene.mask(segment), scene.truth)


def test_replace_a_segment_on_another_lattice(session, slidesam):
    """As an imported file brings it: nothing of it is left, and one undo brings it back."""
    scene = Scene(oversampling=1)
    scene.import_segment("Coarse", 2)
    before = scene.found("Coarse")
    logic = slidesam.SlideSAMLogic()
    run(logic, scene, segmentId="Coarse", mode="replace")
    assert np.array_equal(scene.mask("Coarse"), scene.truth)
    logic.undo()
    assert np.array_equal(scene.found("Coarse"), before) and not logic.canUndo()


def test_source_volume_is_untouched(session, slidesam):
    scene = Scene(scenes.GEOMETRIES["oblique"], ("volume",))
    voxels = slicer.util.arrayFromVolume(scene.volume).copy()
    times = scene.volume.GetMTime(), scene.volume.GetImageData().GetMTime()
    run(slidesam.SlideSAMLogic(), scene, orientation="K")
    assert (scene.volume.GetMTime(), scene.volume.GetImageData().GetMTime()) == times
    assert np.array_equal(slicer.util.arrayFromVolume(scene.volume), voxels)


def test_names_and_colours(session, slidesam):
    scene = Scene(oversampling=1)
    for name in ("Slide-SAM 2", "liver"):
        scene.contents.AddEmptySegment(name, name, (0.9, 0.62, 0.0))
    logic = slidesam.SlideSAMLogic()
    new = [run(logic, scene) for _ in range(4)]
    names = [scene.contents.GetSegment(n).GetName() for n in new]
    assert names == ["Slide-SAM 1", "Slide-SAM 3", "Slide-SAM 4", "Slide-SAM 5"]
    colors = np.array([scene.contents.GetSegment(n).GetColor() for n in ("liver", *new)])
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(len(colors), dtype=bool)].min() > 0.3
    assert scene.segmentation.GetDisplayNode() is not None


def test_a_segmentation_without_geometry_gets_the_volumes(session, slidesam):
    scene = Scene(scenes.GEOMETRIES["oblique"])
    run(slidesam.SlideSAMLogic(), scene, orientation="K")
    role = scene.segmentation.GetReferenceImageGeometryReferenceRole()
    assert scene.segmentation.GetNodeReference(role) is scene.volume


def test_only_one_hidden_unsaved_node_is_added(session, slidesam):
    scene = Scene(oversampling=1)
    scene.segmentation.CreateDefaultDisplayNodes()
    before = set(scenes.snapshot())
    logic = slidesam.SlideSAMLogic()
    for _ in range(3):
        run(logic, scene)
    (added,) = set(scenes.snapshot()) - before
    node = slicer.mrmlScene.GetNodeByID(added)
    assert node.GetHideFromEditors() and not node.GetSaveWithScene()


def test_prompts_survive_saving(session, slidesam, tmp_path):
    scene = Scene(scenes.GEOMETRIES["oblique"], ("volume", "segmentation"))
    logic = slidesam.SlideSAMLogic()
    points = [scene.ras((9, 7, 6)), scene.ras((1, 2, 6))]
    box = [scene.ras((17, 3, 7)), scene.ras((4, 12, 7))]
    segment = run(logic, scene, points=points, labels=[1, 0], box=box, orientation="K")
    marks = logic.prompts(scene.segmentation, segment)
    assert (marks.axis, marks.points, marks.labels) == (2, ((9, 7, 6), (1, 2, 6)), (1, 0))
    assert marks.box == ((4, 3, 7), (17, 12, 7))
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "result.seg.nrrd"))
    assert storage.WriteData(scene.segmentation) == 1
    loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(loaded) == 1
    assert logic.prompts(loaded, segment) == marks
    assert loaded.GetSegmentation().GetSegment(segment).GetName() == "Slide-SAM 1"


def test_prompts_of_other_segments(session, slidesam):
    scene = Scene(oversampling=1)
    segment = add_block(scene, "Mine", half())
    logic = slidesam.SlideSAMLogic()
    assert logic.prompts(scene.segmentation, segment) is None
    scene.contents.GetSegment(segment).SetTag("SlideSAM.Prompts", '{"version":1,"axis":"Q"}')
    with pytest.raises(ValueError, match="saved prompts"):
        logic.prompts(scene.segmentation, segment)
    with pytest.raises(ValueError, match="no segment"):
        logic.prompts(scene.segmentation, "nobody")


def test_logics_leave_no_editor_node_behind(session, slidesam):
    scene = Scene(oversampling=1)
    kept = slidesam.SlideSAMLogic()
    run(kept, scene)
    run(slidesam.SlideSAMLogic(), scene)
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentEditorNode")) == 1
    assert kept.canUndo()
