"""Reading one DICOM series of a folder with SimpleITK, and saying clearly why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError

POSITION = "0020|0032"
ORIENTATION = "0020|0037"
DESCRIPTION = "0008|103e"
MAX_UNEVEN = 0.1  # of the usual gap between two slices
NAMED = 4  # series that an error message lists


def read_series(folder: Path, series: str | None = None) -> sitk.Image:
    """Read the DICOM series of a folder as a 3D image.

    Raises InputError where the folder has no series, several and none was chosen, an unknown one
    was chosen, slices are missing, or the slices are colour pictures.
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


def _check_slices(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse series whose slices are not evenly spaced: ITK would place them wrongly."""
    headers = [_tags(name) for name in names]
    if len(names) < 3 or any(POSITION not in h or ORIENTATION not in h for h in headers):
        return
    first = np.array(headers[0][ORIENTATION].split("\\"), float)
    normal = np.cross(first[:3], first[3:])
    along = [float(normal @ np.array(h[POSITION].split("\\"), float)) for h in headers]
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
            f"{gaps.max():.2f} mm): slices are missing, load it in Slicer and save it as NRRD."
        )


def _tags(name: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{name} cannot be read: {str(error).splitlines()[-1].strip()}") from None
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
