"""What microscopes write into TIFF files: channels, times and the distance of slices.

ITK takes every page for a slice and the distance of slices for 1 mm. ImageJ and OME say in the
description of the first page what the pages are.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError
from .tiff_tags import is_cut_off, read_tags

WIDTH, DESCRIPTION, COLUMN_RESOLUTION, ROW_RESOLUTION, UNIT = TAGS = (256, 270, 282, 283, 296)
SAMPLES, TILE = 277, 322
METRIC = (2, 3)  # inch and cm, values of UNIT: ITK knows the size of the pixels
LSM = ".lsm"  # TIFF files whose spacing ITK reads
MILLIMETRES = {
    "a": 1e-7,
    "\N{LATIN SMALL LETTER A WITH RING ABOVE}": 1e-7,
    "nm": 1e-6,
    "um": 1e-3,
    "\N{MICRO SIGN}m": 1e-3,
    "\N{GREEK SMALL LETTER MU}m": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "in": 25.4,
    "inch": 25.4,
}
Sizes = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Pages:
    """slices, channels, frames : how many the description names, 1 where it does not.

    spacing : (i, j, k) in mm, None where the description does not say it.
    """

    slices: int = 1
    channels: int = 1
    frames: int = 1
    spacing: Sizes = (None, None, None)


def check_whole(path: Path) -> None:
    """Raise InputError where a TIFF file lacks pages: ITK takes those before for all."""
    if is_cut_off(path):
        raise InputError(
            f"{path} is damaged or was cut off before its end: copy or download it again."
        )


def check_strips(path: Path) -> None:
    """Raise InputError where a TIFF file stores grey values in tiles: ITK makes colours of them."""
    tags = read_tags(path, (SAMPLES, TILE))
    if TILE in tags and tags.get(SAMPLES, 1) == 1:
        raise InputError(
            f"{path} stores its pages in tiles, which cannot be read: save it in strips or as "
            "NRRD, with Fiji for instance."
        )


def check_pages(path: Path, count: int) -> None:
    """Raise InputError where the pages of a TIFF file are more than the slices of one volume.

    count : slices that ITK would make of it.
    """
    pages = _read(path)
    if pages is None or pages.channels * pages.frames <= 1 or count == pages.slices:
        return
    kinds = [f"{pages.channels} channels"] if pages.channels > 1 else []
    kinds += [f"{pages.frames} time points"] if pages.frames > 1 else []
    raise InputError(
        f"{path} has {' and '.join(kinds)} of {pages.slices} slices: save the one channel "
        "and time point that you want to segment as a file of its own."
    )


def put_spacing(image: sitk.Image, path: Path) -> str:
    """Give a 3D image the spacing that its TIFF file describes; does nothing to other files.

    Where the file does not say how far apart its slices lie, they are as far apart as its pixels:
    a sentence about that comes back, "" otherwise.
    """
    pages = _read(path)
    if pages is None:
        return ""
    column, row, gap = (
        given or there for given, there in zip(pages.spacing, image.GetSpacing(), strict=True)
    )
    if pages.spacing[2] is None:
        gap = min(column, row)
    image.SetSpacing((column, row, gap))
    if pages.spacing[2] is not None:
        return ""
    return (
        f"{path} does not say how far apart its slices lie: {gap:.4g} mm is taken, as between its "
        "pixels; --spacing K J I sets it"
    )


def says_spacing(path: Path) -> bool:
    """Whether a TIFF file says how far apart its slices lie."""
    pages = _read(path)
    return pages is not None and pages.spacing[2] is not None


def _read(path: Path) -> Pages | None:
    """What the description of a TIFF file says; None for other files."""
    if path.suffix.lower() == LSM:
        return None
    tags = read_tags(path, TAGS)
    if WIDTH not in tags:  # every page has one
        return None
    text = str(tags.get(DESCRIPTION, ""))
    if text.startswith("ImageJ="):
        return _imagej(text, tags)
    return _ome(text) or Pages()


def _imagej(text: str, tags: dict[int, str | float]) -> Pages:
    """Lines of KEY=VALUE; lengths are in `unit`, that of the pixels, too, unless UNIT has one."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    unit = MILLIMETRES.get(fields.get("unit", "").replace(r"\u00B5", "u").strip().lower())
    spacing: Sizes = (None, None, None)
    if unit is not None:
        column, row = (_positive(tags.get(t, 1.0)) for t in (COLUMN_RESOLUTION, ROW_RESOLUTION))
        if tags.get(UNIT) in METRIC or not column or not row:
            plane = (None, None)
        else:
            plane = (unit / column, unit / row)
        spacing = (*plane, _length(fields.get("spacing"), unit))
    names = ("slices", "channels", "frames")
    slices, channels, frames = (_count(fields.get(name)) for name in names)
    return Pages(slices, channels, frames, spacing)


def _ome(text: str) -> Pages | None:
    """The attributes of the first image's Pixels; lengths are in um unless they have a unit."""
    # No pattern may begin anywhere in what it has read already: long texts would take for ever.
    pixels = re.search(r"<(?:\w+:)?Pixels\b([^<>]*)>", text)
    if pixels is None:
        return None
    found = re.findall(r"\b(\w+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", pixels[1])
    fields = {name: html.unescape(double or single) for name, double, single in found}
    units = (MILLIMETRES.get(fields.get(f"PhysicalSize{a}Unit", "um").lower()) for a in "XYZ")
    spacing = tuple(
        _length(fields.get(f"PhysicalSize{axis}"), unit)
        for axis, unit in zip("XYZ", units, strict=True)
    )
    slices, channels, frames = (_count(fields.get(f"Size{axis}")) for axis in "ZCT")
    return Pages(slices, channels, frames, spacing)


def _count(text: str | None) -> int:
    # Of numbers of thousands of digits Python makes an error.
    return int(text) if re.fullmatch(r"\s*\d{1,9}\s*", text or "") else 1


def _length(text: str | None, unit: float | None) -> float | None:
    """mm; None for what is no positive length."""
    size = _positive(text)
    return None if size is None or unit is None else size * unit


def _positive(value: str | float | None) -> float | None:
    try:
        number = float(value) if value is not None else 0.0
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None
