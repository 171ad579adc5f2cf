"""A volume seen along its slide axis. No torch here.

A stack has the axes (slice, row, column); its slices are read from the volume when they are
asked for, so that a stack costs next to no memory.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .errors import InputError
from .intensity import automatic_window, shown_window, value_range
from .protocol import Window

MOST_LOST = 3  # slices in a row that are shown as those beside them, where they hold nothing

_anonymous = itertools.count()


class Stack:
    """A volume with its slide axis in front.

    Parameters
    ----------
    volume : array (K, J, I)
        Any real dtype; never copied and never written to.
    axis : int
        The slide axis, 0 to 2.
    spacing : (sk, sj, si)
        Voxel size along the axes of `volume` in mm.
    window : (low, high), optional
        Intensity window in image units; None chooses one (see `intensity.automatic_window`).
    key : hashable, optional
        Identity of the volume's content for embedding caches. Two stacks with the same key must
        have the same voxels. None: this stack shares its embeddings with no other stack.

    Attributes
    ----------
    slices, height, width : int
    spacing : (gap, row, column) in mm
    intensity : (low, high) in image units
    shown : (low, high), what these are in slices and windows, see `intensity.shown_window`
    settled : whether somebody chose that window, so that no prompt changes it
    axis : int
    key : hashable; covers the axis, the spacing and the intensity window too

    Raises
    ------
    InputError
        The volume is not 3D, empty, not real, constant or without a finite voxel; or the axis,
        the spacing or the window cannot be used.
    """

    def __init__(
        self,
        volume: np.ndarray,
        axis: int = 0,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        window: Sequence[float] | None = None,
        key: Hashable | None = None,
    ) -> None:
        volume = np.asarray(volume)
        extremes = _checked_range(volume)
        if isinstance(axis, bool) or axis not in (0, 1, 2):
            raise InputError(f"The slide axis must be 0, 1 or 2, not {axis!r}.")
        self.axis = int(axis)
        gap, row, column = _reorder(_checked_spacing(spacing), self.axis)
        self.spacing = (gap, row, column)
        self.intensity = (
            automatic_window(volume, extremes)
            if window is None
            else _checked_window(window, volume)
        )
        self.settled = window is not None
        self.shown = shown_window(self.intensity, volume.dtype)
        self._view = np.moveaxis(volume, self.axis, 0)  # (K, J, I) -> (slice, row, column)
        self.slices, self.height, self.width = self._view.shape
        self._identity = ("anonymous", next(_anonymous)) if key is None else ("named", key)

    @property
    def key(self) -> tuple:
        """See above."""
        return (*self._identity, self.axis, self.spacing, self.intensity)

    def in_window(self, window: tuple[float, float]) -> Stack:
        """The same voxels with this intensity window, settled; embeddings are shared with others
        that have it."""
        out = copy.copy(self)
        out.intensity, out.settled = window, True
        out.shown = shown_window(window, self._view.dtype)
        return out

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, height, width)."""
        return (self.slices, self.height, self.width)

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """(K, J, I), the shape of the volume."""
        return self.to_volume(self._view).shape

    @property
    def voxel_area(self) -> float:
        """Area of one voxel of a slice in mm2."""
        return self.spacing[1] * self.spacing[2]

    def slice(self, index: int) -> np.ndarray:
        """One slice, clipped to the intensity window: float32 (height, width), all finite.

        Its values go from shown[0] to shown[1]; voxels that are not finite become shown[0]. Of a
        lost slice, see `_seen`, it is the nearest other one.
        Raises InputError where `index` is not inside 0..slices-1.
        """
        self._check(index)
        out = np.empty((self.height, self.width), np.float32)
        self._read(index, out)
        return out

    def greys(self, index: int) -> np.ndarray:
        """One slice as it is in the volume, (height, width), not to be written to."""
        self._check(index)
        return self._view[index]

    def _check(self, index: int) -> None:
        if not 0 <= index < self.slices:
            raise InputError(
                f"Slice {index} is outside the volume: the slices along this axis are 0 to "
                f"{self.slices - 1}."
            )

    def _seen(self, index: int) -> int:
        """The slice to be shown as this one: itself, or the nearest one where it is lost.

        Lost, as sections of a microscope may be, are slices of one value between others, a few in
        a row: the object goes on behind them, and nothing can be found on them. At the ends of the
        volume such slices are what was filled up. Between slices that mostly have that value, too,
        as where all but an organ was blackened, they are its ground.
        """
        if not _holds_nothing(self._view[index]):
            return index
        around = []
        for step in (-1, 1):
            beyond = (index + n * step for n in range(1, MOST_LOST + 1))
            inside = (other for other in beyond if 0 <= other < self.slices)
            around.append(next((i for i in inside if not _holds_nothing(self._view[i])), None))
        below, above = around
        if below is None or above is None or above - below > MOST_LOST + 1:
            return index
        if not all(_mostly_other(self._view[i], self._view[index]) for i in (below, above)):
            return index
        return below if index - below <= above - index else above

    def _read(self, index: int, out: np.ndarray) -> None:
        """See `slice`."""
        low, high = self.intensity
        plane = self._view[self._seen(index)]
        if plane.dtype.itemsize <= 2 and plane.dtype.kind != "f":
            out[...] = plane
            np.clip(out, low, high, out=out)
            return
        # Clip wide types before they become float32, so that nothing overflows to infinity.
        values = plane.astype(np.float64)
        values[~np.isfinite(values)] = low
        np.clip(values, low, high, out=values)
        if self.shown != self.intensity:
            values -= low
            values /= high - low
        out[...] = values

    def window(self, centre: int) -> Window:
        """The three slices around `centre`; at the ends of the volume the edge slice repeats."""
        return self.windows([centre])[0]

    def windows(self, centres: Sequence[int]) -> list[Window]:
        """The window around each centre; every slice is read once, when it is asked for.

        Windows that overlap share their memory: nobody may write to it.
        Raises InputError where a centre is not inside 0..slices-1.
        """
        for centre in centres:
            self._check(centre)
        last = self.slices - 1
        wanted = {c: tuple(min(max(c + n, 0), last) for n in (-1, 0, 1)) for c in map(int, centres)}
        reading = _Reading(self, sorted({index for around in wanted.values() for index in around}))
        found = []
        for centre in map(int, centres):
            around = wanted[centre]
            keys = tuple((self.key, index) for index in around)
            planes = _Planes(reading, around)
            found.append(Window(planes, self.spacing, self.shown, (self.key, centre), keys))
        return found

    def to_volume(self, stacked: np.ndarray) -> np.ndarray:
        """Give an array (slices, height, width) the axis order of the volume (a view)."""
        return np.moveaxis(stacked, 0, self.axis)  # (slice, row, column) -> (K, J, I)

    def from_volume(self, volume: np.ndarray) -> np.ndarray:
        """Give an array (K, J, I) the axis order of the stack (a view)."""
        return np.moveaxis(volume, self.axis, 0)  # (K, J, I) -> (slice, row, column)


class _Reading:
    """Slices of a stack that windows have in common, in one piece of memory; each is read once."""

    def __init__(self, stack: Stack, indices: list[int]) -> None:
        self._stack = stack
        self._place = {index: place for place, index in enumerate(indices)}
        # What is never read never takes up memory.
        self._values = np.empty((len(indices), stack.height, stack.width), np.float32)
        self._missing = set(indices)

    def slice(self, index: int) -> np.ndarray:
        """See `Stack.slice`."""
        out = self._values[self._place[index]]
        if index in self._missing:
            self._stack._read(index, out)
            self._missing.remove(index)
        return out

    def slices(self, indices: tuple[int, ...]) -> np.ndarray:
        """Several of them, float32 (n, H, W); a view where they are consecutive."""
        for index in indices:
            self.slice(index)
        places = [self._place[index] for index in indices]
        first = places[0]
        if places == list(range(first, first + len(places))):
            return self._values[first : first + len(places)]
        return self._values[places]


class _Planes(Sequence):
    """The slices of one window, read when they are asked for."""

    def __init__(self, reading: _Reading, indices: tuple[int, ...]) -> None:
        self._reading, self._indices = reading, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> np.ndarray:
        return self._reading.slice(self._indices[place])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, for `numpy.asarray`; a copy for `numpy.array`, as that promises."""
        values = self._reading.slices(self._indices)
        return values.astype(values.dtype if dtype is None else dtype, copy=bool(copy))


def _holds_nothing(plane: np.ndarray) -> bool:
    """Whether all finite values of a slice (H, W) are one, or there is none."""
    middle = len(plane) // 2
    for part in (plane[middle : middle + 1], plane):  # nearly always the row in the middle tells
        values = part if part.dtype.kind in "biu" else part[np.isfinite(part)]
        if values.size and values.min() != values.max():
            return False
    return True


def _mostly_other(plane: np.ndarray, lost: np.ndarray) -> bool:
    """Whether most voxels of a slice have another value than those of a lost one, all (H, W)."""
    values = lost[np.isfinite(lost)]
    other = np.isfinite(plane)
    if values.size:
        other &= plane != values[0]
    return bool(2 * np.count_nonzero(other) > other.size)


def _checked_range(volume: np.ndarray) -> tuple[float, float]:
    """The value range of a volume that can be used."""
    if volume.ndim != 3:
        raise InputError(
            f"The volume must be 3D with one value per voxel, but it has the shape {volume.shape}."
        )
    if volume.size == 0:
        raise InputError(f"The volume is empty: its shape is {volume.shape}.")
    if volume.dtype.kind not in "biuf":
        raise InputError(
            f"The volume must hold real numbers, not {volume.dtype}: convert it to one grey value "
            "per voxel."
        )
    extremes = value_range(volume)
    if extremes is None:
        raise InputError("The volume has no finite voxel: every value is NaN or infinite.")
    if extremes[0] == extremes[1]:
        raise InputError(
            f"The volume is constant: every voxel is {extremes[0]:g}, so there is nothing to "
            "segment."
        )
    return extremes


def _checked_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    try:
        values = tuple(float(v) for v in spacing)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(np.isfinite(v) and v > 0 for v in values):
        raise InputError(f"The spacing must be three positive numbers in mm, not {spacing!r}.")
    return values


def _checked_window(window: Sequence[float], volume: np.ndarray) -> tuple[float, float]:
    try:
        values = tuple(float(v) for v in window)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 2 or not np.isfinite(values).all() or values[0] >= values[1]:
        raise InputError(
            f"The intensity window must be two finite numbers LOW < HIGH, not {window!r}."
        )
    above = below = False
    for plane in volume:  # a few planes nearly always tell
        above = above or bool((plane > values[0]).any())
        below = below or bool((plane < values[1]).any())
        if above and below:
            return values
    raise InputError(
        f"The intensity window {values[0]:g} to {values[1]:g} lies outside all voxels of the "
        "volume: choose one that shows something."
    )


def _reorder(spacing: tuple[float, float, float], axis: int) -> tuple[float, float, float]:
    """(sk, sj, si) -> (gap, row, column), the same order as numpy.moveaxis(volume, axis, 0)."""
    rest = [value for i, value in enumerate(spacing) if i != axis]
    return (spacing[axis], rest[0], rest[1])
