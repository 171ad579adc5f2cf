"""The intensity window of a volume: which grey values the models get to see. No torch here."""

from __future__ import annotations

import numpy as np

CT_WINDOW = (-200.0, 400.0)  # soft tissue and bone in Hounsfield units, as published
CT_AIR = -500.0  # nothing but CT stores air as far below zero ...
CT_LEAST_AIR = 0.001  # ... on this share of the voxels: resampled MR rings, but on few of them
CT_LEAST_SHARE = 0.01  # share of the voxels that must lie inside CT_WINDOW
# What lies outside is noise of air or metal in a CT, and most of the grey values elsewhere ...
CT_RANGE = (-1500.0, 4000.0)
CT_MOST_OUTSIDE = 0.05  # ... on this share of the voxels,
CT_PADDING = 0.01  # without single values on this share: what is outside the field of view
CT_MOST_FILLS = 2  # so many single values below 0 and no more: what fills the outside of an MR
PERCENTILES = (0.5, 99.5)
# A single value at an end of the range is no part of the image where the rest, at least this share
# of the voxels, is this many times as far from it as the rest is wide.
PADDED_SHARE, PADDED_GAP = 0.1, 2.0
PADDED_MARGIN = 0.1  # of the rest's width: what is black beside it stays darker
SAMPLES = 1_000_000
WIDENED = (2, 98)  # percentiles of the greys in and around an object that a wider window holds
SURROUNDED = 0.8  # share of the surroundings beyond the window, from which on the rest is left out
# A window that float32 shows as it is: so many of its values lie inside, and its width is between.
FINE = 4096
WIDTHS = (1e-30, 1e30)


def value_range(volume: np.ndarray) -> tuple[float, float] | None:
    """Smallest and largest finite value of a real 3D array, or None where there is none.

    Works plane by plane, so that no second copy of the volume ever exists.
    """
    low, high = np.inf, -np.inf
    outermost = int(np.argmax(np.abs(volume.strides)))  # planes that lie together in memory
    for plane in np.moveaxis(volume, outermost, 0):  # any order of axes will do
        values = plane if plane.dtype.kind in "biu" else plane[np.isfinite(plane)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else None


def automatic_window(
    volume: np.ndarray, extremes: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Choose (low, high) in image units for a real 3D array (K, J, I).

    extremes : its `value_range`, from those who know it already.

    Data are taken for CT where at least 0.1 % of the voxels are -500 or less (negative air), at
    least 1 % lie strictly inside -200..400 and at most 5 % outside -1500..4000, padding not
    counted, and where there is more below 0 than what fills the outside of an image; they get
    (-200, 400). All other data get the percentiles 0.5 and 99.5 of at most about a million evenly
    spaced finite voxels, without a single value far away from all others (padding). Where these
    coincide (a nearly empty image) they are the percentiles of the voxels with other values, and
    the window holds that one, too: a hot pixel must not hide the rest. Where the sample has no
    other value it is the full range.

    Always low < high, except where all finite voxels have one value: (value, value), and (0, 0)
    where no voxel is finite.
    """
    extremes = value_range(volume) if extremes is None else extremes
    if extremes is None:
        return (0.0, 0.0)
    sample = _sample(volume)
    if sample.size:
        if _is_ct(sample):
            return CT_WINDOW
        padded = _without_padding(sample)
        if padded is not None:
            return padded
        low, high = (float(v) for v in np.percentile(sample, PERCENTILES))
        if low == high and (sample != low).any():
            rest = np.percentile(sample[sample != low], PERCENTILES)
            low, high = min(low, float(rest[0])), max(high, float(rest[1]))
        if low < high:
            return (low, high)
    return extremes


def shown_window(window: tuple[float, float], dtype: np.dtype) -> tuple[float, float]:
    """The float32 values that the ends of a window (low, high) get in slices of this dtype.

    The window itself, or (0, 1) where float32 could not tell the values inside apart: integers
    and floating point numbers that are wider and are large for their differences, or beyond it.
    """
    if np.can_cast(dtype, np.float32):
        return window
    low, high = window
    step = max(abs(low), abs(high)) * float(np.finfo(np.float32).eps)  # between two values
    fine = WIDTHS[0] < high - low < WIDTHS[1] and high - low >= FINE * step
    return window if fine else (0.0, 1.0)


def widened_window(
    window: tuple[float, float], inside: np.ndarray, around: np.ndarray, least: float = 0.0
) -> tuple[float, float]:
    """The window (low, high), or a wider one where it cuts off the edge of an object.

    The edge lies where the grey is halfway between that of the object and that around it. Where
    both the object and its edge are beyond one end of the window, the edge is seen at another
    place, or not at all, where what is around lies there, too. Where the edge and most of the
    surroundings are, as about a nodule in a lung, the object is seen, but too small. With more of
    the surroundings in the window, it is needed to tell the object from these.

    inside, around : grey values of the object and of its surroundings, of any shape.
    least : share of the window's width by which the two must differ.
    """
    parts = [values[np.isfinite(values)] for values in (inside, around)]
    if not all(values.size for values in parts):
        return window
    (low, high), (own, other) = window, (float(np.median(values)) for values in parts)
    edge = own / 2 + other / 2
    if abs(own - edge) < least / 2 * (high - low):
        return window
    ends = np.concatenate([np.percentile(values, WIDENED) for values in parts])
    if edge < low and (own < low or np.mean(parts[1] < low) >= SURROUNDED):
        return (float(ends.min()), high)
    if edge > high and (own > high or np.mean(parts[1] > high) >= SURROUNDED):
        return (low, float(ends.max()))
    return window


def _is_ct(sample: np.ndarray) -> bool:
    """Whether the voxels of a sample are Hounsfield units, see `automatic_window`."""
    inside = (sample > CT_WINDOW[0]) & (sample < CT_WINDOW[1])
    if inside.mean() < CT_LEAST_SHARE or (sample <= CT_AIR).mean() < CT_LEAST_AIR:
        return False
    between = (sample > CT_AIR) & (sample < 0)  # fat, and the rims of everything in air
    if between.mean() < CT_LEAST_AIR and np.unique(sample[sample <= CT_AIR]).size <= CT_MOST_FILLS:
        return False
    outside = sample[(sample < CT_RANGE[0]) | (sample > CT_RANGE[1])]
    counts = np.unique(outside, return_counts=True)[1]
    counts = counts[counts < CT_PADDING * sample.size]
    return bool(counts.sum() <= CT_MOST_OUTSIDE * sample.size)


def _without_padding(sample: np.ndarray) -> tuple[float, float] | None:
    """The window of a padded image; None where neither end of its range is padding.

    One voxel value that lies far away from all others would leave these a few greys.
    """
    rest, window = sample, None
    for end in (sample.min(), sample.max()):
        others = rest[rest != end]
        share = 1 - others.size / rest.size
        if share < PERCENTILES[0] / 100 or others.size < PADDED_SHARE * sample.size:
            continue  # the percentiles leave it out, or there is little else: it is the background
        low, high = (float(v) for v in np.percentile(others, PERCENTILES))
        width = high - low
        if width > 0 and max(low - end, end - high) > PADDED_GAP * width:
            rest = others
            window = (low - PADDED_MARGIN * width, high + PADDED_MARGIN * width)
    return window


def _sample(volume: np.ndarray) -> np.ndarray:
    """Finite voxels on a regular grid over the volume, as float64 (always the same ones)."""
    step = max(1, round((volume.size / SAMPLES) ** (1 / 3)))
    steps = [slice(None, None, step if size > 2 * step else 1) for size in volume.shape]
    values = volume[tuple(steps)].astype(np.float64).ravel()
    return values[np.isfinite(values)]
