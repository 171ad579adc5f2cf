"""TIFF files of microscopes: channels are no slices, and how far apart the slices lie."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SlideSAMLib.errors import InputError
from SlideSAMLib.images import tiff, volumes
from SlideSAMLib.images.tiff_tags import read_tags
from Testing.cli_tools import assert_refused, run_command

PIXEL = 0.325  # um
INCH, CM, NO_UNIT = 2, 3, 1


def write_tiff(
    path: Path,
    array: np.ndarray,
    text: str | None = None,
    resolution: float | None = 10_000 / PIXEL,
    unit: int = CM,
    order: str = "<",
    big: bool = False,
    tiles: bool = False,
    samples: int = 1,
) -> Path:
    """Write a uint16 array (page, row, column) with the tags that microscopes write.

    tiles : one for each page instead of one strip; samples : values of each voxel, all alike.
    """
    offset, count, width = ("Q", "Q", 8) if big else ("I", "H", 4)
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0)
    link = len(out) - width
    for plane in array:
        rows, columns = plane.shape
        tile = [-n % 16 for n in plane.shape] if tiles else [0, 0]  # what is missing to 16
        stored = np.pad(plane, [(0, n) for n in tile])
        voxels = stored.repeat(samples, axis=1).astype(order + "u2").tobytes()
        sizes = stored.shape[::-1]
        places = [(273, 4, len(out)), (278, 3, rows), (279, 4, len(voxels))]
        if tiles:
            places = [(322, 3, sizes[0]), (323, 3, sizes[1]), (324, 4, len(out))]
            places += [(325, 4, len(voxels))]
        tags = [
            (256, 3, columns),
            (257, 3, rows),
            (258, 3, 16),
            (259, 3, 1),
            (262, 3, 2 if samples == 3 else 1),
            (270, 2, text),
            (277, 3, samples),
            *places,
            (282, 5, resolution),
            (283, 5, resolution),
            (296, 3, unit),
        ]
        out += voxels
        entries = b""
        written = sorted(tag for tag in tags if tag[2] is not None)
        for tag, kind, value in written:
            length, field = packed(order, kind, value)
            if len(field) > width:
                place, out = len(out), out + field
                field = struct.pack(order + offset, place)
            entries += struct.pack(f"{order}HH{offset}", tag, kind, length) + field.ljust(
                width, b"\0"
            )
        out[link : link + width] = struct.pack(order + offset, len(out))
        out += struct.pack(order + count, len(written)) + entries + bytes(width)
        link = len(out) - width
    path.write_bytes(out)
    return path


def packed(order: str, kind: int, value: str | float) -> tuple[int, bytes]:
    """How many values a tag has, and their bytes."""
    if kind == 2:
        data = str(value).encode() + b"\0"
        return len(data), data
    if kind == 5:
        return 1, struct.pack(order + "II", round(value * 10_000), 10_000)
    return 1, struct.pack(order + ("H" if kind == 3 else "I"), value)


def noise(pages: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, (pages, 24, 20)).astype(np.uint16)


def ome(channels: int = 1, frames: int = 1, slices: int | str = 8, more: str = "") -> str:
    size = f'SizeX="20" SizeY="24" SizeC="{channels}" SizeZ="{slices}" SizeT="{frames}"'
    return (
        '<?xml version="1.0"?><OME><Image ID="Image:0"><Pixels DimensionOrder="XYCZT" '
        f'{size} Type="uint16" {more}/></Image></OME>'
    )


def imagej(more: str = "") -> str:
    return f"ImageJ=1.53t\nimages=8\nhyperstack=true\nmode=grayscale\n{more}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (imagej("channels=2\nslices=4\n"), "2 channels of 4 slices"),
        (imagej("slices=4\nframes=2\n"), "2 time points of 4 slices"),
        (ome(channels=2, slices=4), "2 channels of 4 slices"),
        (ome(channels=2, frames=2, slices=2), "2 channels and 2 time points of 2 slices"),
    ],
)
def test_channels_and_times_are_no_slices(tmp_path: Path, text: str, words: str) -> None:
    path = write_tiff(tmp_path / "many.tif", noise(), text)
    with pytest.raises(InputError, match=f"many.tif has {words}: save the one channel"):
        volumes.read_image(path)


def test_one_channel_of_several_in_a_file_of_its_own_is_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "c0.ome.tif", noise(), ome(channels=2))
    assert volumes.read_image(path).array.shape == (8, 24, 20)


@pytest.mark.parametrize(
    ("text", "resolution", "unit", "expected"),
    [
        (ome(more='PhysicalSizeX="0.325" PhysicalSizeY="0.33" PhysicalSizeZ="1"'), None, NO_UNIT,
         (1e-3, 0.33e-3, 0.325e-3)),
        (ome(more="PhysicalSizeZ='400' PhysicalSizeZUnit='nm'"), 10_000 / PIXEL, CM,
         (0.4e-3, PIXEL * 1e-3, PIXEL * 1e-3)),
        (ome(more='PhysicalSizeZ="2" PhysicalSizeZUnit="&#181;m"'), 25_400 / PIXEL, INCH,
         (2e-3, PIXEL * 1e-3, PIXEL * 1e-3)),
        (imagej("slices=8\nunit=micron\nspacing=1.5\n"), 1 / PIXEL, NO_UNIT,
         (1.5e-3, PIXEL * 1e-3, PIXEL * 1e-3)),
        (imagej("slices=8\nunit=\\u00B5m\nspacing=1.5\n"), 10_000 / PIXEL, CM,
         (1.5e-3, PIXEL * 1e-3, PIXEL * 1e-3)),
        (imagej("slices=8\nunit=\N{MICRO SIGN}m\nspacing=1.5\n"), 1 / PIXEL, NO_UNIT,
         (1.5e-3, PIXEL * 1e-3, PIXEL * 1e-3)),
        (imagej("slices=8\nunit=mm\nspacing=3\n"), None, NO_UNIT, (3.0, 1.0, 1.0)),
    ],
)  # fmt: skip
def test_the_spacing_that_is_described(
    tmp_path: Path, text: str, resolution: float | None, unit: int, expected: tuple
) -> None:
    volume = volumes.read_image(write_tiff(tmp_path / "a.tif", noise(), text, resolution, unit))
    assert volume.spacing == pytest.approx(expected, rel=1e-3)
    assert volume.geometry.spacing == volume.spacing[::-1]
    assert volume.note == ""


@pytest.mark.parametrize(
    "text",
    [
        None,
        "made by hand",
        imagej("slices=8\n"),
        imagej("slices=8\nunit=pixel\nspacing=2\n"),
        imagej("slices=8\nunit=micron\nspacing=nan\n"),
        ome(more='PhysicalSizeZ="0"'),
        ome(more='PhysicalSizeZ="1" PhysicalSizeZUnit="pixel"'),
    ],
)
def test_slices_of_unknown_spacing_are_as_far_apart_as_pixels(tmp_path: Path, text: str) -> None:
    volume = volumes.read_image(write_tiff(tmp_path / "a.tif", noise(), text))
    assert volume.spacing == pytest.approx((PIXEL * 1e-3,) * 3, rel=1e-3)
    assert "does not say how far apart its slices lie: 0.000325 mm is taken" in volume.note


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiles_are_refused_as_such(tmp_path: Path, order: str, big: bool) -> None:
    """ITK makes four colours of grey tiles."""
    path = write_tiff(tmp_path / "a.tif", noise(), order=order, big=big, tiles=True)
    with pytest.raises(InputError, match=r"a\.tif stores its pages in tiles.*save it in strips"):
        volumes.read_image(path)


@pytest.mark.parametrize("tiles", [False, True])
def test_colours_are_refused_as_such(tmp_path: Path, tiles: bool) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(), tiles=tiles, samples=3)
    with pytest.raises(InputError, match="is a colour or vector image"):
        volumes.read_image(path)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_files_that_were_cut_off(tmp_path: Path, order: str, big: bool, kept: float) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(), order=order, big=big)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=r"a\.tif is damaged or was cut off"):
        volumes.read_image(path)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_every_kind_of_tiff(tmp_path: Path, order: str, big: bool) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(), "what it is", 4.5, CM, order, big)
    assert np.array_equal(volumes.read_image(path).array, noise())
    tags = read_tags(path, (256, 270, 282, 296))
    assert tags == {256: 20, 270: "what it is", 282: 4.5, 296: CM}
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert read_tags(path, (256,)) == {}
    path.write_bytes(whole[: 8 if big else 4] + b"\xff" * 20)
    assert read_tags(path, (256,)) == {}


def test_spacing_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold_model: str
) -> None:
    path, output = write_tiff(tmp_path / "a.tif", noise()), tmp_path / "mask.nrrd"
    words = ["segment", path, output, "--slice", 4, "--box", 4, 4, 15, 15]
    words += ["--model", threshold_model]
    assert "note: " in run_command(capsys, *words).err
    outcome = run_command(capsys, *words, "--spacing", 0.002, 0.0004, 0.0003)
    assert outcome.code == 0 and "note: " not in outcome.err
    written = sitk.ReadImage(str(output))
    assert written.GetSpacing() == pytest.approx((0.0003, 0.0004, 0.002))
    for bad in ((1, 0, 1), (1, -1, 1), ("nan", 1, 1), (1, 1, "inf")):
        refused = run_command(capsys, *words, "--spacing", *bad)
        assert_refused(refused, "--spacing must be three positive numbers in mm")


@pytest.mark.parametrize("text", ["<Pixels ", "a"])
def test_long_descriptions_are_read_in_one_go(text: str) -> None:
    """A megabyte took hours: what had been read was looked at again from each of its letters."""
    pages = tiff._ome("<Pixels " + text * (2**20 // len(text)) + " SizeC='3'>")
    assert pages.channels == 3


@pytest.mark.parametrize("text", [ome(slices="9" * 5000), imagej("slices=" + "9" * 5000)])
def test_numbers_of_thousands_of_digits(tmp_path: Path, text: str) -> None:
    assert volumes.read_image(write_tiff(tmp_path / "a.tif", noise(), text)).array.shape[0] == 8
