"""Models' folders and files that cannot be looked at: panel and effect work all the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer

from Testing.host.pythonqt_rules import qt
from Testing.slicer.scenes import Scene

pytestmark = pytest.mark.slicer
LONG = "x" * 5000


@pytest.fixture(params=["closed", "no home", LONG, "~nosuchuser/models"])
def odd_folder(request, panel, monkeypatch, tmp_path):
    """$SLIDESAM_MODELS at a folder that only others may read, a path that is too long, no home.

    Or nowhere, for a user whom this computer does not know, as in many containers.
    """
    folder = request.param
    if folder == "no home":
        for variable in ("SLIDESAM_MODELS", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(pytest.importorskip("pwd"), "getpwuid", {}.__getitem__)  # KeyError
        return "~/.cache/slidesam"
    if folder == "closed":
        folder, stat = str(tmp_path / "closed"), os.stat

        def refused(path, *arguments, **options):  # as for anybody but the administrator
            if isinstance(path, str | Path) and str(path).startswith(folder):
                raise PermissionError(13, "Permission denied", str(path))
            return stat(path, *arguments, **options)

        monkeypatch.setattr(os, "stat", refused)
    monkeypatch.setenv("SLIDESAM_MODELS", folder)
    return folder


def made(slidesam):
    parent = qt.QWidget()
    qt.QVBoxLayout(parent)
    widget = slidesam.SlideSAMWidget(parent)
    widget.setup()
    return widget


def test_the_panel_and_the_effect_with_an_odd_folder(slidesam, odd_folder):
    from SlideSAMEffect import models_list

    widget = made(slidesam)
    assert widget.status.label.text.startswith("Ready: PyTorch")
    widget.models.list.setCurrentItem(widget.models.list.topLevelItem(3))  # updates the buttons
    assert widget.models.download.enabled and not widget.models.remove.enabled
    widget.cleanup()
    assert models_list.installed() == ["builtin"]


def test_loading_from_an_odd_folder_says_what_is_wrong(slidesam, odd_folder):
    match = "not on this computer" if odd_folder.startswith("~") else "cannot be read: [A-Z]"
    with pytest.raises((ValueError, RuntimeError), match=match) as caught:
        slidesam.SlideSAMLogic()._loadedModel("sam-vit-b", "cpu", "auto")
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("model", [LONG, "~nosuchuser/a.pth", "no\0such"])
def test_an_odd_model_in_the_settings(panel, slidesam, model):
    slicer.app.userSettings().setValue("SlideSAM/model", model)
    panel.enter()
    assert "its file is missing" in panel.status.label.text
    with pytest.raises(ValueError, match=r"cannot be read|no model and no file") as caught:
        slidesam.SlideSAMLogic()._loadedModel(model, "cpu", "auto")
    assert str(caught.value).endswith(".")


def test_the_current_folder_may_be_gone(session, slidesam, quick_model, monkeypatch, tmp_path):
    """Somebody has changed to a folder that was deleted afterwards, as temporary ones are."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    scene = Scene()
    segment_id = slidesam.SlideSAMLogic().segment(
        scene.volume, scene.segmentation, points=[scene.ras()], model=quick_model.traits.name
    )
    assert np.array_equal(scene.mask(segment_id), scene.truth)


def test_nobody_may_read_the_folder(tmp_path):
    """With real rights, in a process that is nobody."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only the administrator can become nobody")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    script = """
import os, sys
sys.path.insert(0, sys.argv[1])
from SlideSAMLib import catalogue, models
os.setuid(65534)
print(catalogue.model_info("sam-vit-b").installed)
try:
    models._need_file(catalogue.model_info("sam-vit-b"))
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).resolve().parents[2])],
        env={**os.environ, "SLIDESAM_MODELS": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    installed, message = done.stdout.splitlines()
    assert installed == "False" and message.endswith("cannot be read: Permission denied.")
