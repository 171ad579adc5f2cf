"""Reading images and writing label maps on the same lattice."""

from __future__ import annotations

import gc
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SlideSAMLib.errors import InputError
from SlideSAMLib.images import labelmaps, nifti, volumes

OBLIQUE = (
    (0.8, 0.9, 2.5),  # spacing
    (12.5, -40.25, 7.125),  # origin
    # Columns are the directions of i, j and k: turned by 30 degrees and flipped along k.
    (0.8660254037844387, 0.5, 0.0, -0.5, 0.8660254037844387, 0.0, 0.0, 0.0, -1.0),
)


def noisy(shape: tuple[int, int, int] = (6, 20, 30), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.int16)


def oblique_image(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(OBLIQUE[0])
    image.SetOrigin(OBLIQUE[1])
    image.SetDirection(OBLIQUE[2])
    return image


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_array_spacing_and_geometry_of_an_oblique_image(tmp_path: Path, suffix: str) -> None:
    array = noisy()
    sitk.WriteImage(oblique_image(array), str(tmp_path / f"image{suffix}"))
    volume = volumes.read_image(tmp_path / f"image{suffix}")
    assert volume.array.shape == (6, 20, 30)
    assert np.array_equal(volume.array, array)
    assert volume.spacing == pytest.approx((2.5, 0.9, 0.8))
    assert volume.geometry.size == (30, 20, 6)


def test_voxels_are_read_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in ITK's memory, which must outlive the volume and its views."""
    array = noisy((60, 200, 300))
    sitk.WriteImage(oblique_image(array), str(tmp_path / "image.mha"))
    monkeypatch.setattr(sitk, "GetArrayFromImage", lambda image: pytest.fail("copied"))
    part = volumes.read_image(tmp_path / "image.mha").array[10:]
    gc.collect()
    others = [np.full(array.shape, 7, np.int16) for _ in range(3)]  # would take freed memory
    assert np.array_equal(part, array[10:]) and len(others) == 3
    part[0] = 5  # nobody else's: it may be written to
    assert (part[0] == 5).all()


def test_masks_are_written_without_a_copy_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((6, 20, 30), bool)
    mask[1:4, 5:9, 11:23] = True
    given = []
    make = sitk.GetImageFromArray
    monkeypatch.setattr(sitk, "GetImageFromArray", lambda a: given.append(a) or make(a))
    geometry = volumes.Geometry.of(oblique_image(noisy()))
    given.clear()
    volumes.write_mask(mask, geometry, tmp_path / "mask.nrrd")
    assert np.shares_memory(given[0], mask)
    turned = np.ascontiguousarray(mask.T).T  # the order of another slide axis
    volumes.write_mask(turned, geometry, tmp_path / "turned.nrrd")
    for name in ("mask.nrrd", "turned.nrrd"):
        written = sitk.ReadImage(str(tmp_path / name))
        assert written.GetPixelID() == sitk.sitkUInt8
        assert np.array_equal(sitk.GetArrayViewFromImage(written), mask)


@pytest.mark.parametrize("suffix", volumes.OUTPUT_SUFFIXES)
def test_label_maps_lie_exactly_on_the_image(tmp_path: Path, suffix: str) -> None:
    sitk.WriteImage(oblique_image(noisy()), str(tmp_path / "image.nrrd"))
    source = sitk.ReadImage(str(tmp_path / "image.nrrd"))
    volume = volumes.read_image(tmp_path / "image.nrrd")
    mask = np.zeros((6, 20, 30), bool)
    mask[1:4, 5:9, 11:23] = True
    mask[4, 6, 12] = True
    volumes.write_mask(mask, volume.geometry, tmp_path / f"out{suffix}")
    written = sitk.ReadImage(str(tmp_path / f"out{suffix}"))
    assert written.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(written), mask.astype(np.uint8))
    # NIfTI keeps its matrix in single precision, the other formats keep every digit.
    tolerance = 1e-6 if ".nii" in suffix else 1e-12
    assert written.GetSize() == source.GetSize()
    assert written.GetSpacing() == pytest.approx(source.GetSpacing(), abs=tolerance)
    assert written.GetOrigin() == pytest.approx(source.GetOrigin(), abs=tolerance * 40)
    assert written.GetDirection() == pytest.approx(source.GetDirection(), abs=tolerance)


@pytest.mark.slicer
def test_slicer_reads_the_segmentation(tmp_path: Path) -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    import slicer
    import vtk

    volume = oblique_image(noisy())
    mask = np.zeros((6, 20, 30), bool)
    mask[1:4, 5:9, 11:23] = True
    path = tmp_path / "left kidney.seg.nrrd"
    volumes.write_mask(mask, volumes.Geometry.of(volume), path)

    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "loaded")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())] == [
        "Segment_1"
    ]
    segment = segmentation.GetSegment("Segment_1")
    assert segment.GetName() == "left kidney"
    assert segment.GetColor() == pytest.approx(volumes.SEGMENT_COLOUR)
    assert segmentation.GetSourceRepresentationName() == "Binary labelmap"
    labelmap = segment.GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    centre_ras = matrix.MultiplyPoint((15, 7, 2, 1))[:3]
    x, y, z = volume.TransformIndexToPhysicalPoint((15, 7, 2))
    assert centre_ras == pytest.approx((-x, -y, z), abs=1e-6)  # LPS -> RAS
    voxels = sum(
        labelmap.GetScalarComponentAsDouble(i, j, k, 0) == 1
        for k in range(6)
        for j in range(20)
        for i in range(30)
        if _inside(labelmap.GetExtent(), i, j, k)
    )
    assert voxels == mask.sum()


def _inside(extent: tuple[int, ...], i: int, j: int, k: int) -> bool:
    return (
        extent[0] <= i <= extent[1] and extent[2] <= j <= extent[3] and extent[4] <= k <= extent[5]
    )


@pytest.mark.parametrize("name", ["out", "out.png", "out.nii.gz.txt", ".nii.gz", "out.mhd"])
def test_unknown_suffixes_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="suffix"):
        volumes.output_suffix(name)


@pytest.mark.parametrize("suffix", volumes.OUTPUT_SUFFIXES)
def test_sheared_axes_are_not_written_as_nifti(tmp_path: Path, suffix: str) -> None:
    sheared = (1.0, 0.0, 0.0, 0.0, 1.0, 0.6, 0.0, 0.0, 0.8)
    geometry = volumes.Geometry((30, 20, 6), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), sheared)
    path = tmp_path / f"out{suffix}"
    if ".nii" in suffix:
        with pytest.raises(InputError, match=r"right angles: end it with \.nrrd or \.mha"):
            volumes.write_mask(np.ones((6, 20, 30), bool), geometry, path)
        assert not list(tmp_path.iterdir())
    else:
        volumes.write_mask(np.ones((6, 20, 30), bool), geometry, path)
        assert sitk.ReadImage(str(path)).GetDirection() == pytest.approx(sheared)


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    geometry = volumes.Geometry.of(oblique_image(noisy()))
    with pytest.raises(InputError, match="shape"):
        volumes.write_mask(np.ones((6, 30, 20), bool), geometry, tmp_path / "out.nrrd")
    assert not list(tmp_path.iterdir())


def test_a_4d_file_with_one_volume_is_read(tmp_path: Path) -> None:
    array = noisy()
    image = sitk.JoinSeries([sitk.GetImageFromArray(array)])
    sitk.WriteImage(image, str(tmp_path / "one.nrrd"))
    assert np.array_equal(volumes.read_image(tmp_path / "one.nrrd").array, array)


@pytest.mark.parametrize("pixel", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".img", ".hdr"])
def test_non_finite_voxels_are_refused_or_filled(tmp_path: Path, suffix: str, pixel: type) -> None:
    array = noisy().astype(pixel)
    array[2, 3, 4], array[0, 0, 0] = np.nan, np.inf
    path = tmp_path / f"nan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    with pytest.raises(InputError, match=r"NaN or infinite voxels \(2 of"):
        volumes.read_image(path)
    filled = volumes.read_image(path, fill_non_finite=-5).array
    expected = np.where(np.isfinite(array), array, -5)
    assert np.array_equal(filled, expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "finite number"),
        (-np.inf, "finite number"),
        (1e39, "does not fit into the float32"),
    ],
)
def test_values_that_cannot_fill_voxels_are_refused(
    tmp_path: Path, value: float, message: str
) -> None:
    array = noisy().astype(np.float32)
    array[2, 3, 4] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "nan.nrrd"))
    with pytest.raises(InputError, match=message):
        volumes.read_image(tmp_path / "nan.nrrd", fill_non_finite=value)


@pytest.mark.parametrize("pixel", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".img"])
@pytest.mark.parametrize("kept", [0.5, -1, -9])
def test_nifti_files_that_were_cut_off(
    tmp_path: Path, suffix: str, kept: float, pixel: type
) -> None:
    path = tmp_path / f"cut{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(noisy().astype(pixel)), str(path))
    assert volumes.read_image(path).array.shape == (6, 20, 30)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if kept > 0 else kept])
    with pytest.raises(InputError, match="damaged or was cut off"):
        volumes.read_image(path)


@pytest.mark.parametrize("links", [True, False])
def test_a_packed_file_beside_an_unpacked_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The library behind ITK reads the header of the one and the voxels of the other."""
    if not links:  # as on Windows

        def refuse(self: Path, target: Path) -> None:
            raise OSError("a required privilege is not held by the client")

        monkeypatch.setattr(Path, "symlink_to", refuse)
    packed, plain = noisy(), noisy((7, 11, 13), seed=1)
    sitk.WriteImage(sitk.GetImageFromArray(packed), str(tmp_path / "x.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(plain), str(tmp_path / "x.nii"))
    assert np.array_equal(volumes.read_image(tmp_path / "x.nii.gz").array, packed)
    assert np.array_equal(volumes.read_image(tmp_path / "x.nii").array, plain)


def test_packed_nifti_files_are_checked_to_their_end(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    array = noisy((20, 80, 90))
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    whole = path.read_bytes()
    content = gzip.decompress(whole)
    path.write_bytes(gzip.compress(content[:999]) + gzip.compress(content[999:]) + b"a tail")
    assert np.array_equal(volumes.read_image(path).array, array)
    path.write_bytes(whole[:-8] + b"wrong" + whole[-3:])
    with pytest.raises(InputError, match="damaged or was cut off"):
        volumes.read_image(path)


def test_big_endian_nifti2_with_nan(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel comes with the demo packages")
    array = noisy().astype(">f4")
    array[2, 3, 4] = np.nan
    header = nibabel.Nifti2Header(endianness=">")
    # Transposed: nibabel's arrays are (I, J, K).
    nibabel.save(nibabel.Nifti2Image(array.T, np.eye(4), header), tmp_path / "nan.nii")
    bad = nifti.non_finite_voxels(tmp_path / "nan.nii", array.shape)
    assert np.argwhere(bad).tolist() == [[2, 3, 4]]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("what", ["image", "folder", "slice", "mask", "mask in a folder"])
def test_names_that_are_not_utf8_are_refused_before_itk_takes_them(
    tmp_path: Path, what: str
) -> None:
    """ITK would end the whole process, so a process of its own does it."""
    name = os.fsdecode(b"caf\xe9")
    folder = tmp_path / name if "folder" in what else tmp_path
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(noisy()), str(tmp_path / "image.nrrd"))
    if what == "image":
        (tmp_path / "image.nrrd").rename(tmp_path / f"{name}.nrrd")
        call = f"volumes.read_image({str(tmp_path / name)!a} + '.nrrd')"
    elif what in ("folder", "slice"):
        for number in range(3):
            image = sitk.GetImageFromArray(noisy((1, 20, 30)).astype(np.uint16))
            sitk.WriteImage(image, str(tmp_path / "slice.dcm"))
            part = f"{number}.dcm" if what == "folder" else f"{name}.dcm"
            (tmp_path / "slice.dcm").rename(folder / part)
        call = f"volumes.read_image({str(folder)!a})"
    else:
        path = folder / ("mask.nrrd" if "folder" in what else f"{name}.nii.gz")
        call = f"volumes.write_mask(image.array > 9, image.geometry, {str(path)!a})"
    code = f"""
from SlideSAMLib.images import volumes
from SlideSAMLib.errors import InputError
image = volumes.read_image({str(tmp_path / "image.nrrd")!r}) if {what.startswith("mask")} else None
try:
    {call}
except InputError as error:
    print(error)
"""
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert r"caf\xe9" in done.stdout and "is not UTF-8: rename it" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def labels() -> np.ndarray:
    array = np.zeros((12, 24, 24), np.uint8)
    array[2:9, 4:18, 5:20] = 1
    array[4:7, 8:14, 8:14] = 7
    array[3:5, 2:4, 2:20] = 3
    return array


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (labels(), True),
        (labels().astype(np.float32), True),
        ((labels() > 0).astype(np.int16), True),
        ((labels() > 0).astype(np.uint8) * 255, True),
        (np.where(labels() > 0, 200, 50), False),  # a drawn phantom has no background 0
        ((labels() > 0) * 1000, False),  # ... or values that nobody uses as labels
        (noisy(), False),
        (noisy().clip(0, 255).astype(np.uint8), False),
        (np.zeros((4, 5, 6), np.uint8), False),  # constant: refused for that reason
        (labels() * 0.5, False),
    ],
)
def test_telling_label_maps_from_images(array: np.ndarray, expected: bool) -> None:
    assert labelmaps.looks_like_labels(array) is expected


@pytest.mark.data
def test_real_images_and_label_maps_are_told_apart(data_folder: Path) -> None:
    images = sorted(data_folder.glob("*_image.nii.gz"))
    assert len(images) >= 5
    for image in images:
        volumes.read_image(image)
        with pytest.raises(InputError, match="looks like a label map"):
            volumes.read_image(str(image).replace("_image", "_label"))
        label = volumes.read_image(str(image).replace("_image", "_label"), allow_labels=True)
        assert label.array.any()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """To read it would take until somebody writes into it."""
    os.mkfifo(tmp_path / "image.nii")
    with pytest.raises(InputError, match="is neither a file nor a folder"):
        volumes.read_image(tmp_path / "image.nii")
