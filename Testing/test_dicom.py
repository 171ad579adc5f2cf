"""DICOM folders: which series is read, and which ones are refused since ITK would misplace them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SlideSAMLib import volumes
from SlideSAMLib.errors import InputError

ACROSS = "1\\0\\0\\0\\1\\0"
Positions = Sequence[float | tuple[float, float, float]]


def write_series(
    folder: Path, uid: str, positions: Positions, text: str = "series", turns: Sequence[str] = ()
) -> None:
    """A small CT series with one file per position, along z or (x, y, z), and its orientation."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, place in enumerate(positions):
        x, y, z = place if isinstance(place, tuple) else (1, 2, place)
        image = sitk.GetImageFromArray(
            np.random.default_rng(number).integers(0, 200, (1, 8, 9), np.int16)
        )
        image.SetSpacing((0.7, 0.8, 2.0))
        tags = {
            "0008|0060": "CT",
            "0008|103e": text,
            "0020|000e": uid,
            "0020|000d": "1.2.3.1",
            "0008|0018": f"{uid}.{number + 1}",
            "0020|0013": str(number + 1),
            "0020|0032": f"{x}\\{y}\\{z}",
            "0020|0037": turns[number] if turns else ACROSS,
            "0028|0030": "0.8\\0.7",
            "0018|0050": "2",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}-{number}.dcm"))
        writer.Execute(image)


def test_a_dicom_folder_with_one_series(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0, 6.0])
    volume = volumes.read_image(tmp_path)
    assert volume.array.shape == (4, 8, 9)
    assert volume.spacing == pytest.approx((2.0, 0.8, 0.7))
    assert volume.geometry.origin == pytest.approx((1, 2, 0))


def test_a_dicom_folder_with_two_series_needs_a_choice(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0], "thin")
    write_series(tmp_path, "1.2.3.20", [0.0, 2.0], "scout")
    with pytest.raises(InputError, match=r"2 DICOM series.*--series UID.*1\.2\.3\.20 \(scout, 2"):
        volumes.read_image(tmp_path)
    assert volumes.read_image(tmp_path, series="1.2.3.10").array.shape == (3, 8, 9)
    with pytest.raises(InputError, match="has no series"):
        volumes.read_image(tmp_path, series="1.9")


@pytest.mark.parametrize(
    ("positions", "message"),
    [([0.0, 2.0, 4.0, 8.0, 10.0], "evenly spaced"), ([0.0, 2.0, 2.0, 4.0], "one position")],
)
def test_dicom_series_with_missing_or_double_slices(
    tmp_path: Path, positions: list[float], message: str
) -> None:
    write_series(tmp_path, "1.2.3.10", positions)
    with pytest.raises(InputError, match=message):
        volumes.read_image(tmp_path)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without DICOM"):
        volumes.read_image(tmp_path)


@pytest.mark.parametrize("count", [2, 5])
def test_a_tilted_gantry_is_refused(tmp_path: Path, count: int) -> None:
    write_series(tmp_path, "1.2.3.10", [(1, 2 + 0.6 * n, 2.0 * n) for n in range(count)])
    with pytest.raises(InputError, match=r"straight above each other.*save it as NRRD"):
        volumes.read_image(tmp_path)


@pytest.mark.parametrize("count", [2, 5])
def test_slices_of_several_orientations_are_refused(tmp_path: Path, count: int) -> None:
    turns = ["1\\0\\0\\0\\0\\-1", *[ACROSS] * (count - 1)]
    write_series(tmp_path, "1.2.3.10", [2.0 * n for n in range(count)], turns=turns)
    with pytest.raises(InputError, match=r"several orientations.*save it as NRRD"):
        volumes.read_image(tmp_path)


def test_oblique_slices_and_rounded_positions_are_read(tmp_path: Path) -> None:
    # Columns run along (0, 0.8, 0.6), so that the slices are above each other along (0, -0.6, 0.8).
    places = [(1, round(2 - 1.2 * n + 0.01 * (n % 2), 2), round(1.6 * n, 2)) for n in range(5)]
    write_series(tmp_path, "1.2.3.10", places, turns=["1\\0\\0\\0\\0.8\\0.6"] * 5)
    assert volumes.read_image(tmp_path).array.shape == (5, 8, 9)


@pytest.mark.parametrize("number", [0, 2, 4])
@pytest.mark.parametrize("kept", [140, 300, 600])
def test_a_damaged_file_of_a_series_is_named(tmp_path: Path, number: int, kept: int) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0, 6.0, 8.0])
    damaged = tmp_path / f"1.2.3.10-{number}.dcm"
    damaged.write_bytes(damaged.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"{damaged.name} is a DICOM image that cannot be read"):
        volumes.read_image(tmp_path)


def test_what_is_no_image_may_lie_beside_a_series(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0])
    write_series(tmp_path, "1.2.3.20", [0.0, 2.0])
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "folder").mkdir()
    image = (tmp_path / "1.2.3.10-0.dcm").read_bytes()
    assert image.count(b"1.2.840.10008.5.1.4.1.1.2\0") == 2  # CT Image Storage
    report = image.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.8\0")
    (tmp_path / "report.dcm").write_bytes(report[:600])
    assert volumes.read_image(tmp_path, series="1.2.3.10").array.shape == (3, 8, 9)
