"""Too little memory, wherever it runs out, is one sentence and leaves the scene as it was."""

import numpy as np
import pytest

from Testing.slicer import scenes
from Testing.slicer.scenes import Scene

pytestmark = pytest.mark.slicer

SAID = "The memory of this computer is too small"
SHORTAGES = {
    "NumPy": lambda: np.zeros((2**20, 2**20, 8)),
    "PyTorch": lambda: (_ for _ in ()).throw(
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 9000000000 bytes. Error code 12 (Cannot allocate)"
        )
    ),
    "Python": lambda: (_ for _ in ()).throw(MemoryError()),
}


@pytest.fixture(params=SHORTAGES)
def short(request):
    """Takes the place of a function, and asks for too much memory."""

    def ask(*_arguments, **_options):
        SHORTAGES[request.param]()

    return ask


def is_a_sentence(text):
    assert text.startswith(SAID) and text.endswith(".") and "\n" not in text
    assert "crop the volume" in text and "()" not in text and "enforce" not in text


@pytest.mark.parametrize(
    "where", ["SlideSAMLib.api.Stack", "SlideSAMBridge.scene.editing.bounding_part"]
)
def test_the_console_says_so(session, slidesam, monkeypatch, short, where):
    scene = Scene()
    before = scenes.snapshot()
    monkeypatch.setattr(where, short)
    with pytest.raises(RuntimeError) as caught:
        slidesam.SlideSAMLogic().segment(
            scene.volume, scene.segmentation, points=[scene.ras()], model=scenes.model()
        )
    is_a_sentence(str(caught.value))
    assert scenes.snapshot() == before


def test_the_console_says_so_of_all_segments(session, slidesam, prompted, monkeypatch, short):
    monkeypatch.setattr("SlideSAMBridge.batch._entries", short)
    with pytest.raises(RuntimeError) as caught:
        slidesam.SlideSAMLogic().segmentAll(prompted.segmentation, model=scenes.model())
    is_a_sentence(str(caught.value))


def test_the_panel_says_so(panel, prompted, monkeypatch, short):
    monkeypatch.setattr("SlideSAMBridge.batch._entries", short)
    panel.batch._start()
    is_a_sentence(panel.batch.message.text)
    assert panel.batch.ticker.job is None


def test_the_effect_says_so_of_what_it_does_itself(stage_of, quick_model, monkeypatch, short):
    stage = stage_of()
    stage.click()
    stage.wait()
    with monkeypatch.context() as patched:
        patched.setattr("SlideSAMBridge.effect.applying.selected_mask", short)
        stage.panel.segment.click()
        stage.wait()
    is_a_sentence(stage.message)
    assert stage.interaction.message.kind == "error" and not stage.mask().any()
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_the_effect_says_so_of_what_the_worker_does(
    stage_of, quick_model, monkeypatch, short, capfd
):
    monkeypatch.setattr("SlideSAMLib.Stack", short)
    stage = stage_of()
    stage.click()
    stage.wait()
    is_a_sentence(stage.message)
    assert stage.interaction.message.kind == "error"
    assert "Error" in capfd.readouterr().err  # the log has all of it
