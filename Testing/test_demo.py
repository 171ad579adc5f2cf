"""The demo: its brain, its files, its pictures, and slices turned as people expect them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from SlideSAMLib.demo import data, surface
from SlideSAMLib.demo.orientation import SliceView
from SlideSAMLib.images.volumes import Geometry
from Testing.cli_tools import BOX, assert_refused, noisy_ball, read_mask, run_command, write_image

Capture = pytest.CaptureFixture[str]
PICTURES = ("prompted-slice.png", "slices.png")


def read_picture(path: Path) -> np.ndarray:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    return imread(path)[..., :3]


@pytest.fixture
def no_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not render in 3D: it needs GL, and a process of its own."""
    monkeypatch.setattr(surface, "RENDERER", Path("no-renderer.py"))


@pytest.fixture
def small_brain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> np.ndarray:
    """A stand-in for the brain, small enough for a quick test; returns its mask."""
    from SlideSAMLib.images import volumes
    from SlideSAMLib.prompts import SlicePrompt

    volume, mask = noisy_ball()
    image = volumes.read_image(write_image(tmp_path / "template.nrrd", volume))
    monkeypatch.setattr(data, "load_brain", lambda: data.Brain(image, mask))
    prompt = SlicePrompt(10, box=(12, 10, 32, 30), points=[(22, 20)], labels=[1])
    monkeypatch.setattr(data, "PROMPT", prompt)
    return mask


def test_the_demo_writes_files_and_pictures(
    capsys: Capture,
    tmp_path: Path,
    threshold_model: str,
    small_brain: np.ndarray,
    no_surface: None,
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the demo packages")
    folder = tmp_path / "new" / "folder"
    outcome = run_command(capsys, "demo", "--output", folder, "--model", threshold_model)
    assert outcome.code == 0, outcome.err
    names = {"brain.seg.nrrd", "brain.nii.gz", "report.json", *PICTURES}
    assert {p.name for p in folder.iterdir()} == names
    found = read_mask(folder / "brain.nii.gz")
    assert np.array_equal(found, read_mask(folder / "brain.seg.nrrd"))
    overlap = 2 * (found & small_brain).sum() / (found.sum() + small_brain.sum())
    report = json.loads((folder / "report.json").read_text())
    assert report["dice"] == pytest.approx(overlap, abs=1e-4)
    assert f"Dice     {overlap:.3f} against the template's brain mask" in outcome.out
    assert " s per slice" in outcome.out
    assert "no picture of the 3D surface" in outcome.out
    for name in PICTURES:
        picture = read_picture(folder / name)
        assert picture.shape[0] > 200 and picture.shape[1] > 800
        assert len(np.unique((picture * 255).astype(np.uint8).reshape(-1, 3), axis=0)) > 200


def test_the_prompted_slice_shows_box_point_and_mask(
    capsys: Capture,
    tmp_path: Path,
    threshold_model: str,
    small_brain: np.ndarray,
    no_surface: None,
) -> None:
    from SlideSAMLib.demo import pictures

    run_command(capsys, "demo", "--output", tmp_path / "out", "--model", threshold_model)
    picture = read_picture(tmp_path / "out" / "prompted-slice.png")
    halves = np.split(picture[:, : picture.shape[1] // 2 * 2], 2, axis=1)

    def share(half: np.ndarray, colour: str) -> float:
        wanted = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
        return float((np.abs(half - wanted).max(axis=2) < 0.1).mean())

    for colour in (pictures.BOX, pictures.POSITIVE):
        assert share(halves[0], colour) > 1e-4
        assert share(halves[1], colour) == 0
    assert share(halves[1], pictures.MASK) > 1e-3
    assert share(halves[0], pictures.MASK) == 0


def test_the_users_own_image(
    capsys: Capture, tmp_path: Path, threshold_model: str, no_surface: None
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the demo packages")
    volume, mask = noisy_ball()
    image = write_image(tmp_path / "mine.nii.gz", volume)
    words = ["--image", image, "--axis", "j", "--slice", 20, "--point", 22, 10]
    outcome = run_command(
        capsys, "demo", "--output", tmp_path / "out", *words, "--model", threshold_model
    )
    assert outcome.code == 0, outcome.err
    found = read_mask(tmp_path / "out" / "segment.nii.gz")
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.97
    assert "Dice" not in outcome.out


def test_no_surface_of_an_earlier_run_is_left(
    capsys: Capture, tmp_path: Path, threshold_model: str, no_surface: None
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the demo packages")
    image = write_image(tmp_path / "mine.nii.gz", noisy_ball()[0])
    (tmp_path / "surface.png").write_bytes(b"of another object")
    words = ["--output", tmp_path, "--image", image, *BOX, "--model", threshold_model]
    outcome = run_command(capsys, "demo", *words)
    assert outcome.code == 0, outcome.err
    assert "no picture of the 3D surface" in outcome.out
    assert not (tmp_path / "surface.png").exists()


@pytest.mark.parametrize("point", [(43.5, 39.5), (-0.5, -0.5)])
def test_a_point_on_the_outer_half_of_a_voxel_at_the_rim(
    capsys: Capture, tmp_path: Path, no_surface: None, point: tuple[float, float]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the demo packages")
    image = write_image(tmp_path / "mine.nii.gz", noisy_ball()[0])
    words = ["--image", image, "--slice", 10, "--point", 22, 20, "--negative-point", *point]
    outcome = run_command(capsys, "demo", "--output", tmp_path / "out", *words)
    assert outcome.code == 0, outcome.err
    assert {p.name for p in (tmp_path / "out").iterdir()} > {*PICTURES, "segment.nii.gz"}


def test_bad_demo_arguments(capsys: Capture, tmp_path: Path, threshold_model: str) -> None:
    image = write_image(tmp_path / "mine.nii.gz", noisy_ball()[0])
    plain = tmp_path / "plain.txt"
    plain.write_text("a file")
    out = tmp_path / "out"
    cases = [
        (["--output", out, "--image", image], "no prompt"),
        (["--output", out, "--slice", 3, "--point", 1, 1], "--image"),
        (["--output", out, "--image", tmp_path / "none", "--slice", 3, "--point", 1, 1], "no file"),
        (["--output", out, "--axis", "i"], "--image"),
        (["--output", out, "--spacing", 1, 1, 2], "--image"),
        (["--output", plain], "cannot be written"),
        (["--output", plain / "sub"], "cannot be written"),
    ]
    for words, part in cases:
        outcome = run_command(capsys, "demo", *words, "--model", threshold_model)
        assert_refused(outcome, part)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.nii.gz", "plain.txt"]


def test_the_demo_writes_over_no_file_that_it_reads(
    capsys: Capture, tmp_path: Path, threshold_model: str, no_surface: None
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the demo packages")
    image = write_image(tmp_path / "segment.nii.gz", noisy_ball()[0])
    prompts = tmp_path / "report.json"
    prompts.write_text('[{"slice": 10, "box": [12, 10, 32, 30]}]')
    files = {path: path.read_bytes() for path in (image, prompts)}
    other = write_image(tmp_path / "mine.nii.gz", noisy_ball()[0])
    for words in (["--image", image, *BOX], ["--image", other, "--prompts", prompts]):
        outcome = run_command(
            capsys, "demo", "--output", tmp_path, *words, "--model", threshold_model
        )
        assert_refused(outcome, "same file")
    assert {path: path.read_bytes() for path in files} == files


def test_the_template_and_its_brain_mask() -> None:
    pytest.importorskip("nilearn", reason="nilearn comes with the demo packages")
    brain = data.load_brain()
    assert brain.image.array.shape == brain.mask.shape == (189, 233, 197)
    assert brain.image.spacing == (1, 1, 1)
    # The volume of a human brain in millilitres; ventricles are inside, air is outside.
    assert 1600 < brain.mask.sum() / 1000 < 2000
    assert brain.mask[80, 120, 98]
    assert not brain.mask[0].any() and not brain.mask[:, 0].any()
    prompt = data.PROMPT
    rows, columns = np.nonzero(brain.mask[prompt.index])
    x0, y0, x1, y1 = prompt.box
    assert x0 <= columns.min() <= x0 + 8 and x1 - 8 <= columns.max() <= x1
    assert y0 <= rows.min() <= y0 + 8 and y1 - 8 <= rows.max() <= y1
    ((x, y),) = prompt.points
    assert brain.mask[prompt.index, int(y), int(x)]


@pytest.mark.slicer
@pytest.mark.slow
def test_the_surface_is_rendered_by_slicers_views(tmp_path: Path) -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    from SlideSAMLib.images import volumes

    _, mask = noisy_ball()
    geometry = Geometry((44, 40, 21), (1, 1, 2), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    volumes.write_mask(mask, geometry, tmp_path / "ball.seg.nrrd")
    missing = surface.draw_surface(tmp_path / "ball.seg.nrrd", tmp_path / "surface.png")
    if missing is not None and "GL library" in missing:
        pytest.skip(missing)
    assert missing is None
    picture = read_picture(tmp_path / "surface.png")
    centre = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    corner = picture[3, 3]
    assert np.abs(centre - corner).max() > 0.2


def test_a_failing_renderer_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "render.py"
    script.write_text("import sys; print('first\\nerror: no window'); sys.exit('error: no window')")
    monkeypatch.setattr(surface, "RENDERER", script)
    why = surface.draw_surface(tmp_path / "a.seg.nrrd", tmp_path / "a.png")
    assert why == "error: no window"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    why = surface.draw_surface(tmp_path / "a.seg.nrrd", tmp_path / "a.png")
    assert "exit code" in why


LPS_TO_VIEW = {  # what the patient's left, back and head are called at the picture's edges
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "direction",
    [
        (1, 0, 0, 0, 1, 0, 0, 0, 1),
        (-1, 0, 0, 0, -1, 0, 0, 0, 1),
        (0, 0, 1, 1, 0, 0, 0, -1, 0),  # stored sagittally
        (0, 1, 0, 0, 0, -1, -1, 0, 0),
        (1, 0, 0, 0, 0, 1, 0, -1, 0),  # stored coronally
    ],
)
def test_slices_are_turned_as_in_slicer(direction: tuple[int, ...], axis: int) -> None:
    geometry = Geometry((5, 6, 7), (1.0, 2.0, 3.0), (0, 0, 0), direction)
    view = SliceView.of(geometry, axis)
    # Every voxel's position along the patient's L, P and S axes: (3, K, J, I).
    k, j, i = np.meshgrid(np.arange(7), np.arange(6), np.arange(5), indexing="ij")
    ijk = np.stack([i * 1.0, j * 2.0, k * 3.0])
    lps = np.einsum("ab,bkji->akji", np.array(direction, float).reshape(3, 3), ijk)
    planes = np.stack([view.turn(lps[n].take(2, axis)) for n in range(3)])
    right = planes[:, 0, -1] - planes[:, 0, 0]
    down = planes[:, -1, 0] - planes[:, 0, 0]
    letters = {(0, 1): "L", (0, -1): "R", (1, 1): "P", (1, -1): "A", (2, 1): "S", (2, -1): "I"}

    def letter(step: np.ndarray) -> str:
        n = int(np.abs(step).argmax())
        return letters[n, int(np.sign(step[n]))]

    shown = (letter(-right), letter(right), letter(-down), letter(down))
    assert shown == LPS_TO_VIEW[view.name] == tuple(view.letters)
    step = (np.abs(down).max() / (planes.shape[1] - 1), np.abs(right).max() / (planes.shape[2] - 1))
    assert view.aspect == pytest.approx(step[0] / step[1])
    # A position goes where its voxel goes.
    plane = np.zeros(view.shape, bool)
    plane[1, 3] = True
    row, column = np.argwhere(view.turn(plane))[0]
    assert view.point(3, 1) == (column, row)
