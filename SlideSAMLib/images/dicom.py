"""Reading one DICOM series of a folder with SimpleITK, and saying clearly why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dicom_frames import Frame, numbers, read_frames
from .formats import check_name

POSITION = "0020|0032"
ORIENTATION = "0020|0037"
DESCRIPTION = "0008|103e"
PIXELS = "0028|0030"
KIND = "0008|0016"
GAP, THICKNESS = "0018|0088", "0018|0050"
SCALE = ("0028|1052", "0028|1053")  # intercept and slope of the values
MAX_UNEVEN = 0.1  # of the usual gap between two slices
MAX_TURN = 1e-3  # of the direction of rows and columns, as cosines
MAX_SIZES = 1e-3  # of the size of pixels
MAX_ASIDE = 0.5  # pixels that a slice may lie beside the line through the first one
ADVICE = "load it in Slicer and save it as NRRD"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # what ITK takes where no orientation is given
NAMED = 4  # series that an error message lists


def read_series(
    folder: Path, series: str | None = None, spaced: bool = False
) -> tuple[sitk.Image, str]:
    """Read the DICOM series of a folder as a 3D image; a note says what its files do not say.

    spaced : the spacing is known from elsewhere, the note need not speak of it.

    Raises InputError where the folder has no series, several and none was chosen, an unknown one
    was chosen, slices are missing or cannot be read, some of them have no place, they do not lie
    straight above each other, or they are colour pictures.
    """
    found = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not found:
        raise InputError(f"{folder} is a folder without DICOM images.")
    if series is not None and series not in found:
        raise InputError(f"{folder} has no series {series}; it has {_listing(folder, found)}.")
    if series is None and len(found) > 1:
        raise InputError(
            f"{folder} has {len(found)} DICOM series, choose one with --series UID: "
            f"{_listing(folder, found)}."
        )
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series or found[0])
    headers = [_header(name) for name in names]
    _check_whole(folder, found, headers)
    if len(headers) == 1:  # of one slice, or of many frames
        image = _read(folder, headers)
        return image, place_frames(image, Path(headers[0].GetFileName()), spaced)
    positions = _all_or_none(folder, headers, POSITION, 3, "position")
    turns = _all_or_none(folder, headers, ORIENTATION, 6, "orientation")
    if turns is not None:
        _check_turns(folder, turns)
    if positions is not None:
        pixels = _numbers(headers[0], PIXELS, 2)
        _check_positions(folder, pixels, positions, None if turns is None else turns[0])
    sizes = _all_or_none(folder, headers, PIXELS, 2, "pixel size")
    if sizes is not None and np.ptp(sizes, axis=0).max() > MAX_SIZES * np.min(sizes):
        raise InputError(
            f"The DICOM series of {folder} has pixels of several sizes: export the one volume that "
            "you want to segment."
        )
    image, notes = _read(folder, headers), []
    if positions is None:
        gap = "" if spaced else _put_gap(image, headers)
        notes.append(
            f"the slices of {folder} do not say where they lie: they are taken in the order of "
            f"their numbers or names{gap}"
        )
    if sizes is None and not spaced:
        column, row, _ = image.GetSpacing()
        notes.append(
            f"the slices of {folder} do not say how large their pixels are: {row:.4g} x "
            f"{column:.4g} mm is taken; --spacing K J I sets it"
        )
    if turns is None:
        notes.append(
            f"the slices of {folder} do not say how they are turned: they are taken as axial"
        )
    return image, "; ".join(notes)


def place_frames(image: sitk.Image, path: Path, spaced: bool = False) -> str:
    """Put the image of a DICOM file of many frames where these lie; does nothing to other files.

    ITK stacks them as they are stored, whatever they say, and takes 1 x 1 x 1 mm where their
    distances differ by some thousandths of a mm, as rounded ones do. A note comes back where there
    is one frame only, and where they do not say where they lie, unless the spacing is known from
    elsewhere (`spaced`).

    Raises InputError where the frames are no volume, or are scaled differently.
    """
    count = image.GetSize()[2]
    if _kind(path) is None:
        return ""
    if count == 1:
        return f"{path} is one slice: give its folder to read the whole series"
    frames = read_frames(path)
    if len(frames) == count and all(frame.position is not None for frame in frames):
        _stack(image, path, frames)
        return ""
    if spaced or image.GetSpacing() != (1.0, 1.0, 1.0):
        return ""
    return (
        f"the frames of {path} do not say where they lie: voxels of 1 x 1 x 1 mm are taken; "
        "--spacing K J I sets them"
    )


def _stack(image: sitk.Image, path: Path, frames: list[Frame]) -> None:
    """Place an image of these frames, see `place_frames`."""
    if len({frame.scale for frame in frames}) > 1:
        raise InputError(
            f"The frames of {path} are scaled differently, which cannot be read: make a NIfTI file "
            "of it, with dcm2niix for instance."
        )
    turns = [AXIAL if frame.turn is None else frame.turn for frame in frames]
    _check_turns(path, turns)
    positions = np.array([frame.position for frame in frames])
    pixels = frames[0].pixels
    across, down = (axis / np.linalg.norm(axis) for axis in np.reshape(turns[0], (2, 3)))
    normal = np.cross(across, down)
    along = (positions - positions[0]) @ normal
    order = np.argsort(along, kind="stable")
    _check_positions(path, pixels, positions[order], frames[0].turn)
    way = np.sign(along[-1])
    if (np.sign(np.diff(along)) != way).any():
        raise InputError(
            f"The frames of {path} are stored in another order than they lie: {ADVICE}."
        )
    row, column = image.GetSpacing()[1::-1] if pixels is None else pixels
    image.SetSpacing((column, row, abs(along[-1]) / (len(frames) - 1)))
    image.SetOrigin(positions[0])
    # ITK's matrix has the axes as its columns.
    image.SetDirection(np.stack((across, down, normal * way), axis=1).ravel())


def _read(folder: Path, headers: list[sitk.ImageFileReader]) -> sitk.Image:
    """The image of all the files, in their order."""
    reader = headers[0]
    if len(headers) > 1:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([header.GetFileName() for header in headers])
        # ITK takes the pixel type of the first file for all, and values of others wrap round.
        if len({(header.GetPixelIDValue(), *_scale(header)) for header in headers}) > 1:
            reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"The DICOM series of {folder} cannot be read: {reason}") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"The DICOM series of {folder} is not a 3D scalar volume.")
    return image


def _scale(header: sitk.ImageFileReader) -> tuple[float | None, ...]:
    values = (_numbers(header, tag, 1) for tag in SCALE)
    return tuple(None if value is None else float(value[0]) for value in values)


def _put_gap(image: sitk.Image, headers: list[sitk.ImageFileReader]) -> str:
    """Give an image of slices without positions their distance; the end of a note about it."""
    column, row, _ = image.GetSpacing()
    gap, why = min(column, row), "their pixels are"
    for tag, what in ((GAP, "their headers say"), (THICKNESS, "they are thick")):
        values = {
            None if v is None else float(v[0]) for v in (_numbers(h, tag, 1) for h in headers)
        }
        value = values.pop()
        if not values and value is not None and value > 0:
            gap, why = value, what
            break
    image.SetSpacing((column, row, gap))
    return f", {gap:.4g} mm apart as {why}; --spacing K J I sets it"


def _listing(folder: Path, found: tuple[str, ...]) -> str:
    parts = []
    for uid in found[:NAMED]:
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        text = _text(_header(names[0]), DESCRIPTION)
        parts.append(f"{uid} ({text + ', ' if text else ''}{len(names)} files)")
    more = len(found) - NAMED
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _check_whole(folder: Path, found: tuple[str, ...], headers: list[sitk.ImageFileReader]) -> None:
    """Refuse a folder with damaged images: GDCM leaves them out and says nothing.

    It leaves out what is no image, too (DICOMDIR, reports), which has another SOP class.
    """
    known = {Path(header.GetFileName()).name for header in headers}
    kind = _text(headers[0], KIND)
    others = {p for p in folder.iterdir() if p.name not in known and p.is_file()}
    others = {path.name for path in others if _kind(path) in ("", kind)}
    for uid in found if others else ():  # of other series; slow, GDCM reads the folder anew
        series = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        others -= {Path(name).name for name in series}
    if others:
        raise InputError(
            f"{folder / min(others)} is a DICOM image that cannot be read: copy it again, or take "
            "it out of the folder."
        )


def _kind(path: Path) -> str | None:
    """The SOP class in the header of a DICOM file, "" where it was cut off; None for others."""
    with path.open("rb") as file:
        head = file.read(1024)
    if head[128:132] != b"DICM":
        return None
    _, mark, rest = head.partition(b"\x02\x00\x02\x00UI")  # always explicit, little endian
    if len(rest) < 2 or not mark:
        return ""
    length = int.from_bytes(rest[:2], "little")
    return rest[2 : 2 + length].decode("ascii", "replace").strip("\0 ")


def _all_or_none(
    folder: Path, headers: list[sitk.ImageFileReader], tag: str, count: int, what: str
) -> list[np.ndarray] | None:
    """The numbers of a tag in every file, None where no file has them; InputError where some do."""
    values = [_numbers(header, tag, count) for header in headers]
    missing = [h for h, value in zip(headers, values, strict=True) if value is None]
    if not missing:
        return values
    if len(missing) == len(headers):
        return None
    raise InputError(
        f"{missing[0].GetFileName()} does not say the {what} of its slice, other files of {folder} "
        "do: copy it again, or take it out of the folder."
    )


def _check_turns(folder: Path, turns: list[np.ndarray]) -> None:
    """Refuse slices that are not parallel: ITK would turn them all like the first one."""
    if np.ptp(turns, axis=0).max() > MAX_TURN:
        raise InputError(
            f"The DICOM series of {folder} has slices of several orientations: export the one "
            f"volume that you want to segment, or {ADVICE}."
        )


def _check_positions(
    folder: Path,
    pixels: np.ndarray | None,
    positions: Sequence[np.ndarray],
    turn: np.ndarray | None,
) -> None:
    """Refuse slices that ITK would place wrongly: not even, or not straight above each other."""
    turned = AXIAL if turn is None else turn
    normal = np.cross(turned[:3], turned[3:])
    steps = np.subtract(positions, positions[0])
    along = steps @ normal
    gaps = np.abs(np.diff(along))
    usual = float(np.median(gaps))
    aside = np.linalg.norm(steps - along[:, None] * normal, axis=1).max()
    straight = aside <= MAX_ASIDE * (1.0 if pixels is None else pixels.min())
    if turn is None and not straight:
        raise InputError(
            f"The slices of the DICOM series of {folder} do not say how they are turned, and they "
            f"lie otherwise than axial ones: {ADVICE}."
        )
    if (gaps < 1e-3).any():
        raise InputError(
            f"The DICOM series of {folder} has several images at one position (a 4D or mixed "
            "series): export the one volume that you want to segment."
        )
    if np.abs(gaps - usual).max() > MAX_UNEVEN * usual:
        raise InputError(
            f"The DICOM series of {folder} is not evenly spaced (gaps from {gaps.min():.2f} to "
            f"{gaps.max():.2f} mm): slices are missing, {ADVICE}."
        )
    if not straight:
        raise InputError(
            f"The slices of the DICOM series of {folder} do not lie straight above each other (a "
            f"tilted gantry?): {ADVICE}."
        )


def _numbers(header: sitk.ImageFileReader, tag: str, count: int) -> np.ndarray | None:
    """The numbers of a tag; None where it is not there or holds something else."""
    return numbers(_text(header, tag), count)


def _text(header: sitk.ImageFileReader, tag: str) -> str:
    return header.GetMetaData(tag).strip("\0 ") if header.HasMetaDataKey(tag) else ""


def _header(name: str) -> sitk.ImageFileReader:
    """The reader of a file that has read its header."""
    check_name(name)
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[-1].strip()}") from None
    return reader
