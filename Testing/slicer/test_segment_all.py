"""Segmenting all prompted segments, from the panel and from the console."""

import pytest
import slicer

from Testing.fakes import ThresholdModel
from Testing.slicer import scenes
from Testing.slicer.panel_tools import exact, find, wait
from Testing.slicer.scenes import Scene

pytestmark = pytest.mark.slicer


def test_segment_all_writes_every_prompted_segment(panel, prompted):
    assert find(panel, "SlideSAMVolume").currentNode() is prompted.volume
    find(panel, "SlideSAMSegmentAll").click()
    assert not find(panel, "SlideSAMSegmentAll").enabled
    wait(lambda: panel.batch.ticker.job is None)
    # Overwriting is off where no Segment Editor shows the segmentation: both have all voxels.
    assert exact(prompted, "A") and exact(prompted, "B")
    message = find(panel, "SlideSAMBatchMessage").text
    assert message.startswith("Segments written: 2.\nBad: The saved prompts cannot be read")
    panel.logic.undo()
    assert not prompted.has("A") and not prompted.has("B")
    assert not panel.logic.canUndo()


def test_segment_all_from_the_console(panel, prompted, slidesam):
    report = slidesam.SlideSAMLogic().segmentAll(prompted.segmentation, model="threshold")
    assert report.written == [prompted.ids["A"], prompted.ids["B"]]
    assert list(report.failed) == [prompted.ids["Bad"]]
    assert exact(prompted, "A") and exact(prompted, "B")


def test_all_of_many_segments_are_one_step_of_undo(prompted, slidesam):
    from SlideSAMBridge.scene import segments
    from SlideSAMBridge.scene.marks import TAG

    from Testing.slicer.scenes import model

    text = segments.saved_text(prompted.segmentation, prompted.ids["A"])
    for number in range(12):
        made = prompted.contents.AddEmptySegment("", f"More {number}")
        prompted.contents.GetSegment(made).SetTag(TAG, text)
    logic, names = slidesam.SlideSAMLogic(), ("A", "B", "More 0", "More 11")
    report = logic.segmentAll(prompted.segmentation, model=model())
    assert len(report.written) == 14 and all(prompted.has(name) for name in names)
    logic.undo()
    assert not logic.canUndo() and not any(prompted.has(name) for name in names)
    logic.redo()
    assert all(prompted.has(name) for name in names)


def without_geometry(prompted):
    """A segmentation without geometry whose only segment has the prompts of A."""
    from SlideSAMBridge.scene import segments
    from SlideSAMBridge.scene.marks import TAG

    scene = prompted.of(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    text = segments.saved_text(prompted.segmentation, prompted.ids["A"])
    scene.ids = {"A": scene.contents.AddEmptySegment("", "A")}
    scene.contents.GetSegment(scene.ids["A"]).SetTag(TAG, text)
    return scene


def test_where_nothing_is_written_the_scene_is_as_it_was(panel, prompted, slidesam, quick_model):
    scene, logic = without_geometry(prompted), panel.logic
    before = scenes.snapshot()
    with pytest.raises(ValueError, match="no model"):
        logic.segmentAll(scene.segmentation, scene.volume, "bogus")
    assert scenes.snapshot() == before
    quick_model.error = RuntimeError("The model is broken.")
    assert not logic.segmentAll(scene.segmentation, scene.volume, quick_model).written
    node = slicer.util.getNode("SlideSAM editor").GetID()  # of the call that went through
    assert scenes.snapshot() == {**before, node: "vtkMRMLSegmentEditorNode"}
    find(panel, "SlideSAMSegmentation").setCurrentNode(scene.segmentation)
    find(panel, "SlideSAMVolume").setCurrentNode(scene.volume)
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    assert "Segments written: 0" in find(panel, "SlideSAMBatchMessage").text
    assert scenes.snapshot() == {**before, node: "vtkMRMLSegmentEditorNode"}
    quick_model.error = None
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    assert exact(scene, "A")


def test_a_geometry_that_was_changed_meanwhile_stays(panel, prompted, quick_model):
    scene = without_geometry(prompted)
    find(panel, "SlideSAMSegmentation").setCurrentNode(scene.segmentation)
    find(panel, "SlideSAMVolume").setCurrentNode(scene.volume)
    quick_model.delay = 0.05
    find(panel, "SlideSAMSegmentAll").click()
    scene.oversample(2)
    mine = scenes.snapshot()[scene.segmentation.GetID()]
    wait(lambda: panel.batch.ticker.job is None)
    assert "Segments written: 0" in find(panel, "SlideSAMBatchMessage").text
    assert scenes.snapshot()[scene.segmentation.GetID()] == mine


class GpuModel(ThresholdModel):
    """As if on a GPU, which takes several windows at once. calls : how many, call by call."""

    def __init__(self):
        super().__init__()
        self.device, self.calls = "cuda:0", []

    def prompts_at_once(self):
        return 8

    def predict_many(self, embeddings, prompts):
        self.calls.append(len(prompts))
        return [self.predict(*each) for each in zip(embeddings, prompts, strict=True)]


def test_on_a_gpu_segments_are_slid_along_together(prompted, slidesam):
    model, logic = GpuModel(), slidesam.SlideSAMLogic()
    report = logic.segmentAll(prompted.segmentation, model=model)
    assert report.written == [prompted.ids["A"], prompted.ids["B"]]
    assert exact(prompted, "A") and exact(prompted, "B")
    assert max(model.calls) == 4  # two objects, two directions each
    logic.undo()
    assert not prompted.has("A") and not prompted.has("B")  # one step of undo


def test_on_a_gpu_one_that_fails_does_not_stop_the_others(prompted, slidesam, monkeypatch):
    model = GpuModel()
    predict_many = model.predict_many

    def fails_for_b(embeddings, prompts):
        if any(each.window.slices.shape[2] < 20 for each in embeddings):  # B slides along I
            raise RuntimeError("The model is broken.")
        return predict_many(embeddings, prompts)

    monkeypatch.setattr(model, "predict_many", fails_for_b)
    report = slidesam.SlideSAMLogic().segmentAll(prompted.segmentation, model=model)
    assert report.written == [prompted.ids["A"]] and exact(prompted, "A")
    assert report.failed[prompted.ids["B"]] == "The model is broken."


@pytest.mark.parametrize("room", [0, 10, 60])
def test_memory_of_the_gpu_is_too_small(panel, prompted, monkeypatch, room):
    """What has no answer yet is slid along with less memory, then on the CPU."""
    import torch
    from SlideSAMBridge.tasks import work

    from SlideSAMLib import models
    from Testing.slicer.scenes import model

    loads, left, told = [], [room], []

    def load(device, precision):
        made = model()
        made.device = device if device == "cpu" else "cuda:0"
        predict = made.predict
        loads.append((device, precision))

        def hungry(embedding, prompt):
            left[0] -= device != "cpu"
            if device != "cpu" and left[0] < 0:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return predict(embedding, prompt)

        made.predict = hungry
        return made

    models.register_model("large", load)
    for name, value in (("model", "large"), ("precision", "float32")):
        slicer.app.userSettings().setValue(f"SlideSAM/{name}", value)
    take = panel.batch._take

    def noted(event):
        take(event)
        if isinstance(event, work.Notice):
            told.append(find(panel, "SlideSAMBatchMessage").text)

    monkeypatch.setattr(panel.batch, "_take", noted)
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    assert find(panel, "SlideSAMBatchMessage").text.startswith("Segments written: 2.\nBad:")
    assert exact(prompted, "A") and exact(prompted, "B")
    assert loads == [("auto", "float32"), ("auto", "auto"), ("cpu", "auto")][: 1 + len(told)]
    assert len(told) == (0 if room > 50 else 2)
    assert not told or ("trying again" in told[0] and "with the CPU" in told[1])


def test_a_second_run_encodes_only_what_has_changed(panel, prompted, quick_model):
    def encoded():
        before = len(quick_model.encoded)
        find(panel, "SlideSAMSegmentAll").click()
        wait(lambda: panel.batch.ticker.job is None)
        assert exact(prompted, "A") and exact(prompted, "B")
        return len(quick_model.encoded) - before

    assert encoded() > 0
    assert encoded() == 0
    slicer.util.arrayFromVolumeModified(prompted.volume)
    assert encoded() > 0


def test_cancelled_the_finished_segments_stay(panel, prompted, quick_model):
    quick_model.delay = 0.02
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: prompted.has("A"))
    find(panel, "SlideSAMCancelAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    assert exact(prompted, "A") and not prompted.has("B")
    assert find(panel, "SlideSAMBatchMessage").text.startswith("Cancelled.")


def test_a_failing_model_ends_it_with_its_message(panel, prompted, quick_model, monkeypatch):
    def fails(*_):
        raise RuntimeError("The model is broken.")

    monkeypatch.setattr(quick_model, "predict", fails)
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    assert "A: The model is broken." in find(panel, "SlideSAMBatchMessage").text
    assert not prompted.has("A")


def test_whatever_fails_is_said_and_the_others_are_written(panel, prompted, monkeypatch, capsys):
    from SlideSAMBridge.scene import editing

    write = editing.Editor.write

    def fails_for_a(self, segment_id, *arguments):
        if segment_id == prompted.ids["A"]:
            raise MemoryError
        write(self, segment_id, *arguments)

    monkeypatch.setattr(editing.Editor, "write", fails_for_a)
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    message = find(panel, "SlideSAMBatchMessage").text
    assert message.startswith("Segments written: 1.\n") and exact(prompted, "B")
    assert "A: The memory of this computer is too small: " in message
    assert "MemoryError" in capsys.readouterr().err  # the log has all of it


def test_a_model_that_cannot_be_loaded_says_why(panel, prompted, monkeypatch):
    from SlideSAMLib import models

    def fails(device, precision):
        raise KeyError("weights")

    monkeypatch.setitem(models._LOADERS, "threshold", fails)
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    message = find(panel, "SlideSAMBatchMessage").text
    assert message.startswith("The work failed (KeyError: 'weights')")


@pytest.mark.parametrize("what", ["scene closed", "segmentation removed", "cleanup"])
def test_nothing_is_written_into_a_scene_that_went_away(panel, prompted, quick_model, what, capsys):
    quick_model.delay = 0.02
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: "slices" in find(panel, "SlideSAMBatchMessage").text)
    if what == "scene closed":
        slicer.mrmlScene.Clear()
        assert panel.batch.ticker.job is None
    elif what == "cleanup":
        panel.batch.close()
        assert panel.batch.ticker.job is None
    else:
        slicer.mrmlScene.RemoveNode(prompted.segmentation)
        wait(lambda: panel.batch.ticker.job is None)
        assert "Segments written: 0" in find(panel, "SlideSAMBatchMessage").text
    assert "Traceback" not in capsys.readouterr().err


def test_without_prompts_it_says_what_to_do(panel):
    scene = Scene(oversampling=1)
    scene.contents.AddEmptySegment("", "A")
    find(panel, "SlideSAMSegmentAll").click()
    assert "Choose a segmentation" in find(panel, "SlideSAMBatchMessage").text
    find(panel, "SlideSAMSegmentation").setCurrentNode(scene.segmentation)
    find(panel, "SlideSAMVolume").setCurrentNode(scene.volume)
    find(panel, "SlideSAMSegmentAll").click()
    assert "mark the objects" in find(panel, "SlideSAMBatchMessage").text
    assert panel.batch.ticker.job is None


def test_the_volume_of_another_segmentation_is_not_taken(panel, prompted, quick_model):
    """As one that was loaded from a file, the second segmentation does not know its volume."""
    scene = without_geometry(prompted)
    volume = find(panel, "SlideSAMVolume")
    assert volume.currentNode() is prompted.volume
    find(panel, "SlideSAMSegmentation").setCurrentNode(scene.segmentation)
    assert volume.currentNode() is None
    find(panel, "SlideSAMSegmentAll").click()
    assert find(panel, "SlideSAMBatchMessage").text.startswith("Choose the volume")
    volume.setCurrentNode(prompted.volume)  # chosen by hand it stays
    find(panel, "SlideSAMSegmentation").setCurrentNode(None)
    find(panel, "SlideSAMSegmentation").setCurrentNode(scene.segmentation)
    assert volume.currentNode() is prompted.volume
