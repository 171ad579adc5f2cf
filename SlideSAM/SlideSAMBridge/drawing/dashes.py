"""Dashed outlines of masks, as short lines in pixels. No Qt.

VTK draws no stippled lines any more, so the dashes are geometry. Their length is in pixels of the
view, whatever the zoom.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

DASH, GAP = 7.0, 5.0  # in Qt pixels


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The closed outlines of a mask, bool (H, W): each (N, 2), (column, row) in voxels.

    They run half a voxel outside the centres of the mask's outermost voxels, first point repeated
    at the end. Holes have outlines, too.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    padded = np.pad(mask.astype(np.uint8), 1)  # or there is no line at the edge of the slice
    height, width = padded.shape
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(padded.ravel(), deep=True))
    contour = vtk.vtkFlyingEdges2D()
    contour.SetInputData(image)
    contour.SetValue(0, 0.5)
    strips = vtk.vtkStripper()
    strips.SetInputConnection(contour.GetOutputPort())
    strips.JoinContiguousSegmentsOn()
    strips.SetMaximumLength(10**6)
    strips.Update()
    found = strips.GetOutput()
    if found.GetNumberOfLines() == 0:
        return []
    points = vtk_to_numpy(found.GetPoints().GetData())[:, :2].astype(float) - 1
    ids = vtk_to_numpy(found.GetLines().GetConnectivityArray())
    offsets = vtk_to_numpy(found.GetLines().GetOffsetsArray())
    return [points[ids[a:b]] for a, b in pairwise(offsets)]


def dashes(line: np.ndarray, dash: float = DASH, gap: float = GAP) -> np.ndarray:
    """A polyline (N, 2) as the straight pieces of its dashes: (M, 2, 2), from and to.

    Dash and gap are stretched a little, so that a whole number of them fits.
    """
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    at = np.append(0.0, np.cumsum(steps))
    length = at[-1]
    if length <= 0:
        return np.empty((0, 2, 2))
    count = max(2, round(length / (dash + gap)))
    period = length / count
    share = dash / (dash + gap)
    starts = np.arange(count) * period
    cuts = np.unique(np.concatenate([at, starts, starts + share * period]))
    x, y = (np.interp(cuts, at, line[:, n]) for n in (0, 1))
    positions = np.stack([x, y], axis=1)
    pieces = np.stack([positions[:-1], positions[1:]], axis=1)
    middle = (cuts[:-1] + cuts[1:]) / 2
    return pieces[(middle % period) < share * period]
