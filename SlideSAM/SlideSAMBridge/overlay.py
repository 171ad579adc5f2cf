"""What is drawn over one slice view: prompts, weak outlines, and the box being dragged. No Qt.

Everything is 2-D actors in pixels, worked out anew from positions in mm whenever the view changes.
The renderer is remembered, not the view's widget, so that cleaning up works when that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import dashes, slice_views
from .lattice import Lattice, to_array
from .marks import IN_PLANE
from .preview import Preview
from .prompt_set import Mark, PromptSet

GREEN, RED, YELLOW, WHITE = (0.15, 0.9, 0.25), (1.0, 0.25, 0.2), (1.0, 0.9, 0.2), (1, 1, 1)
RADIUS = 5  # of a point, in Qt pixels
LINE = 2  # width of lines, in Qt pixels
SIDES = 20  # of the polygon that stands for a disc


class Overlay:
    """The actors of one slice view.

    ratio : render window pixels per Qt pixel, for what is drawn from now on.
    """

    def __init__(self, renderer: Any, ratio: float = 1.0) -> None:
        self._renderer = renderer
        self.ratio = ratio
        self._actors: list[Any] = []
        self._outline: Any = None
        self.dashes: Any = None  # the actor of the weak outline, or None

    @property
    def actors(self) -> list[Any]:
        """The prompts and the box that are drawn now."""
        return [*self._actors, *([] if self._outline is None else [self._outline])]

    def show(
        self,
        slice_node: Any,
        lattice: Lattice,
        prompts: PromptSet,
        hovered: int | None = None,
    ) -> None:
        """Draw the prompts that lie on the slice that is shown; `hovered` gets a thicker rim."""
        self.clear_marks()
        shown = slice_views.shown_slice(slice_node, lattice)
        if shown is None:
            return
        for number in visible(prompts, lattice, *shown):
            mark = prompts.marks[number]
            for actor in self._draw(slice_node, lattice, mark, number == hovered):
                self._renderer.AddViewProp(actor)
                self._actors.append(actor)

    def outline(self, slice_node: Any, start: Sequence[float], xy: Sequence[float]) -> None:
        """Draw the box from a position in mm (RAS) to a pixel."""
        a = slice_views.xy_of(slice_node, start)
        self.remove_outline()
        self._outline = _polygon(_rectangle(a, xy), YELLOW, LINE * self.ratio)
        self._renderer.AddViewProp(self._outline)

    def remove_outline(self) -> bool:
        """Stop drawing the box being dragged; whether there was one."""
        if self._outline is None:
            return False
        self._renderer.RemoveViewProp(self._outline)
        self._outline = None
        return True

    def show_weak(self, slice_node: Any, lattice: Lattice, preview: Preview) -> None:
        """Draw a dashed outline of the preview, where the slice that is shown is a weak one."""
        self.clear_weak()
        shown = slice_views.shown_slice(slice_node, lattice)
        if shown is None:
            return
        axis, index = shown
        found = preview.weak_outlines(axis, index - int(lattice.first[axis]))
        if not found:
            return
        length, gap = dashes.DASH * self.ratio, dashes.GAP * self.ratio
        pieces = [
            dashes.dashes(_line_xy(slice_node, lattice, axis, index, line), length, gap)
            for line in found
        ]
        self.dashes = dashes.actor(np.concatenate(pieces), preview.color, LINE * self.ratio)
        self._renderer.AddViewProp(self.dashes)

    def clear_weak(self) -> None:
        """Draw no dashed outline."""
        if self.dashes is not None:
            self._renderer.RemoveViewProp(self.dashes)
            self.dashes = None

    def clear_marks(self) -> None:
        """Draw no prompts."""
        for actor in self._actors:
            self._renderer.RemoveViewProp(actor)
        self._actors.clear()

    def clear(self) -> None:
        """Take everything out of the view."""
        self.clear_marks()
        self.clear_weak()
        self.remove_outline()

    def _draw(self, slice_node: Any, lattice: Lattice, mark: Mark, hovered: bool) -> list[Any]:
        pixels = positions_xy(slice_node, lattice, mark)
        color = GREEN if mark.label else RED
        width = (LINE + (2 if hovered else 0)) * self.ratio
        if mark.kind == "mask":
            return []  # the preview shows it
        if mark.kind == "box":
            return [_polygon(_rectangle(*pixels), color, width)]
        angles = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * RADIUS * self.ratio
        disc = circle + pixels[0]
        rim = WHITE if hovered else (0, 0, 0)
        return [_polygon(disc, color, None), _polygon(disc, rim, max(1.0, width / 2))]


def visible(prompts: PromptSet, lattice: Lattice, axis: int, index: int) -> list[int]:
    """The numbers of the marks on a slice: points of any orientation, boxes of this one."""
    return [
        number
        for number, mark in enumerate(prompts.marks)
        if (mark.kind == "point" or mark.axis == axis) and mark.slice_index(lattice, axis) == index
    ]


def nearest(
    prompts: PromptSet, slice_node: Any, lattice: Lattice, xy: Sequence[float]
) -> tuple[int, float] | None:
    """(number, distance in pixels) of the mark on the shown slice that is nearest to a pixel."""
    shown = slice_views.shown_slice(slice_node, lattice)
    if shown is None:
        return None
    found = [
        (_distance(prompts.marks[number], slice_node, lattice, xy), number)
        for number in visible(prompts, lattice, *shown)
    ]
    if not found:
        return None
    distance, number = min(found)
    return number, distance


def positions_xy(slice_node: Any, lattice: Lattice, mark: Mark) -> np.ndarray:
    """The positions of a mark as pixels: (N, 2)."""
    to_ras = lattice.local_to_ras
    ras = [(to_ras @ np.append(position, 1.0))[:3] for position in mark.positions]
    return np.array([slice_views.xy_of(slice_node, each) for each in ras])


def _line_xy(
    slice_node: Any, lattice: Lattice, axis: int, index: int, line: np.ndarray
) -> np.ndarray:
    """A line (N, 2) on a slice, (column, row) from the start of the lattice, as pixels (N, 2)."""
    positions = np.ones((len(line), 4))
    for place, along in enumerate(IN_PLANE[axis]):
        positions[:, along] = line[:, place] + lattice.first[along]
    positions[:, axis] = index
    to_xy = np.linalg.inv(to_array(slice_node.GetXYToRAS())) @ lattice.ijk_to_ras
    return (positions @ to_xy.T)[:, :2]


def _distance(mark: Mark, slice_node: Any, lattice: Lattice, xy: Sequence[float]) -> float:
    if mark.kind == "mask":
        return 1e6  # has no place of its own; removed when nothing else is on the slice
    pixels = positions_xy(slice_node, lattice, mark)
    if mark.kind == "point":
        return float(np.linalg.norm(pixels[0] - xy))
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    beyond = np.linalg.norm(np.maximum(np.maximum(low - xy, xy - high), 0))
    inside = np.min(np.minimum(np.abs(low - xy), np.abs(high - xy)))
    return float(beyond if beyond > 0 else inside)  # to the box's line


def _rectangle(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    return np.array([(a[0], a[1]), (b[0], a[1]), (b[0], b[1]), (a[0], b[1])])


def _polygon(pixels: np.ndarray, color: Sequence[float], width: float | None) -> Any:
    """A closed polygon as an actor: its outline, or filled where `width` is None."""
    import vtk

    points = vtk.vtkPoints()
    cells = vtk.vtkCellArray()
    count = len(pixels) + (width is not None)
    cells.InsertNextCell(count)
    for number in range(count):
        x, y = pixels[number % len(pixels)]
        cells.InsertCellPoint(points.InsertNextPoint(float(x), float(y), 0.0))
    data = vtk.vtkPolyData()
    data.SetPoints(points)
    (data.SetPolys if width is None else data.SetLines)(cells)
    mapper = vtk.vtkPolyDataMapper2D()
    mapper.SetInputData(data)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.PickableOff()
    actor.GetProperty().SetColor(*color)
    actor.GetProperty().SetLineWidth(1.0 if width is None else float(width))
    return actor
