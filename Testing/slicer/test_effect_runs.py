"""From the prompts to the segment: preview, slide, cancel, errors, correct."""

import numpy as np
import pytest
import slicer
from scipy.ndimage import binary_erosion

from SlideSAMLib import models
from Testing.slicer import scenes
from Testing.slicer.scenes import MIDDLE, SHAPE

pytestmark = pytest.mark.slicer


def window(truth, k):
    """The object on slice k and its two neighbours."""
    found = np.zeros(SHAPE, bool)
    found[k - 1 : k + 2] = truth[k - 1 : k + 2]
    return found


def test_a_click_previews_three_slices(stage_of, quick_model):
    """Encodes one window, and does not touch the segment."""
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click()
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))
    assert [len(centres) for centres in quick_model.encoded] == [1]
    assert not stage.mask().any() and not stage.editor.logic.CanUndo()
    stage.click((6, 5, 6))
    stage.wait()
    assert len(quick_model.encoded) == 1  # cached
    assert "confidence" in stage.message and "Slice 6" in stage.message


def test_why_a_slide_ended_is_told_when_it_is_applied_at_once(stage_of):
    stage = stage_of()
    assert stage.interaction.options.auto_apply
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert "Applied 6 slices" in stage.message and "backward: " in stage.message
    assert "forward: " in stage.message and stage.message.endswith("start another object.")


def test_the_preview_node_is_a_guest(stage_of):
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.click()
    stage.wait()
    node = stage.interaction.preview.node
    assert not node.GetSaveWithScene() and not node.GetDisplayNode().GetSaveWithScene()
    assert node.GetParentTransformNode() is stage.scene.segmentation.GetParentTransformNode()
    assert not node.GetDisplayNode().GetVisibility3D()
    assert node.GetHideFromEditors()  # nobody can choose it to edit
    assert not node.GetUndoEnabled()  # by the undo of the scene, where a script has enabled it
    color = stage.scene.contents.GetSegment("A").GetColor()
    assert np.allclose(node.GetSegmentation().GetSegment("sure").GetColor(), color)
    stage.shut()
    assert node.GetScene() is None


def test_the_preview_is_seen(stage_of):
    """Pixels change where the object is, and on the previewed slices only."""
    stage = stage_of()
    plain = stage.view.pixels()
    stage.click()
    stage.wait()
    shown = stage.view.pixels()
    x, y = (round(v) for v in stage.xy((6, 6, 6)))
    assert not np.array_equal(shown[y, x], plain[y, x])
    far = stage.xy((1, 1, 6))
    x, y = (round(v) for v in far)
    assert np.array_equal(shown[y, x], plain[y, x])


def test_the_preview_grows_in_a_view_that_stands_still(stage_of):
    """The slide crosses a sagittal view slice by slice; nothing but the preview tells it."""
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.effect.setParameter("AutoApply", 0)
    yellow = stage.views["Yellow"]
    plain = yellow.pixels().astype(int)

    def colored():
        return int((np.abs(yellow.pixels() - plain).sum(axis=2) > 30).sum())

    stage.click()
    stage.wait()
    small = colored()
    stage.panel.segment.click()
    stage.wait()
    assert 0 < 1.5 * small < colored()
    stage.panel.clear.click()
    assert colored() == 0


def test_candidates_are_cycled(stage_of):
    stage = stage_of()
    stage.click()
    stage.wait()
    sizes = [stage.preview().sum()]
    for _ in range(3):
        stage.key("c")
        stage.wait()
        sizes.append(stage.preview().sum())
    assert len(set(sizes[:3])) == 3 and sizes[3] == sizes[0]
    stage.key("c")
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert 0 < stage.mask()[6].sum() != stage.scene.truth[6].sum()  # the chosen one counts


@pytest.mark.parametrize("view", ["Red", "Yellow", "Green"])
@pytest.mark.parametrize(
    ("geometry", "transforms"),
    [("oblique", ("volume",)), ("anisotropic", ("volume", "segmentation")), ("sagittal scan", ())],
)
def test_every_voxel_where_it_belongs(stage_of, view, geometry, transforms):
    stage = stage_of(geometry, transforms, view_names=(view,))
    stage.click()
    stage.key("Return")
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert stage.interaction.preview.node is None  # it is in the segment now
    assert np.array_equal(slicer_array(stage), stage.scene.image)


def slicer_array(stage):

    return slicer.util.arrayFromVolume(stage.scene.volume)


def test_direction_and_limits(stage_of):
    stage = stage_of()
    stage.effect.setParameter("Direction", "forward")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    expected = stage.scene.truth.copy()
    expected[:6] = False
    assert np.array_equal(stage.mask(), expected)
    stage.effect.setParameter("Direction", "both")
    stage.effect.setParameter("LimitSlices", 1)
    stage.effect.setParameter("FirstSlice", 5)
    stage.effect.setParameter("LastSlice", 7)
    stage.effect.setParameter("Mode", "replace")
    stage.panel.segment.click()
    stage.wait()
    assert np.flatnonzero(stage.mask().any(axis=(1, 2))).tolist() == [5, 6, 7]


def test_cancel_keeps_what_is_finished(stage_of, quick_model):
    stage = stage_of()
    quick_model.delay = 0.05
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    assert stage.panel.cancel.isEnabled() and not stage.panel.segment.isEnabled()
    stage.wait(lambda: stage.interaction.work.slices)
    assert stage.panel.progress.isVisibleTo(stage.effect.optionsFrame())
    stage.panel.cancel.click()
    stage.wait()
    shown = stage.preview()
    assert 0 < shown.sum() < stage.scene.truth.sum() and not stage.mask().any()
    assert "Cancelled" in stage.message
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), shown)
    quick_model.delay = 0
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_an_error_is_told_once_and_ends_the_job(stage_of, quick_model):
    stage = stage_of()
    stage.click()
    stage.wait()
    told = []
    say = stage.interaction.say
    stage.interaction.say = lambda text, kind="info": (told.append((text, kind)), say(text, kind))
    quick_model.error = RuntimeError("The model broke.")
    stage.panel.segment.click()
    stage.wait()
    assert told.count(("The model broke.", "error")) == 1 and told[-1][1] == "error"
    assert not stage.mask().any() and stage.panel.segment.isEnabled()
    quick_model.error = None
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_missing_model_is_told(stage_of):
    stage = stage_of(model="no such model")
    stage.click()
    stage.wait()
    assert "no such model" in stage.message and len(stage.interaction.book.prompts) == 1


class Hungry:
    """A model whose GPU has room for `room` more windows, and at half precision for `half` more."""

    def __init__(self, monkeypatch, stage_of, half):
        self.loaded, self.room, self.half = [], 10**6, half
        monkeypatch.setattr(models, "_LOADERS", dict(models._LOADERS))
        models.register_model("large", self.load)
        self.stage = stage_of(model="large")
        self.stage.effect.setParameter("Precision", "float32")
        self.stage.effect.setParameter("AutoApply", 0)
        self.stage.interaction.readiness.load()
        self.stage.wait()
        self.loaded = self.loaded[-1:]
        self.told = []
        say = self.stage.interaction.say
        self.stage.interaction.say = lambda t, kind="info": (self.told.append(t), say(t, kind))

    def load(self, device, precision):
        import torch

        made = scenes.model()
        made.device, made.precision = device, precision
        self.loaded.append((device, precision))
        predict = made.predict

        def careful(embedding, prompt):
            if device != "cpu":
                name = "room" if precision == "float32" else "half"
                setattr(self, name, getattr(self, name) - 1)
                if getattr(self, name) < 0:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
            return predict(embedding, prompt)

        made.predict = careful
        return made

    def tells(self):
        return [
            each for each in ("trying again", "with the CPU") if any(each in t for t in self.told)
        ]


@pytest.mark.parametrize(
    ("half", "loaded", "told"),
    [
        (10**6, ["float32", "auto"], ["trying again"]),
        (0, ["float32", "auto", "cpu"], ["trying again", "with the CPU"]),
        (2, ["float32", "auto", "cpu"], ["trying again", "with the CPU"]),
    ],
)
@pytest.mark.parametrize("job", ["preview", "run", "correct"])
def test_memory_of_the_gpu_is_too_small(stage_of, monkeypatch, job, half, loaded, told):
    """The job goes on with less memory, then with the CPU, and says so; nothing is lost."""
    hungry = Hungry(monkeypatch, stage_of, half)
    stage = hungry.stage
    if job != "preview":
        stage.click()
        stage.wait()
    if job == "correct":
        stage.panel.segment.click()
        stage.wait()
        assert np.array_equal(stage.preview(), stage.scene.truth)
    hungry.room = 0 if job == "preview" else 1
    if job == "run":
        stage.panel.segment.click()
    else:
        stage.scroll_to((6, 5, 5 if job == "correct" else 6))
        stage.click((6, 5, 5 if job == "correct" else 6))
    stage.wait()
    seen = [precision if device != "cpu" else "cpu" for device, precision in hungry.loaded]
    short = job == "preview" and half == 2  # one window, for which there is room
    assert seen == (loaded[:2] if short else loaded)
    assert hungry.tells() == (told[:1] if short else told)
    assert stage.interaction.message.kind == "info"
    expected = window(stage.scene.truth, 6) if job == "preview" else stage.scene.truth
    assert np.array_equal(stage.preview(), expected)


def test_memory_of_the_cpu_is_too_small(stage_of, quick_model):
    """Nothing is left to try: one sentence, once."""
    import torch

    stage = stage_of()
    stage.effect.setParameter("Device", "cpu")
    quick_model.error = torch.OutOfMemoryError("no memory")
    stage.click()
    stage.wait()
    assert stage.interaction.message.kind == "error" and "no memory" in stage.message


def test_correct_slides_only_where_it_matters(stage_of, quick_model):
    stage = stage_of()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    stage.scroll_to((6, 6, 3))
    quick_model.predictions = 0
    stage.click((6, 6, 3))
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    # The corrected slice, the stretch to the prompted slice 6, and the rest below.
    assert 0 < quick_model.predictions < 9
    assert stage.interaction.work.session.prompts.keys() == {3, 6}


def test_a_correction_that_grows_unsure_leaves_the_segment_behind_it(stage_of, quick_model):
    stage = stage_of()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    first = int(np.flatnonzero(stage.scene.truth.any((1, 2)))[0])

    def quality(window, exact):
        return np.full(3, 0.95 if window.key[-1] > first + 1 else 0.01, np.float32)

    quick_model._model.quality = quality
    stage.scroll_to((6, 6, first + 3))
    stage.click((6, 6, first + 3))
    stage.wait()
    work = stage.interaction.work
    assert str(work.session.stops["backward"]) == "low quality"
    assert first in work.session.confidence
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_click_where_nothing_was_found_changes_nothing_elsewhere(stage_of, quick_model):
    """The slide from the added slice goes over the slices that were found, and leaves them."""
    stage, model = stage_of(), quick_model._model
    usual = type(model)._masks

    def unsure(window, exact):
        return np.full(3, 0.95 if window.key[-1] < 8 else 0.01, np.float32)

    def smaller(window, prompt):
        return binary_erosion(usual(model, window, prompt), np.ones((1, 3, 3)))

    model.quality = unsure
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    found = stage.mask()
    assert found[7].any() and not found[8:].any()
    del model.quality
    model._masks = smaller
    stage.scroll_to((6, 5, 8))
    stage.click((6, 5, 8))
    stage.wait()
    corrected = stage.mask()
    assert np.array_equal(corrected[:8], found[:8])
    assert 0 < corrected[8].sum() < stage.scene.truth[8].sum()


def test_prompts_of_several_orientations_work_together(stage_of):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click(MIDDLE, "Red")
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    stage.click((9, 5, 4), "Yellow")  # corrects slice 4 of the axial result
    stage.wait()
    assert stage.interaction.work.axis == 2
    assert stage.interaction.work.session.prompts.keys() == {4, 6}
    assert np.array_equal(stage.mask(), stage.scene.truth)
    stage.drag((9, 4, 3), (9, 11, 8), "Yellow")
    assert "another direction" in stage.message


def test_existing_work_is_a_prompt(stage_of):
    stage = stage_of()
    stage.panel.existing.click()
    assert "nothing on this slice" in stage.message
    drawn = np.zeros(SHAPE, bool)
    drawn[6] = stage.scene.truth[6]
    stage.write("A", drawn)
    stage.panel.existing.click()
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))
    stage.shut()
    stage.open()  # from the tag
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_negative_points_alone_find_nothing(stage_of):
    stage = stage_of()
    stage.click(ctrl=1)
    stage.wait()  # for the window under the mouse: it goes on being encoded early
    assert "negative" in stage.message and not stage.preview().any()
    stage.panel.segment.click()
    stage.wait()
    assert stage.interaction.message.kind == "error" and not stage.mask().any()
    stage.click((6, 5, 6))
    stage.wait()
