"""The demo's pictures: the prompted slice, and a strip of slices with outline and confidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..prompts import SlicePrompt
from ..stack import Stack
from .orientation import SliceView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Crop = tuple[slice, slice]  # rows and columns of a displayed slice

BACKGROUND = "#12161c"
TEXT = "#e6e9ee"
FAINT = "#8b95a3"
MASK = "#ff9d3c"
BOX = "#4fd1ff"
POSITIVE = "#5ee07a"
NEGATIVE = "#ff5d6c"
REFERENCE = "#ffffff"
STRIP_COLUMNS, STRIP_ROWS = 7, 2
CONFIDENCE_COLOURS = ("#ff4d5e", "#ffb13d", "#f4e04d", "#5ee07a")  # from 0 to 1
STRIP_MARGIN = 0.05  # of the object's larger side, kept free around it
PROMPT_MARGIN = 0.2


@dataclass(frozen=True, eq=False)
class Scene:
    """What the pictures show: a segmented stack and how it was prompted.

    masks : bool (slice, row, column), the result along the slide axis.
    confidence : slice index -> 0..1.
    reference : a known mask to compare with, shaped like `masks`, or None.
    """

    stack: Stack
    view: SliceView
    axis: str
    masks: np.ndarray
    confidence: dict[int, float]
    prompts: tuple[SlicePrompt, ...]
    reference: np.ndarray | None = None


def draw_prompted_slice(scene: Scene, path: Path) -> None:
    """Write a PNG of the first prompted slice: prompts on the left, the mask on the right."""
    prompt = scene.prompts[0]
    window = _crop(scene.view.turn(_marked(scene, prompt)), PROMPT_MARGIN)
    width, head = 10.0, 0.75
    height = width / 2 * np.clip(_ratio(window, scene.view), 0.3, 1.6)
    figure = _figure(width, height + head)
    grid = figure.add_gridspec(
        1, 2, left=0.01, right=0.99, bottom=0.01, top=height / (height + head), wspace=0.02
    )
    titles = (_describe(prompt), f"Result, confidence {_confidence(scene, prompt.index)}")
    for number, title in enumerate(titles):
        axes = figure.add_subplot(grid[0, number])
        _show_plane(axes, scene, prompt.index, window)
        _show_letters(axes, scene.view)
        axes.set_title(title, color=TEXT, fontsize=11, pad=5)
        if number == 0:
            _show_prompt(axes, scene.view, prompt, window)
        else:
            _show_mask(axes, scene, prompt.index, MASK, fill=0.2, width=1.8, window=window)
    _headline(figure, f"Slice {scene.axis} = {prompt.index}, {scene.view.name}")
    figure.savefig(path, dpi=110, facecolor=BACKGROUND, format="png")


def draw_strip(scene: Scene, path: Path) -> None:
    """Write a PNG with slices all through the result, and the confidence of every slice."""
    chosen = _spread(scene, STRIP_COLUMNS * STRIP_ROWS)
    seen = scene.masks.any(axis=0)
    if scene.reference is not None:
        seen = seen | scene.reference.any(axis=0)
    window = _crop(scene.view.turn(seen), STRIP_MARGIN)
    rows = -(-len(chosen) // STRIP_COLUMNS)
    width, head, foot = 14.0, 0.65, 0.5
    tile = width / STRIP_COLUMNS * np.clip(_ratio(window, scene.view), 0.4, 2.0) + 0.25
    heights = [tile] * rows + [1.7]
    total = sum(heights) + head + foot
    figure = _figure(width, total)
    grid = figure.add_gridspec(
        rows + 1,
        STRIP_COLUMNS,
        height_ratios=heights,
        left=0.045,
        right=0.99,
        top=1 - head / total,
        bottom=foot / total,
        wspace=0.03,
        hspace=0.14,
    )
    colours = _confidence_colours()
    for place, index in enumerate(chosen):
        axes = figure.add_subplot(grid[place // STRIP_COLUMNS, place % STRIP_COLUMNS])
        _show_plane(axes, scene, index, window)
        _show_mask(axes, scene, index, colours(scene.confidence[index]), 0.0, 1.8, window)
        if scene.reference is not None:
            _outline(axes, scene.view.turn(scene.reference[index])[window], REFERENCE, 0.7, ":")
        prompted = any(prompt.index == index for prompt in scene.prompts)
        mark = " (prompted)" if prompted else ""
        axes.set_title(
            f"{scene.axis} = {index}{mark}   {scene.confidence[index]:.2f}",
            color=BOX if prompted else TEXT,
            fontsize=9,
            pad=3,
        )
    _confidence_plot(figure.add_subplot(grid[rows, :]), scene, chosen, colours)
    note = "outline coloured by confidence"
    if scene.reference is not None:
        note += "; dotted white: the template's brain mask"
    _headline(figure, f"{len(scene.confidence)} slices, {len(scene.prompts)} prompted: {note}")
    figure.savefig(path, dpi=90, facecolor=BACKGROUND, format="png")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it would choose a window system and keep every figure alive.
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    return figure


def _headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, color=TEXT, fontsize=13, y=1 - 0.1 / figure.get_figheight(), va="top")


def _show_plane(axes: Axes, scene: Scene, index: int, window: Crop | None = None) -> None:
    plane = scene.view.turn(scene.stack.slice(index))
    low, high = scene.stack.shown
    axes.imshow(
        plane if window is None else plane[window],
        cmap="gray",
        vmin=low,
        vmax=high,
        aspect=scene.view.aspect,
        interpolation="bilinear",
    )
    axes.autoscale(False)  # outlines and boxes must not change what is shown
    axes.set_axis_off()


def _show_mask(
    axes: Axes,
    scene: Scene,
    index: int,
    colour: Any,
    fill: float,
    width: float,
    window: Crop | None = None,
) -> None:
    mask = scene.view.turn(scene.masks[index])
    mask = mask if window is None else mask[window]
    if fill and mask.any():
        from matplotlib.colors import to_rgb

        tint = np.zeros((*mask.shape, 4))
        tint[mask] = (*to_rgb(colour), fill)
        axes.imshow(tint, aspect=scene.view.aspect, interpolation="nearest")
    _outline(axes, mask, colour, width, "-")


def _outline(axes: Axes, mask: np.ndarray, colour: Any, width: float, style: str) -> None:
    if mask.any() and min(mask.shape) > 1:
        # A border of zeros closes the outline where the mask touches the edge.
        padded = np.pad(mask.astype(float), 1)
        x, y = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
        axes.contour(x, y, padded, [0.5], colors=[colour], linewidths=width, linestyles=style)


def _show_prompt(axes: Axes, view: SliceView, prompt: SlicePrompt, window: Crop) -> None:
    from matplotlib.patches import Rectangle

    top, left = window[0].start, window[1].start

    def place(x: float, y: float) -> tuple[float, float]:
        column, row = view.point(x, y)
        return column - left, row - top

    if prompt.box is not None:
        a, b = place(*prompt.box[:2]), place(*prompt.box[2:])
        corner = (min(a[0], b[0]) - 0.5, min(a[1], b[1]) - 0.5)
        size = (abs(a[0] - b[0]) + 1, abs(a[1] - b[1]) + 1)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=BOX, linewidth=2))
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        axes.plot(
            *place(x, y),
            marker="o" if label else "X",
            markersize=10,
            markerfacecolor=POSITIVE if label else NEGATIVE,
            markeredgecolor="white",
            markeredgewidth=1.6,
        )


def _show_letters(axes: Axes, view: SliceView) -> None:
    left, right, top, bottom = view.letters
    places = ((left, 0.02, 0.5), (right, 0.98, 0.5), (top, 0.5, 0.98), (bottom, 0.5, 0.02))
    for letter, x, y in places:
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            color=FAINT,
            fontsize=10,
            ha={0.02: "left", 0.98: "right"}.get(x, "center"),
            va={0.02: "bottom", 0.98: "top"}.get(y, "center"),
        )


def _confidence_plot(axes: Axes, scene: Scene, chosen: list[int], colours: Colormap) -> None:
    indices = np.array(sorted(scene.confidence))
    values = np.array([scene.confidence[index] for index in indices])
    axes.bar(indices, values, width=1.0, color=colours(values))
    for prompt in scene.prompts:
        axes.axvline(prompt.index, color=BOX, linewidth=2)
    axes.plot(
        list(chosen), [1.06] * len(list(chosen)), "v", color=TEXT, markersize=4, clip_on=False
    )
    axes.set_xlim(indices[0] - 0.5, indices[-1] + 0.5)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_facecolor(BACKGROUND)
    axes.set_xlabel(f"slice {scene.axis}", color=TEXT)
    axes.set_ylabel("confidence", color=TEXT)
    axes.tick_params(colors=FAINT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _marked(scene: Scene, prompt: SlicePrompt) -> np.ndarray:
    """Where a prompted slice has its prompts and its mask: bool (row, column), as stored."""
    marked = scene.masks[prompt.index].copy()
    corners = list(prompt.points)
    box = prompt.clamped_box(*marked.shape)
    if box is not None:
        corners += [box[:2], box[2:]]
    rows, columns = marked.shape
    for x, y in corners:  # a point on the outer half of a voxel at the rim rounds to beyond it
        marked[min(max(round(y), 0), rows - 1), min(max(round(x), 0), columns - 1)] = True
    return marked


def _crop(seen: np.ndarray, margin: float) -> Crop:
    """Rows and columns around what is set in a displayed slice; all of them where nothing is."""
    if not seen.any():
        return slice(0, seen.shape[0]), slice(0, seen.shape[1])
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    free = 2 + int(margin * max(np.ptp(rows), np.ptp(columns)))
    return (
        slice(max(rows[0] - free, 0), min(rows[-1] + free + 1, seen.shape[0])),
        slice(max(columns[0] - free, 0), min(columns[-1] + free + 1, seen.shape[1])),
    )


def _ratio(window: Crop, view: SliceView) -> float:
    """Height over width of a cropped slice on paper."""
    rows, columns = window
    return (rows.stop - rows.start) * view.aspect / (columns.stop - columns.start)


def _spread(scene: Scene, count: int) -> list[int]:
    """At most `count` predicted slices, evenly spread, the prompted ones among them."""
    indices = sorted(scene.confidence)
    if len(indices) <= count:
        return indices
    places = (np.arange(count) + 0.5) / count * len(indices)
    chosen = [indices[int(place)] for place in places]
    for prompt in scene.prompts[:count]:
        nearest = min(range(count), key=lambda n: abs(chosen[n] - prompt.index))
        chosen[nearest] = prompt.index
    return sorted(set(chosen))


def _confidence_colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("confidence", CONFIDENCE_COLOURS)


def _describe(prompt: SlicePrompt) -> str:
    points = sum(prompt.labels)
    negative = len(prompt.labels) - points
    parts = ["a box"] if prompt.box is not None else []
    for number, word in ((points, "point"), (negative, "negative point")):
        if number:
            parts.append(f"one {word}" if number == 1 else f"{number} {word}s")
    return "Prompt: " + " and ".join(parts)


def _confidence(scene: Scene, index: int) -> str:
    return f"{scene.confidence[index]:.2f}" if index in scene.confidence else "unknown"
