"""Pictures of results: a strip of slices with the true and the predicted outline."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .results import StructureResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .subject import Subject

TRUTH, PREDICTION, PROMPT = "#2fd36f", "#ff4fa0", "#ffd23f"
COLOURS = "green: truth, pink: result, yellow: prompt"
MARGIN = 0.35  # of the longer side of what is shown, around truth and prediction
PANEL = 2.2  # width of one slice, inches
TITLE = 7.5  # least width of the picture, inches, so that the title fits
DPI = 80
LONGEST = 100  # letters of a file name for case and structure


def strip(first: int, index: int, last: int) -> list[int]:
    """The slices shown: start, quarter, prompted, three quarters and end, each once."""
    chosen = (first, round((first + index) / 2), index, round((index + last) / 2), last)
    return sorted(set(chosen))


def file_name(result: StructureResult) -> str:
    """A file name that tells the results of an evaluation apart.

    Words alone do not: ids may differ in a space, in capitals or in letters that are not ASCII.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{result.case}_{result.structure}").strip("-").lower()
    case = hashlib.sha256(result.case.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    name = f"{words[:LONGEST]}-{result.value}-{case}"
    return f"{name}_{result.prompt}_{result.protocol}.png"


def draw(
    subject: Subject,
    mask: np.ndarray,
    confidence: dict[int, float],
    result: StructureResult,
    folder: Path,
) -> Path:
    """Write the strip of one result as PNG and return its path.

    mask : bool stack (S, H, W); confidence : per slice, 0..1.
    """
    slices = strip(subject.first, result.index, subject.last)
    frame = Frame(subject, mask, slices)
    size = (max(PANEL * len(slices), TITLE), PANEL * frame.ratio + 0.5)
    figure = new_figure(size)
    frame.draw(figure.subplots(1, len(slices), squeeze=False)[0], mask, result)
    for panel, index in zip(figure.axes, slices, strict=True):
        sure = f", confidence {confidence[index]:.2f}" if index in confidence else ", not reached"
        panel.set_title(f"{index}{sure}", fontsize=8)
    figure.suptitle(
        f"{result.case}: {result.structure}, {result.prompt}, {result.protocol}: "
        f"Dice {result.dice:.3f} ({COLOURS})",
        fontsize=9,
    )
    figure.tight_layout(pad=0.4)
    path = folder / file_name(result)
    save(figure, path)
    return path


class Frame:
    """The part of some slices of a structure that is shown: everything marked, and a margin.

    ratio : height over width in mm, kept between 0.5 and 2.
    """

    def __init__(self, subject: Subject, mask: np.ndarray, slices: list[int]) -> None:
        self.subject, self.slices = subject, slices
        self.rows, self.columns = _frame(subject.truth | mask, slices)
        row_mm, column_mm = subject.spacing[1:]
        height = (self.rows.stop - self.rows.start) * row_mm
        width = (self.columns.stop - self.columns.start) * column_mm
        self.ratio = float(np.clip(height / width, 0.5, 2.0))
        self.aspect = row_mm / column_mm

    def draw(self, panels: Iterable[Axes], mask: np.ndarray, result: StructureResult) -> None:
        """Draw the slices into as many panels: image, truth, result, and the prompt on its slice.

        mask : bool stack (S, H, W).
        """
        rows, columns = self.rows, self.columns
        low, high = _grey_range(self.subject.image[self.slices][:, rows, columns])
        for panel, index in zip(panels, self.slices, strict=True):
            # Upside down as in the array: row 0 is at the top
            image = self.subject.image[index]
            panel.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=self.aspect)
            _outline(panel, self.subject.truth[index], TRUTH, 2.4)  # on both sides of the other
            _outline(panel, mask[index], PREDICTION, 1.0)
            if index == result.index:
                _prompt(panel, result)
            panel.set_xlim(columns.start - 0.5, columns.stop - 0.5)
            panel.set_ylim(rows.stop - 0.5, rows.start - 0.5)
            panel.set_xticks([])
            panel.set_yticks([])


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of a size in inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _outline(panel: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    if mask.any():
        padded = np.pad(mask, 1).astype(np.float32)
        rows, columns = padded.shape
        panel.contour(
            np.arange(-1, columns - 1),
            np.arange(-1, rows - 1),
            padded,
            levels=[0.5],
            colors=[colour],
            linewidths=width,
        )


def _prompt(panel: Axes, result: StructureResult) -> None:
    from matplotlib.patches import Rectangle

    if result.box is not None:
        x0, y0, x1, y1 = result.box
        box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=PROMPT, linewidth=1.3)
        panel.add_patch(box)
    for x, y in result.points:
        panel.plot(x, y, marker="+", color=PROMPT, markersize=9, markeredgewidth=1.6)


def _frame(shown: np.ndarray, slices: list[int]) -> tuple[slice, slice]:
    """Rows and columns around everything that is set on the shown slices, with a margin."""
    flat = shown[slices].any(axis=0)
    rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    margin = round(MARGIN * max(np.ptp(rows), np.ptp(columns))) + 4
    return (
        slice(max(rows[0] - margin, 0), min(rows[-1] + margin + 1, flat.shape[0])),
        slice(max(columns[0] - margin, 0), min(columns[-1] + margin + 1, flat.shape[1])),
    )


def _grey_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0, 1)
    return float(low), float(max(high, low + 1e-6))


def save(figure: Figure, path: Path) -> None:
    """Write the figure with a palette, which makes a third of the size."""
    from PIL import Image

    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette().ravel().tolist())
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def _palette() -> np.ndarray:
    """256 colours (uint8 RGB): greys, and the three line colours blended into a few of them."""
    grey = np.linspace(0, 255, 112)[:, None].repeat(3, axis=1)
    lines = np.array(
        [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (TRUTH, PREDICTION, PROMPT)]
    )
    share = np.array([1.0, 0.75, 0.5, 0.25])[None, :, None, None]
    ground = np.linspace(0, 255, 12)[None, None, :, None]
    blended = lines[:, None, None, :] * share + ground * (1 - share)
    return np.concatenate([grey, blended.reshape(-1, 3)]).round().astype(np.uint8)
