"""A PyTorch that is there only in part, or without what SAM needs: what is said, what to press."""

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest
import slicer

from Testing.slicer.panel_tools import find, names_the_button, wait

pytestmark = pytest.mark.slicer
ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import importlib.machinery
import sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch":
            return importlib.machinery.PathFinder.find_spec(name, [FOLDER])

sys.meta_path.insert(0, Finder)
sys.path[:0] = [ROOT]
sys.path.append(ROOT + "/SlideSAM")
from pathlib import Path
from Testing.host import headless, module_host, pythonqt_host

pythonqt_host.install()
session = headless.start()
slidesam, _ = module_host.load(Path(ROOT, "SlideSAM", "SlideSAM.py"))
from Testing.host.pythonqt_rules import qt
from Testing.slicer import scenes
"""

BROKEN = """
def panel():
    parent = qt.QWidget()
    qt.QVBoxLayout(parent)
    widget = slidesam.SlideSAMWidget(parent)
    widget.setup()
    print(widget.status.install.isHidden(), widget.status.label.text)
    return widget

scene = scenes.Scene()
from SlideSAMBridge.setup import library
library.make_importable()
print(library.has_device("cuda"))
widget = panel()
try:
    slidesam.SlideSAMLogic().segment(scene.volume, scene.segmentation, points=[scene.ras()])
except RuntimeError as error:
    print(error)
widget.enter()
print(widget.status.install.isHidden(), widget.status.label.text)
print(library.missing_for_builtin())
panel().cleanup()
widget.cleanup()
"""

SLOW = """
import threading
import time
from SlideSAMBridge.setup import library

thread = threading.Thread(target=__import__, args=("torch",))
thread.start()
while "torch" not in sys.modules:
    time.sleep(0.01)
began = time.monotonic()
print(library.status())
print(time.monotonic() - began < 2)
thread.join()
"""

LOADING = {
    "OSError": 'raise OSError("[WinError 126] Error loading c10.dll.")',
    "ImportError": 'raise ImportError("libcudnn.so.9: cannot open shared object file")',
}


def told(folder: Path, rest: str = BROKEN) -> list[str]:
    script = f"ROOT, FOLDER = {str(ROOT)!r}, {str(folder)!r}\n{SCRIPT}{rest}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_folder_that_is_left_is_no_pytorch(tmp_path):
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    device, before, message, after, builtin, again = told(tmp_path)
    assert device == "False"
    for line in (before, after, again):
        assert line.startswith("False PyTorch is not installed in this Slicer: press Install")
    assert "PyTorch is not installed" in message and "PyTorch is not installed" in builtin


@pytest.mark.parametrize("kind", LOADING)
def test_a_pytorch_that_cannot_be_loaded(tmp_path, kind):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(LOADING[kind])
    device, before, message, after, builtin, again = told(tmp_path)
    assert device == "False"
    assert before.startswith("True Ready")  # nothing has tried to load it
    assert message.startswith("PyTorch is installed but cannot be loaded (")
    assert message.endswith("): reinstall it.") and ("c10.dll" in message or "cudnn" in message)
    assert after == again == f"False {message}" and builtin == message


def test_nobody_waits_while_the_worker_loads_it(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import time\ntime.sleep(4)\n")
    status, quick = told(tmp_path, SLOW)
    assert status.startswith("Ready: PyTorch ") and "device auto" in status
    assert quick == "True"


@pytest.mark.parametrize("yes", [True, False])
def test_what_is_there_in_part_is_uninstalled_first(panel, monkeypatch, yes):
    """Or pip would say that the requirement is satisfied."""
    from SlideSAMBridge.setup import library

    done, asked = [], []
    reason = "PyTorch is installed but cannot be loaded (c10.dll): reinstall it."
    monkeypatch.setattr(library, "_unloadable", reason)
    monkeypatch.setattr(slicer.util, "pip_uninstall", lambda names: done.append(("off", names)))
    monkeypatch.setattr(slicer.util, "pip_install", lambda names: done.append(("on", names)))
    answer = types.SimpleNamespace(ask=lambda text: bool(asked.append(text)) or yes)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", answer.ask)
    monkeypatch.setattr(slicer.app, "testing", False)
    panel.enter()
    assert panel.status.label.text == reason
    find(panel, "SlideSAMInstall").click()
    assert "cannot be used" in asked[0]
    if yes:
        assert done == [("off", ["torch"]), ("on", ["torch"])]
        assert panel.status.label.text.startswith("Installed: torch.\nReady")
    else:
        assert done == [] and panel.status.label.text.startswith("PyTorch was not installed.")


def test_what_segment_all_finds_out_can_be_mended_at_once(panel, prompted, monkeypatch):
    """Nothing has tried to load it before, so the panel said that all was ready."""
    from SlideSAMBridge.setup import library

    from SlideSAMLib import models
    from SlideSAMLib.errors import TorchError

    reason = "PyTorch is installed but cannot be loaded (c10.dll): reinstall it."

    def broken(device, precision):
        raise TorchError(reason)

    monkeypatch.setattr(library, "_unloadable", "")
    monkeypatch.setitem(models._LOADERS, "threshold", broken)
    assert panel.status.install.isHidden() and panel.status.label.text.startswith("Ready")
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    assert find(panel, "SlideSAMBatchMessage").text.startswith(reason)
    assert panel.status.label.text == reason and not panel.status.install.isHidden()


def test_a_model_that_lacks_its_package_is_not_ready(panel, monkeypatch):
    """The installed SAM weights alone do not make a model."""
    from SlideSAMBridge.setup import preferences

    from SlideSAMLib.errors import ModelError
    from SlideSAMLib.sam.modeling import _package_folder

    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "segment" in name else known(name)
    )
    panel.enter()
    assert panel.status.label.text.startswith("Ready: PyTorch ")  # the built-in one needs none
    preferences.change(model="sam-vit-b")
    panel.enter()
    assert "segment-anything" in panel.status.label.text
    names_the_button(panel)
    assert not panel.status.install.isHidden()
    with pytest.raises(ModelError, match="press Install Python packages in the SlideSAM module"):
        _package_folder()
