"""Reading one DICOM series of a folder with SimpleITK, and saying clearly why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError

POSITION = "0020|0032"
ORIENTATION = "0020|0037"
DESCRIPTION = "0008|103e"
PIXELS = "0028|0030"
KIND = "0008|0016"
MAX_UNEVEN = 0.1  # of the usual gap between two slices
MAX_TURN = 1e-3  # of the direction of rows and columns, as cosines
MAX_ASIDE = 0.5  # pixels that a slice may lie beside the line through the first one
ADVICE = "load it in Slicer and save it as NRRD"
NAMED = 4  # series that an error message lists


def read_series(folder: Path, series: str | None = None) -> sitk.Image:
    """Read the DICOM series of a folder as a 3D image.

    Raises InputError where the folder has no series, several and none was chosen, an unknown one
    was chosen, slices are missing or cannot be read, the slices do not lie straight above each
    other, or they are colour pictures.
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
    _check_whole(folder, found, names)
    _check_slices(folder, names)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"The DICOM series of {folder} cannot be read: {reason}") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"The DICOM series of {folder} is not a 3D scalar volume.")
    return image


def _listing(folder: Path, found: tuple[str, ...]) -> str:
    parts = []
    for uid in found[:NAMED]:
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        text = _tags(names[0]).get(DESCRIPTION, "").strip()
        parts.append(f"{uid} ({text + ', ' if text else ''}{len(names)} files)")
    more = len(found) - NAMED
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _check_whole(folder: Path, found: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Refuse a folder with damaged images: GDCM leaves them out and says nothing.

    It leaves out what is no image, too (DICOMDIR, reports), which has another SOP class.
    """
    known = {Path(name).name for name in names}
    kind = _tags(names[0]).get(KIND, "").strip()
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


def _check_slices(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse series whose slices ITK would place wrongly: not even, not straight, not parallel."""
    headers = [_tags(name) for name in names]
    positions = [_numbers(header, POSITION, 3) for header in headers]
    turns = [_numbers(header, ORIENTATION, 6) for header in headers]
    if len(names) < 2 or any(value is None for value in (*positions, *turns)):
        return
    if np.ptp(turns, axis=0).max() > MAX_TURN:
        raise InputError(
            f"The DICOM series of {folder} has slices of several orientations: export the one "
            f"volume that you want to segment, or {ADVICE}."
        )
    normal = np.cross(turns[0][:3], turns[0][3:])
    steps = np.subtract(positions, positions[0])
    along = steps @ normal
    gaps = np.abs(np.diff(along))
    usual = float(np.median(gaps))
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
    pixels = _numbers(headers[0], PIXELS, 2)
    aside = np.linalg.norm(steps - along[:, None] * normal, axis=1).max()
    if aside > MAX_ASIDE * (1.0 if pixels is None else pixels.min()):
        raise InputError(
            f"The slices of the DICOM series of {folder} do not lie straight above each other (a "
            f"tilted gantry?): {ADVICE}."
        )


def _numbers(header: dict[str, str], tag: str, count: int) -> np.ndarray | None:
    """The numbers of a tag; None where it is not there or holds something else."""
    try:
        values = np.array(header.get(tag, "").split("\\"), float)
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _tags(name: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[-1].strip()}") from None
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
