"""What the tests of writing and of its undo share."""

import numpy as np
import slicer

from Testing.slicer import scenes


def run(slidesam_logic, scene, **options):
    call = {"points": [scene.ras()], "model": scenes.model(), **options}
    return slidesam_logic.segment(scene.volume, scene.segmentation, **call)


def add_block(scene, name, block):
    """A segment with the voxels of a bool array (K, J, I), made without the code under test."""
    segment = scene.contents.AddEmptySegment(name, name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        block.astype(np.uint8), scene.segmentation, segment, scene.volume
    )
    return segment


def half():
    block = np.zeros(scenes.SHAPE, bool)
    block[:, :, :9] = True
    return block


def editor_node(scene, **settings):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    for name, value in settings.items():
        getattr(node, "Set" + name)(*(value if isinstance(value, tuple) else (value,)))
    return node
