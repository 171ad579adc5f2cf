"""What is drawn over one slice view: prompts, weak outlines, and the box being dragged. No Qt.

Everything is 2-D actors in pixels, worked out anew from positions in mm whenever the view changes.
The renderer is remembered, not the view's widget, so that cleaning up works when that is gone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..scene.lattice import Lattice, to_array
from ..scene.marks import IN_PLANE
from ..scene.prompt_set import Mark, PromptSet, per_mark
from . import dashes, slice_views
from .preview import Preview

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
        self._weak: tuple[Any, tuple] = (None, ())  # what it is of: outlines, and where they lie

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
        numbers = visible(prompts, slice_node, lattice)
        marks = [prompts.marks[number] for number in numbers if number != hovered]
        self._draw(slice_node, lattice, marks, False)
        if hovered in numbers:  # last, so that it lies on top
            self._draw(slice_node, lattice, [prompts.marks[hovered]], True)

    def outline(self, slice_node: Any, start: Sequence[float], xy: Sequence[float]) -> None:
        """Draw the box from a position in mm (RAS) to a pixel."""
        a = slice_views.xy_of(slice_node, start)
        self.remove_outline()
        self._outline = _polygons(_rectangle(a, xy)[None], YELLOW, LINE * self.ratio)
        self._renderer.AddViewProp(self._outline)

    def remove_outline(self) -> bool:
        """Stop drawing the box being dragged; whether there was one."""
        if self._outline is None:
            return False
        self._renderer.RemoveViewProp(self._outline)
        self._outline = None
        return True

    def show_weak(self, slice_node: Any, lattice: Lattice, preview: Preview) -> None:
        """Draw a dashed outline of the preview, where the slice that is shown is a weak one.

        Each finished slice asks for it; what is drawn already stays.
        """
        shown = slice_views.shown_slice(slice_node, lattice)
        found = []
        if shown is not None:
            axis, index = shown
            found = preview.weak_outlines(axis, index - int(lattice.first[axis]))
        to_xy = _ras_to_xy(slice_node) @ lattice.ijk_to_ras
        place = (shown, lattice.extent, to_xy.tobytes(), self.ratio, preview.color)
        if self.dashes is not None and found is self._weak[0] and place == self._weak[1]:
            return
        self.clear_weak()
        if not found:
            return
        length, gap = dashes.DASH * self.ratio, dashes.GAP * self.ratio
        pieces = [
            dashes.dashes(_line_xy(to_xy, lattice, axis, index, line), length, gap)
            for line in found
        ]
        self.dashes = _actor(np.concatenate(pieces), preview.color, LINE * self.ratio)
        self._weak = found, place
        self._renderer.AddViewProp(self.dashes)

    def clear_weak(self) -> None:
        """Draw no dashed outline."""
        if self.dashes is not None:
            self._renderer.RemoveViewProp(self.dashes)
            self.dashes, self._weak = None, (None, ())

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

    def _draw(self, slice_node: Any, lattice: Lattice, marks: list[Mark], hovered: bool) -> None:
        """Draw marks of a slice: an actor for all discs of a colour, and one for their rims."""
        pixels = positions_xy(slice_node, lattice, marks)
        width = (LINE + (2 if hovered else 0)) * self.ratio
        angles = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * RADIUS * self.ratio
        centres: dict[int, list[np.ndarray]] = {1: [], 0: []}
        for mark, xy in zip(marks, pixels, strict=True):
            if mark.kind == "box":
                color = GREEN if mark.label else RED
                self._add(_polygons(_rectangle(*xy)[None], color, width))
            elif mark.kind == "point":  # the preview shows masks
                centres[mark.label].append(xy[0])
        for label, places in centres.items():
            if places:
                discs = circle + np.array(places)[:, None]
                self._add(_polygons(discs, GREEN if label else RED, None))
                rim = WHITE if hovered else (0, 0, 0)
                self._add(_polygons(discs, rim, max(1.0, width / 2)))

    def _add(self, actor: Any) -> None:
        self._renderer.AddViewProp(actor)
        self._actors.append(actor)


def visible(prompts: PromptSet, slice_node: Any, lattice: Lattice) -> list[int]:
    """The numbers of the marks on the shown slice: points of any orientation, boxes of this one.

    Only those that lie where the view shows that slice.
    """
    shown = slice_views.shown_slice(slice_node, lattice)
    if shown is None or not prompts.marks:
        return []
    axis, index = shown
    positions = np.array([each for mark in prompts.marks for each in mark.positions])
    ras = np.column_stack([positions, np.ones(len(positions))]) @ lattice.local_to_ras.T
    near = per_mark(
        slice_views.is_near(slice_node, lattice, axis, index, ras[:, :3]), prompts.marks
    )
    return [
        number
        for number, voxels in enumerate(prompts.voxels(lattice))
        if voxels[0][axis] == index
        and near[number].all()
        and (prompts.marks[number].kind == "point" or prompts.marks[number].axis == axis)
    ]


def nearest(
    prompts: PromptSet, slice_node: Any, lattice: Lattice, xy: Sequence[float]
) -> tuple[int, float] | None:
    """(number, distance in pixels) of the mark on the shown slice that is nearest to a pixel."""
    numbers = visible(prompts, slice_node, lattice)
    marks = [prompts.marks[number] for number in numbers]
    pixels = positions_xy(slice_node, lattice, marks)
    found = [
        (_distance(mark.kind, each, xy), number)
        for number, mark, each in zip(numbers, marks, pixels, strict=True)
    ]
    if not found:
        return None
    distance, number = min(found)
    return number, distance


def positions_xy(slice_node: Any, lattice: Lattice, marks: Sequence[Mark]) -> list[np.ndarray]:
    """The positions of marks as pixels: (1 or 2, 2) each."""
    if not marks:
        return []
    positions = np.array([each for mark in marks for each in mark.positions])
    local = np.column_stack([positions, np.ones(len(positions))])
    xy = local @ (_ras_to_xy(slice_node) @ lattice.local_to_ras).T
    return per_mark(xy[:, :2], marks)


def _line_xy(
    to_xy: np.ndarray, lattice: Lattice, axis: int, index: int, line: np.ndarray
) -> np.ndarray:
    """A line (N, 2) on a slice, (column, row) from the start of the lattice, as pixels (N, 2).

    to_xy : from voxel indices to pixels, (4, 4).
    """
    positions = np.ones((len(line), 4))
    for place, along in enumerate(IN_PLANE[axis]):
        positions[:, along] = line[:, place] + lattice.first[along]
    positions[:, axis] = index
    return (positions @ to_xy.T)[:, :2]


def _ras_to_xy(slice_node: Any) -> np.ndarray:
    """World RAS in mm to pixels of a view: (4, 4)."""
    return np.linalg.inv(to_array(slice_node.GetXYToRAS()))


def _distance(kind: str, pixels: np.ndarray, xy: Sequence[float]) -> float:
    if kind == "mask":
        return 1e6  # has no place of its own; removed when nothing else is on the slice
    if kind == "point":
        return math.dist(pixels[0], xy)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    beyond = np.linalg.norm(np.maximum(np.maximum(low - xy, xy - high), 0))
    inside = np.min(np.minimum(np.abs(low - xy), np.abs(high - xy)))
    return float(beyond if beyond > 0 else inside)  # to the box's line


def _rectangle(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    return np.array([(a[0], a[1]), (b[0], a[1]), (b[0], b[1]), (a[0], b[1])])


def _polygons(polygons: np.ndarray, color: Sequence[float], width: float | None) -> Any:
    """Closed polygons (N, M, 2) as an actor: their outlines, or filled where `width` is None."""
    if width is not None:
        polygons = np.concatenate([polygons, polygons[:, :1]], axis=1)
    return _actor(polygons, color, width)


def _actor(lines: np.ndarray, color: Sequence[float], width: float | None) -> Any:
    """A 2-D actor of lines (N, M, 2) in pixels of the view; where `width` is None, of what they
    enclose."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

    flat = lines.reshape(-1, 2)
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(np.column_stack([flat, np.zeros(len(flat))]), deep=True))
    ends = np.arange(len(lines) + 1, dtype=np.int64) * lines.shape[1]
    cells = vtk.vtkCellArray()
    cells.SetData(
        numpy_to_vtkIdTypeArray(ends, deep=True),
        numpy_to_vtkIdTypeArray(np.arange(len(flat), dtype=np.int64), deep=True),
    )
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
