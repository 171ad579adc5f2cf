"""Set-up of the Slicer tests: environment before the first `import vtk`, skips, the session."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE_FOLDER = ROOT / "SlideSAM"
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if str(MODULE_FOLDER) not in sys.path:
    sys.path.append(str(MODULE_FOLDER))

from SlideSAMBridge.pictures import offscreen  # noqa: E402  (the folder had to be on the path first)

HAS_GL = offscreen.use_software_window()
# A spec without origin is a mere folder of that name: this one is called `slicer` itself.
SPECS = {name: importlib.util.find_spec(name) for name in ("slicer", "PySide6")}
MISSING = [name for name, spec in SPECS.items() if spec is None or spec.origin is None]
if not MISSING:
    from Testing.host import i18n

    i18n.install()  # in Slicer it is there before any module, too


class _LeftOut(pytest.Module):
    """A test file that is skipped without being imported."""

    def collect(self):
        missing = " and ".join(MISSING)
        pytest.skip(f"{missing} cannot be imported (slicer-core, PySide6)", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return _LeftOut.from_parent(parent, path=module_path) if MISSING else None


def pytest_report_header() -> str:
    if MISSING:
        return f"Slicer tests: left out, {' and '.join(MISSING)} cannot be imported"
    return f"Slicer tests: run with slicer-core, GL library {'found' if HAS_GL else 'missing'}"


@pytest.fixture(scope="session")
def qt_application():
    """The stand-ins for Qt and scripted modules, once per process."""
    from Testing.host import pythonqt_host

    return pythonqt_host.install()


@pytest.fixture
def session(qt_application):
    """A fresh scene with slicer.app, slicer.mrmlScene and slicer.modules.

    At the end nothing may stand in the log that Slicer would only print there: exceptions in
    slots and in observers, signals that do not exist.
    """
    from Testing.host import headless, pythonqt_rules

    pythonqt_rules.log.clear()
    started = headless.start()
    hook, sys.excepthook = sys.excepthook, pythonqt_rules.complain_of  # VTK's observers end there
    yield started
    sys.excepthook = hook
    headless.stop(started)
    assert pythonqt_rules.log == []


@pytest.fixture(scope="session")
def slidesam(qt_application):
    """The unchanged module file, loaded as Slicer loads it."""
    from Testing.host import module_host

    module, instance = module_host.load(MODULE_FOLDER / "SlideSAM.py")
    instance.registerEditorEffect()  # what start-up does
    return module


@pytest.fixture(scope="session")
def gl():
    """Skips where nothing can be drawn; asked in a process of its own, because VTK crashes."""
    if not HAS_GL:
        pytest.skip("no EGL or OSMesa library to draw with")
    probe = "import vtk; w = vtk.vtkRenderWindow(); w.SetOffScreenRendering(1); w.Render()"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=120).returncode:
        pytest.skip("the GL library cannot draw off-screen here")


@pytest.fixture
def quick_model(monkeypatch):
    """A registered model that segments bright parts at once; `model.delay` makes it slow."""
    from SlideSAMLib import models
    from Testing.slicer import slow_model

    made = slow_model.SlowModel()
    monkeypatch.setattr(models, "_LOADERS", dict(models._LOADERS))
    models.register_model("threshold", lambda device, precision: made)
    return made


@pytest.fixture
def panel(session, slidesam, quick_model, monkeypatch, tmp_path):
    """The widget, set up as Slicer does; closed with nothing left behind."""
    from SlideSAMBridge.tasks import shelf, worker

    from Testing.host.pythonqt_rules import qt

    monkeypatch.setenv("SLIDESAM_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(worker, "_shared", worker.Worker())
    shelf.shared_shelf.__init__()
    parent = qt.QWidget()
    qt.QVBoxLayout(parent)
    widget = slidesam.SlideSAMWidget(parent)
    widget.setup()
    yield widget
    quick_model.delay = 0
    if not hasattr(widget, "reloaded"):
        widget.cleanup()
    worker._shared.close()
    for each in (worker._shared, widget.models._worker):
        assert each._thread is None or not each._thread.is_alive()


@pytest.fixture
def prompted(panel, slidesam):
    """A transformed scene: segments A (axial prompt), B (sagittal), one without, one damaged."""
    import slicer
    from SlideSAMBridge.scene import segments
    from SlideSAMBridge.scene.marks import TAG

    from Testing.slicer.panel_tools import find
    from Testing.slicer.scenes import GEOMETRIES, Scene, model

    scene = Scene(GEOMETRIES["oblique"], ("volume",), 1)
    texts = {"Empty": "", "Bad": "{"}
    for name, orientation in (("A", "K"), ("B", "I")):
        logic = slidesam.SlideSAMLogic()
        made = logic.segment(
            scene.volume,
            scene.segmentation,
            points=[scene.ras()],
            orientation=orientation,
            model=model(),
        )
        texts[name] = segments.saved_text(scene.segmentation, made)
        scene.contents.RemoveSegment(made)
    scene.ids = {}
    for name, text in sorted(texts.items()):
        scene.ids[name] = scene.contents.AddEmptySegment("", name)
        if text:
            scene.contents.GetSegment(scene.ids[name]).SetTag(TAG, text)
    slicer.app.userSettings().setValue("SlideSAM/model", "threshold")
    panel.enter()
    find(panel, "SlideSAMSegmentation").setCurrentNode(scene.segmentation)
    return scene


@pytest.fixture
def stage_of(session, gl, quick_model):
    """Makes stages, and closes them: with nothing left behind, and no swallowed exception."""
    from SlideSAMBridge.tasks import shelf, worker

    from Testing.slicer.effect_stage import Stage

    worker._shared, before = worker.Worker(), worker._shared
    shelf.shared_shelf.__init__()
    stages = []

    def make(*arguments, ratio=1.0, **options):
        from Testing.host.views import SliceView

        SliceView.pixel_ratio = float(ratio)
        stages.append(Stage(session, *arguments, **options))
        return stages[-1]

    yield make
    quick_model.delay = 0
    try:
        for stage in reversed(stages):
            stage.close()
        worker._shared.close()
        assert worker._shared._thread is None or not worker._shared._thread.is_alive()
    finally:
        worker._shared = before  # or one failure makes others
