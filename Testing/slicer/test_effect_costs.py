"""What an edit costs: only the part of a large volume that it changes is read, never all of it."""

import tracemalloc

import numpy as np
import pytest
import slicer
from SlideSAMBridge.drawing import overlay
from SlideSAMBridge.effect import applying
from SlideSAMBridge.scene import editing, lattice, neighbours, segments
from SlideSAMBridge.scene.prompt_set import from_json
from SlideSAMBridge.scene.source import Source
from SlideSAMBridge.tasks import work

from SlideSAMLib import prompt_json
from Testing.host.scripted_effect import ScriptedEffect
from Testing.slicer.scenes import SHAPE

pytestmark = pytest.mark.slicer


@pytest.fixture
def whole_reads(monkeypatch):
    """What was asked for that the logic works out for all voxels of the segmentation."""
    asked = []
    for name in ("selectedSegmentLabelmap", "sourceVolumeImageData"):
        original = getattr(ScriptedEffect, name)

        def counted(self, name=name, original=original):
            asked.append(name)
            return original(self)

        monkeypatch.setattr(ScriptedEffect, name, counted)
    return asked


def block():
    mask = np.zeros(SHAPE, bool)
    mask[4:8, 1:9, 6:12] = True
    return mask


def test_a_segment_on_the_same_grid_is_not_resampled(stage_of, whole_reads):
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.write("A", block())
    stage.panel.existing.click()
    (mark,) = stage.interaction.book.prompts.marks
    assert np.array_equal(mark.mask, block()[6])
    stage.interaction.clear()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth | block())
    assert "selectedSegmentLabelmap" not in whole_reads


@pytest.mark.parametrize("step", [0.5, 1, 2])
@pytest.mark.parametrize("first", [(8, 2, 1), (15, 6, -4)])
def test_a_segment_is_read_as_slicer_reads_it(stage_of, step, first):
    """On whatever lattice it is: the logic's own labelmap has the same voxels."""
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.scene.import_segment("C", step, first)
    stage.editor.node.SetSelectedSegmentID("C")
    part = stage.interaction.reader.part()
    small = part.cropped((7, 17, 3, 12, 2, 8))
    found = applying.selected_mask(stage.effect, small)
    logic = stage.editor.logic
    assert logic.UpdateSelectedSegmentLabelmap()
    theirs = applying.editing.on_lattice(logic.GetSelectedSegmentLabelmap(), small) != 0
    assert found.any() and np.array_equal(found, theirs)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_part_of_a_result_needs_no_whole_mask(axis):
    shape = (40, 160, 200)
    part = lattice.Lattice((10, 209, -5, 154, 3, 42), np.eye(4), np.eye(4))
    source = Source(np.broadcast_to(np.int16(0), shape), part, ())
    made = work.Work("A", axis, source, None)
    truth = np.zeros(shape, bool)
    truth[20:26, 70:90, 100:130] = True
    truth[24, 70, 100] = False
    stacked = np.moveaxis(truth, 2 - axis, 0)
    low = int(np.flatnonzero(stacked.any((1, 2)))[0])
    for index in (low - 1, *np.flatnonzero(stacked.any((1, 2))).tolist()):
        made.slices[index] = (stacked[index].copy(), 1.0)
    tracemalloc.start()
    try:
        mask, last = applying._masks(made, "add")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last.part.extent == (110, 139, 65, 84, 23, 28)
    assert np.array_equal(mask, truth[20:26, 70:90, 100:130])
    assert peak < truth.size / 10


def test_the_volume_is_copied_once_and_not_kept_by_the_logic(stage_of, whole_reads):
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert "sourceVolumeImageData" not in whole_reads


@pytest.fixture
def drawn(monkeypatch):
    """How often the prompts were drawn in a view: a list that grows."""
    calls, original = [], overlay.Overlay.show

    def counted(self, *arguments):
        calls.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(overlay.Overlay, "show", counted)
    return calls


def test_undo_is_looked_at_once_whatever_the_number_of_segments(stage_of, drawn, monkeypatch):
    """Slicer then tells of every segment that it has changed, several times each."""
    stage = stage_of()
    for number in range(30):
        stage.scene.contents.AddEmptySegment(f"Other {number}")
    stage.click()
    stage.wait()
    stage.editor.logic.SaveStateForUndo()
    stage.scene.contents.GetSegment("A").SetTag("SlideSAM.Prompts", "")
    assert stage.actors() == 0
    looks, original = [], stage.interaction.marks_changed
    monkeypatch.setattr(
        stage.interaction, "marks_changed", lambda: (looks.append(1), original())[1]
    )
    drawn.clear()
    stage.editor.logic.Undo()
    stage.wait()
    assert stage.actors() == 2  # they are back
    assert len(looks) <= 4 and len(drawn) <= 4


def test_other_segments_that_change_are_not_drawn_for(stage_of, drawn):
    stage = stage_of()
    stage.scene.contents.AddEmptySegment("B")
    stage.click()
    stage.wait()
    drawn.clear()
    stage.scene.contents.GetSegment("B").SetName("liver")
    stage.scene.contents.GetSegment("B").SetColor(0.1, 0.2, 0.3)
    stage.scene.contents.GetSegment("A").SetName("spleen")  # its prompts are where they were
    assert drawn == []
    stage.scene.contents.GetSegment("A").SetColor(0.1, 0.2, 0.3)
    assert np.allclose(stage.interaction.preview.color, (0.1, 0.2, 0.3))


def test_what_others_lose_needs_no_mask_for_each_of_them(session):
    """A hundred segments in a large result would be a hundred times its size."""
    part = lattice.Lattice((0, 59, 0, 59, 0, 39), np.eye(4), np.eye(4))
    labels = np.zeros(part.shape, np.uint8)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    for value in range(1, 31):
        labels[value, 5:8, value : value + 4] = value
    labels[labels == 0] = 31  # the result itself fills the rest
    image = editing.label_image(labels, part)
    for value in range(1, 32):
        segment = slicer.vtkSegment()
        segment.SetLabelValue(value)
        segment.AddRepresentation("Binary labelmap", image)
        segmentation.GetSegmentation().AddSegment(segment, "A" if value == 31 else f"S{value}")
    where = np.ones(part.shape, bool)
    tracemalloc.start()
    try:
        had = neighbours.owned(segmentation, "A", part, where)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(had) == 30 and peak < 10 * where.size
    gone = neighbours.lost(had, {**had, "S7": had["S7"][2:]})
    assert list(gone) == ["S7"] and np.array_equal(gone["S7"], np.flatnonzero(labels == 7)[:2])
    voxels = neighbours.voxels_at(gone["S7"], part)
    assert voxels.tolist() == [[7, 5, 7], [7, 5, 8]]
    moved = part.cropped((8, 59, 4, 59, 7, 39))  # has the second of them alone
    assert neighbours.places_of(voxels, moved).tolist() == [52]


def test_a_correction_looks_for_neighbours_only_where_it_writes(stage_of, monkeypatch):
    stage = stage_of()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    looked, original = [], neighbours.owned

    def spied(node, but, part, where):
        looked.append(part.shape)
        return original(node, but, part, where)

    monkeypatch.setattr(neighbours, "owned", spied)
    stage.click((6, 5, 6))  # the result is as before; the marked slice is written all the same
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert [shape[0] for shape in looked] == [1, 1]


def test_a_click_does_not_write_and_read_all_masks_again(stage_of, monkeypatch):
    """On large slices each of them takes some ten milliseconds."""
    stage = stage_of()
    stage.write("A", block())
    for k in (5, 6):
        stage.scroll_to((9, 7, k))
        stage.panel.existing.click()
        stage.wait()
    calls = []
    for name in ("mask_to_object", "mask_from_object"):
        original = getattr(prompt_json, name)
        monkeypatch.setattr(
            prompt_json,
            name,
            lambda value, name=name, original=original: (calls.append(name), original(value))[1],
        )
    stage.click()
    stage.wait()
    assert calls == []
    marks = stage.interaction.book.prompts.marks
    assert [mark.kind for mark in marks] == ["mask", "mask", "point"]
    assert marks[0].key is marks[0].key  # a hash of all its voxels
    saved = from_json(segments.saved_text(stage.scene.segmentation, "A"), None)
    assert [m.key for m in saved.marks] == [m.key for m in marks]
    assert calls == ["mask_from_object"] * 2


def test_only_the_selected_segment_has_its_result_as_masks(stage_of):
    """Somebody segments a hundred objects in one go; each of them may be corrected later."""
    stage = stage_of()
    stage.effect.setParameter("AutoApply", 0)
    stage.scene.contents.AddEmptySegment("B")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    shown, confidence = stage.preview(), stage.panel.strip.state.confidence
    weakest = stage.interaction.work.weakest
    stage.editor.node.SetSelectedSegmentID("B")
    (small,) = stage.interaction._works.values()
    size = sum(mask.nbytes for mask, _confidence in small.slices.values())
    assert len(small.slices) == 6 and size <= 6 * (SHAPE[1] * SHAPE[2] // 8)
    assert small.session is None and not small.initial
    stage.click()  # the other one's work is not touched
    stage.wait()
    stage.shut()
    stage.open()  # it waits as it is
    assert not stage.preview().any() and stage.interaction._works["A"].packed
    stage.editor.node.SetSelectedSegmentID("A")
    assert np.array_equal(stage.preview(), shown) and shown.any()
    assert stage.panel.strip.state.confidence == confidence
    assert stage.interaction.work.weakest == weakest and stage.panel.apply.isEnabled()
    stage.click((6, 5, 6))  # a correction goes on from it
    stage.wait()
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
