"""DICOM folders: which series is read, and which ones are refused since ITK would misplace them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SlideSAMLib.errors import InputError
from SlideSAMLib.images import volumes

ACROSS = "1\\0\\0\\0\\1\\0"
POSITION, ORIENTATION = "0020|0032", "0020|0037"
NUMBER, GAP, THICKNESS = "0020|0013", "0018|0088", "0018|0050"
PIXELS = "0028|0030"
SIGNED, INTERCEPT, SLOPE = "0028|0103", "0028|1052", "0028|1053"
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


def set_element(path: Path, tag: str, value: str | int | None) -> None:
    """Give a tag of a file of `write_series` (implicit VR) a value, or (None) take it out."""
    data = path.read_bytes()
    place = start = 144 + int.from_bytes(data[140:144], "little")  # behind the file's own header
    elements = {}
    while place < len(data):
        group, element, length = struct.unpack_from("<HHI", data, place)
        elements[group, element] = data[place + 8 : place + 8 + length]
        place += 8 + length
    key = tuple(int(part, 16) for part in tag.split("|"))
    elements.pop(key, None)
    if value is not None:
        text = value.to_bytes(2, "little") if isinstance(value, int) else value.encode()
        elements[key] = text + b" " * (len(text) % 2)
    parts = [struct.pack("<HHI", *key, len(text)) + text for key, text in sorted(elements.items())]
    path.write_bytes(data[:start] + b"".join(parts))


def written_slices(count: int) -> np.ndarray:
    """What `write_series` writes, (K, J, I)."""
    slices = [np.random.default_rng(n).integers(0, 200, (8, 9), np.int16) for n in range(count)]
    return np.stack(slices)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))


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


@pytest.mark.parametrize(
    ("slopes", "intercepts"),
    [
        ([1, 3, 300, 700], [0, 0, 0, 0]),  # beyond the 16 bits of the first file
        ([1, 0.004, 0.005, 0.0061], [0, 0, 0, 0]),
        ([0.5, 1, 2, 3.25], [0, 0, 0, 0]),
        ([1, 1, 1, 1], [0, -1024, -1024, 40000]),
        ([1, 0.5, 2, 1], [0, -10.5, 3, -4096]),
    ],
)
def test_slices_that_are_scaled_differently(
    tmp_path: Path, slopes: list[float], intercepts: list[float]
) -> None:
    """As in PET: the pixel type of the first file does not hold the values of the others."""
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0, 6.0])
    for path, slope, intercept in zip(files_of(tmp_path), slopes, intercepts, strict=True):
        set_element(path, SLOPE, f"{slope:g}")
        set_element(path, INTERCEPT, f"{intercept:g}")
    volume = volumes.read_image(tmp_path)
    scales = np.array([slopes, intercepts], float)[:, :, None, None]
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array, written_slices(4) * scales[0] + scales[1], rtol=1e-6)


@pytest.mark.parametrize(("slope", "kind"), [("1", np.int16), ("3", np.int16), ("0.5", np.float64)])
def test_slices_that_are_scaled_alike_keep_their_pixel_type(
    tmp_path: Path, slope: str, kind: type
) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0])
    for path in files_of(tmp_path):
        set_element(path, SLOPE, slope)
    array = volumes.read_image(tmp_path).array
    assert np.issubdtype(array.dtype, np.floating) is np.issubdtype(kind, np.floating)
    assert np.allclose(array, written_slices(3) * float(slope))


def test_slices_with_and_without_a_sign(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0])
    first, second, _ = files_of(tmp_path)
    set_element(first, SIGNED, 0)
    data = second.read_bytes()
    second.write_bytes(data[:-2] + (-900).to_bytes(2, "little", signed=True))
    array = volumes.read_image(tmp_path).array
    assert array[1, -1, -1] == -900
    assert np.array_equal(array[[0, 2]], written_slices(3)[[0, 2]])


@pytest.mark.parametrize(("tag", "what"), [(POSITION, "position"), (ORIENTATION, "orientation")])
@pytest.mark.parametrize("value", [None, "", "1\\2"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_slice_without_a_place_among_others(
    tmp_path: Path, tag: str, what: str, value: str | None, number: int
) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0, 6.0])
    path = files_of(tmp_path)[number]
    set_element(path, tag, value)
    message = rf"{path.name} does not say the {what} of its slice, other files of .* do"
    with pytest.raises(InputError, match=message):
        volumes.read_image(tmp_path)


@pytest.mark.parametrize(
    ("tags", "gap", "why"),
    [
        (
            {GAP: "3.5", THICKNESS: "2"},
            3.5,
            "3.5 mm apart as their headers say; --spacing K J I sets",
        ),
        ({THICKNESS: "1.25"}, 1.25, "1.25 mm apart as they are thick; --spacing"),
        ({THICKNESS: None}, 0.7, "0.7 mm apart as their pixels are; --spacing"),
        ({GAP: "", THICKNESS: "-2"}, 0.7, "0.7 mm apart as their pixels are; --spacing"),
    ],
)
def test_slices_without_positions(
    tmp_path: Path, tags: dict[str, str | None], gap: float, why: str
) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0, 6.0])
    for number, path in enumerate(files_of(tmp_path)):
        set_element(path, POSITION, None)
        set_element(path, NUMBER, str(9 - number))
        for tag, value in ({GAP: None} | tags).items():  # ITK sometimes writes one
            set_element(path, tag, value)
    volume = volumes.read_image(tmp_path)
    assert np.array_equal(volume.array, written_slices(4)[::-1])
    assert volume.spacing == volume.geometry.spacing[::-1] == pytest.approx((gap, 0.8, 0.7))
    order = f"the slices of {tmp_path} do not say where they lie: they are taken in the order of"
    assert order in volume.note and why in volume.note
    volume = volumes.read_image(tmp_path, spacing=(3, 2, 1))
    assert volume.spacing == (3, 2, 1)
    assert order in volume.note and "--spacing" not in volume.note


def test_slices_without_orientations_are_taken_as_axial(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [4.0, 2.0, 0.0])
    for path in files_of(tmp_path):
        set_element(path, ORIENTATION, None)
    volume = volumes.read_image(tmp_path)
    assert volume.geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert volume.geometry.origin == pytest.approx((1, 2, 0)) and volume.spacing[0] == 2
    assert np.array_equal(volume.array, written_slices(3)[::-1])
    told = f"the slices of {tmp_path} do not say how they are turned: they are taken as axial"
    assert volume.note == told


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0.0, 2.0, 6.0], "evenly spaced"),
        ([(1, 2.0 * n, 5) for n in range(3)], "do not say how they are turned, and they lie"),
    ],
)
def test_slices_without_orientations_are_checked(
    tmp_path: Path, positions: Positions, message: str
) -> None:
    write_series(tmp_path, "1.2.3.10", positions)
    for path in files_of(tmp_path):
        set_element(path, ORIENTATION, None)
    with pytest.raises(InputError, match=message):
        volumes.read_image(tmp_path)


def test_slices_that_say_nothing_of_their_place(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [0.0, 2.0, 4.0])
    for path in files_of(tmp_path):
        set_element(path, ORIENTATION, None)
        set_element(path, POSITION, None)
    volume = volumes.read_image(tmp_path)
    assert "where they lie" in volume.note and "how they are turned" in volume.note
    assert volume.spacing == pytest.approx((2, 0.8, 0.7))


def test_turned_slices_without_positions_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [0, 2, 4], turns=["1\\0\\0\\0\\0\\-1", ACROSS, ACROSS])
    for path in files_of(tmp_path):
        set_element(path, POSITION, None)
    with pytest.raises(InputError, match="several orientations"):
        volumes.read_image(tmp_path)


def test_a_folder_with_one_file_of_many_frames(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(written_slices(5).astype(np.uint16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((3, -4, 5))
    path = tmp_path / "all.dcm"
    sitk.WriteImage(image, str(path))
    alone, folder = volumes.read_image(path), volumes.read_image(tmp_path)
    assert np.array_equal(folder.array, written_slices(5))
    assert folder.geometry == alone.geometry and folder.spacing == pytest.approx((2.5, 0.8, 0.7))
    assert folder.note == ""


def test_a_folder_with_one_slice(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.10", [4.0])
    volume = volumes.read_image(tmp_path)
    assert np.array_equal(volume.array, written_slices(1))
    assert volume.geometry == volumes.read_image(files_of(tmp_path)[0]).geometry


def test_one_file_of_a_series_is_read_with_a_note(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.11", [0.0, 2.0, 4.0])
    file = files_of(tmp_path)[1]
    image = volumes.read_image(file)
    assert image.array.shape[0] == 1
    assert image.note == f"{file} is one slice: give its folder to read the whole series"


def test_slices_of_several_pixel_sizes_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.4", (0, 2, 4, 6))
    set_element(files_of(tmp_path)[2], PIXELS, "0.9\\0.9")
    with pytest.raises(InputError, match="pixels of several sizes"):
        volumes.read_image(tmp_path)


def test_slices_that_do_not_say_how_large_their_pixels_are(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3.4", (0, 2, 4, 6))
    for path in files_of(tmp_path):
        set_element(path, PIXELS, None)
    image = volumes.read_image(tmp_path)
    assert image.spacing == (2, 1, 1)
    assert "how large their pixels are: 1 x 1 mm is taken; --spacing K J I" in image.note
    assert not volumes.read_image(tmp_path, spacing=(2, 0.8, 0.7)).note


def test_slices_beyond_all_bounds_are_a_damage(tmp_path: Path) -> None:
    write_series(tmp_path, "1.2.3", [0, 1e300, 2e300, 3e300])
    with pytest.raises(InputError, match="is damaged: its header says no numbers for where"):
        volumes.read_image(tmp_path)
