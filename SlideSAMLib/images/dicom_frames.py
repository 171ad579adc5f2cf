"""What the frames of one DICOM file of many say: where each lies and how it is scaled.

ITK hands out no sequences, and of the frames only what it makes of them; pydicom reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

# The group of each frame, or of all frames, that has a value, and the value's keyword
POSITION = ("PlanePositionSequence", "ImagePositionPatient")
ORIENTATION = ("PlaneOrientationSequence", "ImageOrientationPatient")
PIXELS = ("PixelMeasuresSequence", "PixelSpacing")
SCALING = (
    ("PixelValueTransformationSequence", "RescaleIntercept"),
    ("PixelValueTransformationSequence", "RescaleSlope"),
)


# What pydicom raises, besides its own error, where the bytes make no sense
DAMAGED = (AttributeError, EOFError, KeyError, NotImplementedError, OSError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class Frame:
    """position : x, y, z in mm, LPS. turn : direction of rows, then of columns. pixels : distance
    of rows, then of columns, in mm. scale : intercept and slope. None for what is not said.
    """

    position: np.ndarray | None
    turn: np.ndarray | None
    pixels: np.ndarray | None
    scale: tuple[float | None, ...]


def read_frames(path: Path) -> list[Frame]:
    """The frames of a file; none where it does not describe them one by one, or is damaged."""
    from pydicom import config, dcmread
    from pydicom.errors import InvalidDicomError

    names = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    try:
        with config.disable_value_validation():  # what matters is checked below
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(names))
            shared, each = (header.get(name) or [] for name in names)
            return [_frame([own, *shared[:1]]) for own in each]
    except (InvalidDicomError, *DAMAGED):
        return []


def numbers(text: str, count: int) -> np.ndarray | None:
    """The numbers of a value of DICOM; None where they are others than `count` finite ones."""
    try:
        values = np.array(text.split("\\"), float)
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _frame(groups: list[Dataset]) -> Frame:
    """groups : those of the frame, and then those of all frames, if there are any."""

    def said(place: tuple[str, str], count: int) -> np.ndarray | None:
        name, keyword = place
        for each in groups:
            value = next((group.get(keyword) for group in each.get(name) or ()), None)
            if value is not None:
                return numbers("\\".join(map(str, np.atleast_1d(value))), count)
        return None

    scale = (said(place, 1) for place in SCALING)
    return Frame(
        said(POSITION, 3),
        said(ORIENTATION, 6),
        said(PIXELS, 2),
        tuple(None if value is None else float(value[0]) for value in scale),
    )
