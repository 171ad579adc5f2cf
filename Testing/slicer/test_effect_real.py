"""The whole job on a real CT, from mouse events only; the result is the library's, to the voxel."""

import json

import numpy as np
import pytest
import slicer

from Testing.fakes import ThresholdModel
from Testing.slicer import scenes
from Testing.slicer.effect_stage import Stage

pytestmark = [pytest.mark.slicer, pytest.mark.data]


class RealScene(scenes.Scene):
    """The CT of the abdomen with the box of its liver, in mm-scale voxels (i, j, k)."""

    def __init__(self, folder, transforms):
        from SlideSAMLib.images.volumes import read_image

        with open(folder / "manifest.json") as file:
            cases = {case["id"]: case for case in json.load(file)["cases"]}
        case = cases["ct_abdomen_pelvis"]
        image = read_image(folder / case["image"])
        labels = read_image(folder / case["label"], allow_labels=True).array
        value = next(each["value"] for each in case["labels"] if each["name"] == "liver")
        self.liver = labels == value
        super().__init__(_to_ras(image.geometry), transforms, 1, image.array)

    def mask(self, segment_id):
        from SlideSAMBridge.scene import editing, lattice

        grid = lattice.of_volume(self.volume)
        own = lattice.Lattice(grid.extent, grid.ijk_to_local, grid.local_to_ras)
        return editing.segment_mask(self.segmentation, segment_id, own)

    def box(self, axis, index):
        """Two voxels (i, j, k) around the liver on a slice."""
        on_slice = np.argwhere(self.liver.take(index, 2 - axis))
        low, high = on_slice.min(axis=0)[::-1], on_slice.max(axis=0)[::-1]
        return np.insert(low, axis, index), np.insert(high, axis, index)


def _to_ras(geometry):
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    matrix[:3, 3] = geometry.origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


@pytest.fixture
def liver_model(quick_model):
    """Soft tissue, within a little of the box."""
    quick_model._model = ThresholdModel(threshold=0, margin=2)
    quick_model._model.keep_prompts = False
    return quick_model


@pytest.mark.parametrize(
    # The transform turns by a right angle: the sagittal view then shows the coronal slices.
    ("view", "axis", "transforms"),
    [("Red", 2, ()), ("Yellow", 1, ("volume", "segmentation"))],
)
def test_from_the_box_to_the_file(
    session, stage_of, liver_model, data_folder, tmp_path, view, axis, transforms
):
    import SlideSAMLib

    scene = RealScene(data_folder, transforms)
    sizes = scene.liver.sum(axis=tuple({0, 1, 2} - {2 - axis}))
    index = int(np.argmax(sizes)) - 8
    low, high = scene.box(axis, index)
    stage = stage_of(scene=scene, view_names=(view,), size=(500, 500))
    stage.scroll_to(low)
    stage.drag(low, high)
    stage.wait()
    assert len(stage.interaction.preview.shown) == 3 and not stage.mask().any()
    liver_model.delay = 0.02
    stage.key("Return")
    stage.wait(lambda: len(stage.interaction.work.slices) > 4)
    stage.panel.cancel.click()
    liver_model.delay = 0
    stage.wait()
    assert not stage.mask().any() and len(stage.interaction.preview.shown) > 4
    stage.key("Return")
    stage.wait()
    column, row = {2: (0, 1), 1: (0, 2)}[axis]
    box = (low[column], low[row], high[column], high[row])
    expected = SlideSAMLib.segment(
        scene.image,
        [SlideSAMLib.SlicePrompt(index, box=box)],
        spacing=spacing(scene),
        axis=2 - axis,
        model=liver_model._model,
    ).mask
    first = stage.mask()
    assert expected.sum() > 1000 and np.array_equal(first, expected)
    correct(stage, axis, index)
    corrected = stage.mask()
    stage.editor.logic.Undo()
    assert np.array_equal(stage.mask(), first)
    stage.editor.logic.Redo()
    assert np.array_equal(stage.mask(), corrected)
    assert np.array_equal(slicer.util.arrayFromVolume(scene.volume), scene.image)
    before = [mark.key for mark in stage.interaction.book.prompts.marks]
    stage.save_and_load(tmp_path)
    assert np.array_equal(stage.mask(), corrected)
    assert [mark.key for mark in stage.interaction.book.prompts.marks] == before


@pytest.mark.slow
def test_the_builtin_model_from_the_box_to_undo(session, stage_of, data_folder, tmp_path):
    """The same with the model that users have: what is written is the library's own result."""
    import SlideSAMLib

    scene = RealScene(data_folder, ())
    axis, index = 2, int(np.argmax(scene.liver.sum(axis=(1, 2))))
    low, high = scene.box(axis, index)
    stage = stage_of(scene=scene, view_names=("Red",), size=(500, 500), model="builtin")
    end = len(scene.image) - 1
    limits = {"FirstSlice": index - 12, "LastSlice": min(index + 8, end)}  # to save time
    for name, value in {"LimitSlices": 1, **limits}.items():
        stage.effect.setParameter(name, value)
    stage.scroll_to(low)
    stage.drag(low, high)
    stage.wait()
    liver = scene.liver[index]
    shown = stage.preview()[index]
    assert 2 * (shown & liver).sum() > 0.8 * (shown.sum() + liver.sum())  # Dice on this slice
    stage.key("Return")
    stage.wait(lambda: len(stage.interaction.work.slices) > 3)
    stage.panel.cancel.click()
    stage.wait()
    assert not stage.mask().any() and len(stage.interaction.preview.shown) > 3
    stage.key("Return")
    stage.wait(seconds=120)
    expected = SlideSAMLib.segment(
        scene.image,
        [SlideSAMLib.SlicePrompt(index, box=(low[0], low[1], high[0], high[1]))],
        spacing=spacing(scene),
        first=limits["FirstSlice"],
        last=limits["LastSlice"],
        model=stage.interaction.work.session.model,
    )
    first = stage.mask()
    assert expected.mask.sum() > 5000 and np.array_equal(first, expected.mask)
    correct(stage, axis, index)
    corrected = stage.mask()
    assert not np.array_equal(corrected, first)
    stage.editor.logic.Undo()
    assert np.array_equal(stage.mask(), first)
    stage.editor.logic.Redo()
    assert np.array_equal(stage.mask(), corrected)
    before = [mark.key for mark in stage.interaction.book.prompts.marks]
    stage.save_and_load(tmp_path)
    assert np.array_equal(stage.mask(), corrected)
    assert [mark.key for mark in stage.interaction.book.prompts.marks] == before


def spacing(scene):
    return tuple(np.linalg.norm(scene.ijk_to_ras[:3, :3], axis=0)[::-1])


def correct(stage: Stage, axis: int, index: int) -> None:
    """A click inside the object on another slice of the result."""
    there = index - 3
    inside = np.argwhere(stage.mask().take(there, 2 - axis))
    voxel = np.insert(inside[len(inside) // 2][::-1], axis, there)
    stage.scroll_to(voxel)
    stage.click(voxel)
    stage.wait()
    assert {index, there} <= set(stage.interaction.work.session.prompts)
