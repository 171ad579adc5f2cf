"""How to turn a stored slice so that people see it as in Slicer's slice views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..images.volumes import Geometry

# For each patient axis that a slice looks along: its name, the patient axis that runs to the
# right of the picture with its sign, the one that runs downwards, and the letters at the left,
# right, top and bottom edge. LPS: axis 0 runs to the left, 1 to the back, 2 to the head.
VIEWS = (
    ("sagittal", (1, 1), (2, -1), "APSI"),
    ("coronal", (0, 1), (2, -1), "RLSI"),
    ("axial", (0, 1), (1, 1), "RLAP"),
)
# ITK axes (0, 1, 2 = i, j, k) of the columns and rows of a slice across an axis of (K, J, I).
COLUMN_ROW = {0: (0, 1), 1: (0, 2), 2: (1, 2)}


@dataclass(frozen=True)
class SliceView:
    """A stored slice turned for display: transposed first, then flipped.

    shape : (rows, columns) of the stored slice.
    aspect : height over width of a displayed voxel.
    letters : patient sides at the left, right, top and bottom edge of the picture.
    """

    name: str
    shape: tuple[int, int]
    transpose: bool
    flip_rows: bool
    flip_columns: bool
    aspect: float
    letters: str

    @classmethod
    def of(cls, geometry: Geometry, axis: int) -> SliceView:
        """The view of slices across `axis` of the (K, J, I) array of a geometry."""
        column, row = COLUMN_ROW[axis]
        directions = np.array(geometry.direction).reshape(3, 3)  # columns: directions of i, j, k
        along_column, along_row = directions[:, column], directions[:, row]
        normal = int(np.abs(np.cross(along_column, along_row)).argmax())
        name, (right, right_sign), (down, down_sign), letters = VIEWS[normal]
        transpose = bool(abs(along_row[right]) > abs(along_column[right]))
        x, y = (along_row, along_column) if transpose else (along_column, along_row)
        width, height = geometry.spacing[column], geometry.spacing[row]
        return cls(
            name=name,
            shape=(geometry.size[row], geometry.size[column]),
            transpose=transpose,
            flip_rows=bool(y[down] * down_sign < 0),
            flip_columns=bool(x[right] * right_sign < 0),
            aspect=width / height if transpose else height / width,
            letters=letters,
        )

    def turn(self, plane: np.ndarray) -> np.ndarray:
        """Turn a stored slice (rows, columns) for display (a view of it)."""
        plane = plane.T if self.transpose else plane
        return plane[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where the stored position (x column, y row) is displayed: (column, row)."""
        rows, columns = self.shape
        if self.transpose:
            x, y, rows, columns = y, x, columns, rows
        return (
            columns - 1 - x if self.flip_columns else x,
            rows - 1 - y if self.flip_rows else y,
        )
