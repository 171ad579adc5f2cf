"""What the tests of the command line share: images on disk and one way to run the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SlideSAMLib.cli.main import main
from Testing.fakes import ball_volume

SPACING = (0.9, 1.1, 2.5)
ORIGIN = (-11.0, 7.5, 31.25)
DIRECTION = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
# A box around the ball of `ball_volume` on its middle slice across k.
BOX = ["--slice", "10", "--box", "12", "10", "32", "30"]


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def run_command(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    """Run `slidesam WORDS...` in this process."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def assert_refused(outcome: Outcome, *parts: str) -> None:
    """Exit code 2, one line `error: ...` with all the parts, nothing on stdout."""
    assert outcome.code == 2, outcome
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0], f"{part!r} is not in {lines[0]!r}"
    assert outcome.out == ""


def write_image(path: Path, array: np.ndarray) -> Path:
    """Write an array (K, J, I) as an oblique, anisotropic image."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path))
    return path


def noisy_ball(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipsoid in noise: (int16 volume, bool mask), (K, J, I) = (21, 40, 44)."""
    volume, mask = ball_volume()
    noise = np.random.default_rng(seed).normal(0, 4, volume.shape)
    return (volume + noise + 50).astype(np.int16), mask


def read_mask(path: Path) -> np.ndarray:
    """The label map of a file as bool (K, J, I)."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0


def small_checkpoint(path: Path) -> Path:
    """Write a small three-slice SAM with the reference weights, as LoRA checkpoints have them."""
    from safetensors.torch import save_file

    from Testing.reference import named_weights, tensor_shapes

    save_file(named_weights(tensor_shapes("mini_lora")), str(path))
    return path
