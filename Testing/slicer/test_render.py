"""Pictures: the functions and the command that the demo uses, looked at pixel by pixel."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytestmark = pytest.mark.slicer
SCRIPT = (
    Path(__file__).resolve().parents[2] / "SlideSAM" / "SlideSAMBridge" / "pictures" / "render.py"
)
SIZE = (300, 200)


@pytest.fixture(scope="module")
def files(tmp_path_factory, gl):
    """An image with a bright ball, and its label map."""
    folder = tmp_path_factory.mktemp("render")
    k, j, i = np.mgrid[0:30, 0:40, 0:50]
    ball = ((k - 15) / 10) ** 2 + ((j - 20) / 12) ** 2 + ((i - 25) / 14) ** 2 <= 1
    for name, values in (("image", 100 * ball.astype(np.int16)), ("label", ball.astype(np.uint8))):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((1.0, 1.0, 2.0))
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"))
    return folder


def pixels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[..., :3].astype(int)  # (row, column)


def test_command(files):
    out = files / "surface.png"
    command = [sys.executable, SCRIPT, files / "label.nrrd", out]
    command += ["--color", "0.9", "0.2", "0.2", "--size", *map(str, SIZE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown = pixels(out)
    assert shown.shape == (200, 300, 3)
    red, green, blue = shown[100, 150]
    assert red > 90 and red > 2 * green and red > 2 * blue  # the ball in the middle
    assert shown[3, 3].max() < 80  # a dark background in the corner


def test_surface_with_a_slice_of_the_image(files):
    from SlideSAMBridge.pictures import render

    plain, both = files / "plain.png", files / "both.png"
    render.render_surface(files / "label.nrrd", plain, view="LAS", size=SIZE)
    image = files / "image.nrrd"
    render.render_surface(files / "label.nrrd", both, view="LAS", size=SIZE, volume=image)
    assert (pixels(plain) != pixels(both)).any(axis=2).mean() > 0.02


def test_slice_view(files):
    from SlideSAMBridge.pictures import render

    out = files / "slice.png"
    image = files / "image.nrrd"
    render.render_slice(files / "label.nrrd", image, out, color=(0, 1, 0), size=SIZE)
    shown = pixels(out)
    middle = shown[100, 150]
    assert middle[1] > middle[0] and middle[1] > middle[2]  # green fill over the grey ball


def test_arrays_and_colours(files):
    """A mask in memory, in the colour that was asked for."""
    from SlideSAMBridge.pictures import render

    mask = np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    render.render_surface((mask, np.eye(4)), files / "cube.png", color=(0, 0, 1), size=SIZE)
    red, green, blue = pixels(files / "cube.png")[100, 150]
    assert blue > 80 and blue > 2 * red and blue > 2 * green


def test_camera_directions():
    from SlideSAMBridge.pictures import render

    assert np.allclose(render.view_direction("L"), (-1, 0, 0))  # RAS: left is -R
    tilted = render.view_direction("ALS")
    assert np.isclose(np.linalg.norm(tilted), 1)
    assert tilted[1] > -tilted[0] > tilted[2] > 0  # most of A, less of L, least of S


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.nrrd", "x.png"], "There is no segmentation"),
        (["image.nrrd", "x.png", "--view", "Q"], "The view must be"),
        (["label.nrrd", "x.png", "--slice", "Axial"], "--slice needs an image"),
        (["label.nrrd", "x.png", "--volume", "nothing.nrrd"], "There is no image"),
    ],
)
def test_wrong_use(files, capfd, monkeypatch, arguments, message):
    from SlideSAMBridge.pictures import render

    monkeypatch.chdir(files)
    assert render.main(arguments) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not (files / "x.png").exists()
