"""The 3D picture, drawn by Slicer's own views in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# SlideSAMLib knows nothing of Slicer: the drawing belongs to the Slicer side of the checkout.
RENDERER = (
    Path(__file__).resolve().parents[2] / "SlideSAM" / "SlideSAMBridge" / "pictures" / "render.py"
)
LIMIT_SECONDS = 300


def draw_surface(segmentation: Path, path: Path) -> str | None:
    """Write a PNG of a .seg.nrrd's surface; returns why not, in one line, or None when done.

    Rendering without a GL library ends the process that tries it, hence the separate one.
    """
    if not RENDERER.is_file():
        return "the Slicer module is not beside SlideSAMLib (run from a checkout)"
    words = [sys.executable, str(RENDERER), str(segmentation), str(path)]
    environment = {"VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow", **os.environ}
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"the renderer did not finish in {LIMIT_SECONDS} s"
    if done.returncode == 0 and path.is_file() and path.stat().st_size:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"the renderer ended with exit code {done.returncode}"
