"""NIfTI files: two transforms that differ, which ITK does not tell, and damaged headers."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.images import volumes
from Testing.cli_tools import run_command

nibabel = pytest.importorskip("nibabel", reason="nibabel comes with the demo packages")

SHAPE = (9, 8, 7)  # (I, J, K), as nibabel has it
# Turned by 30 degrees, columns are the directions of i, j and k in RAS.
TURN = np.array([[0.8660254, -0.5, 0], [0.5, 0.8660254, 0], [0, 0, 1]])
PLACING = ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z")
PLACING += tuple(f"quatern_{x}" for x in "bcd") + tuple(f"qoffset_{x}" for x in "xyz")


def affine(sizes: tuple[float, ...], origin: tuple[float, ...], flip: float = 1.0) -> np.ndarray:
    """(4, 4), index to RAS in mm; `flip` is the sign of the k axis."""
    matrix = np.eye(4)
    matrix[:3, :3] = TURN * sizes
    matrix[:3, 2] *= flip
    matrix[:3, 3] = origin
    return matrix


QFORM = affine((0.7, 0.8, 2.5), (-11.3, 20.7, 5.1), flip=-1.0)
SFORM = affine((0.7, 0.8, 2.4), (10.1, -20.3, 30.9))


def write_nifti(
    path: Path,
    codes: tuple[int, int] = (1, 2),
    sform: np.ndarray = SFORM,
    order: str = "<",
    units: str = "mm",
) -> Path:
    """Write noise with QFORM and an sform of these codes, in one file or (.img) in two."""
    kind = nibabel.Nifti1Pair if path.suffix == ".img" else nibabel.Nifti1Image
    header = kind.header_class(endianness=order)
    array = np.random.default_rng(0).normal(100, 20, SHAPE).astype(order + "f4")
    image = kind(array, None, header)
    image.set_qform(QFORM, codes[0])
    image.set_sform(sform, codes[1])
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)
    return path


def mask_of(volume: volumes.ImageVolume) -> np.ndarray:
    mask = np.zeros(volume.array.shape, bool)
    mask[2:5, 3:6, 1:7] = True
    return mask


@pytest.mark.parametrize("output", ["out.nii", "out.nii.gz"])
@pytest.mark.parametrize(
    ("name", "order", "units"),
    [
        ("image.nii.gz", "<", "mm"),
        ("image.nii", ">", "mm"),
        ("image.nii", "<", "micron"),
        ("image.img", "<", "unknown"),
        ("image.img", ">", "mm"),
    ],
)
@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (0, 2), (1, 0), (0, 0)])
def test_masks_are_placed_like_their_image_by_every_program(
    tmp_path: Path, name: str, order: str, units: str, codes: tuple[int, int], output: str
) -> None:
    source = write_nifti(tmp_path / name, codes, order=order, units=units)
    volume = volumes.read_image(source)
    volumes.write_mask(mask_of(volume), volume.geometry, tmp_path / output)
    image, written = nibabel.load(source), nibabel.load(tmp_path / output)
    for field in PLACING:
        # pixdim 0 is qfac, 1 to 3 are the sizes; what follows is that of times.
        expected, found = (np.atleast_1d(i.header[field])[:4] for i in (image, written))
        assert found.tobytes() == expected.astype(found.dtype).tobytes(), field
    assert written.header.get_xyzt_units()[0] == image.header.get_xyzt_units()[0]
    assert np.array_equal(written.affine, image.affine)
    # Transposed: nibabel's arrays are (I, J, K).
    assert np.array_equal(np.asarray(written.dataobj), mask_of(volume).T)
    again = volumes.read_image(tmp_path / output, allow_labels=True)
    assert again.geometry == volume.geometry
    assert np.array_equal(again.array, mask_of(volume))
    assert sorted(p.suffix for p in tmp_path.glob("out*")) == [Path(output).suffix]


def test_masks_of_other_formats_and_with_another_spacing_have_the_lattice_that_was_read(
    tmp_path: Path,
) -> None:
    source = write_nifti(tmp_path / "image.nii.gz")
    volume = volumes.read_image(source)
    volumes.write_mask(mask_of(volume), volume.geometry, tmp_path / "out.nrrd")
    written = volumes.read_image(tmp_path / "out.nrrd", allow_labels=True)
    assert written.geometry.alike(volume.geometry)
    volume = volumes.read_image(source, spacing=(5, 4, 3))
    volumes.write_mask(mask_of(volume), volume.geometry, tmp_path / "out.nii.gz")
    header = nibabel.load(tmp_path / "out.nii.gz").header
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-5)
    assert header.get_zooms() == (3, 4, 5)


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (0.1, 0.1, 0.1), (0.0, 0.0, 1.3)])
@pytest.mark.parametrize("codes", [(1, 2), (2, 1), (1, 0), (0, 1)])
def test_two_transforms_that_differ_are_told(
    tmp_path: Path, place: tuple[float, ...], codes: tuple[int, int]
) -> None:
    sform = QFORM.copy()
    sform[:3, 3] += place
    path = write_nifti(tmp_path / "image.nii", codes, sform)
    told = f"the qform and the sform of {path} place it differently: the one that Slicer takes is"
    assert (told in volumes.read_image(path).note) is (place[2] > 1 and all(codes))
    assert (told in volumes.read_image(path, spacing=(1, 1, 1)).note) is (
        place[2] > 1 and all(codes)
    )


@pytest.mark.parametrize("change", ["turn", "stretch", "flip", "nan"])
def test_transforms_differ_in_more_than_their_place(tmp_path: Path, change: str) -> None:
    sform = QFORM.copy()
    if change == "turn":
        sform[:3, :3] = np.roll(sform[:3, :3], 1, axis=0)
    elif change != "nan":
        sform[:3, 2] *= -1 if change == "flip" else 1.2
    path = write_nifti(tmp_path / "image.nii", (1, 2), sform)
    if change == "nan":  # in the quaternion
        data = bytearray(path.read_bytes())
        struct.pack_into("<f", data, 256, np.nan)
        path.write_bytes(data)
    assert "place it differently" in volumes.read_image(path).note


def test_the_command_line_tells_it_and_carries_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold_model: str
) -> None:
    source, output = write_nifti(tmp_path / "image.nii.gz"), tmp_path / "out.nii.gz"
    words = ["--slice", 3, "--box", 1, 1, 6, 6, "--model", threshold_model]
    outcome = run_command(capsys, "segment", source, output, *words)
    assert outcome.code == 0, outcome.err
    assert outcome.err.startswith("note: the qform and the sform of ")
    header = nibabel.load(output).header
    assert np.allclose(header.get_sform(), SFORM) and np.allclose(header.get_qform(), QFORM)


@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_at_no_place_are_a_damage(tmp_path: Path, offset: float, suffix: str) -> None:
    data = bytearray(write_nifti(tmp_path / "image.nii").read_bytes())
    struct.pack_into("<f", data, 108, offset)
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    with pytest.raises(InputError, match="damaged"):
        volumes.read_image(path)


@pytest.mark.parametrize("number", [280, 284, 292])  # of the sform: of the axes, or of the place
def test_a_volume_at_no_place_is_a_damage(tmp_path: Path, number: int) -> None:
    """ITK hands on what is no number, and masks would get it, too."""
    path = write_nifti(tmp_path / "image.nii", (1, 2), QFORM)
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, number, np.nan)
    path.write_bytes(data)
    for read in (volumes.read_image, volumes.read_geometry):
        with pytest.raises(InputError, match="is damaged: its header says no numbers for where"):
            read(path)
