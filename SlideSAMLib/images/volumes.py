"""Volumes on disk: reading what SimpleITK reads, writing label maps on the same lattice. No torch.

Arrays are (K, J, I) as SimpleITK hands them out; sizes, origins and directions are kept in ITK's
order (I, J, K; LPS) so that nothing is converted on the way from the image to its label map.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from . import dicom, labelmaps, nifti, tiff
from .formats import OUTPUT_SUFFIXES, check_name

MAX_SHEAR = 1e-3  # cosine of the angle between two axes, more than rounding makes
SEGMENT_COLOUR = (0.93, 0.62, 0.36)
# What Slicer writes for a segment that nobody has classified yet.
TISSUE_TAG = (
    "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~Anatomic codes - DICOM master list~^^~^^|"
)


@dataclass(frozen=True)
class Geometry:
    """The lattice of an image in ITK's order: (I, J, K), mm, LPS, direction row by row.

    placement : as a NIfTI file has it, which may hold two transforms; the rest is what ITK takes.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    placement: nifti.Placement | None = field(default=None, compare=False)

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """The lattice of a 3D SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def alike(self, other: Geometry) -> bool:
        """Whether all voxels of another lattice lie where those of this one do.

        Half a voxel is allowed for headers that are rounded, each way and at every corner.
        """
        if self.size != other.size:
            return False
        corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(self.size)[:, None] - 1)
        axes, others = (np.reshape(g.direction, (3, 3)) * g.spacing for g in (self, other))
        shift = np.subtract(other.origin, self.origin)[:, None] + (others - axes) @ corners
        return bool((np.abs(np.linalg.solve(axes, shift)) <= 0.5).all())

    def apply(self, image: sitk.Image) -> None:
        """Put a SimpleITK image onto this lattice."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)


@dataclass(frozen=True, eq=False)
class ImageVolume:
    """A scalar volume and its lattice.

    array : (K, J, I), the pixel type of the file.
    spacing : (sk, sj, si) in mm.
    note : a sentence about what the file does not say, or says twice, and what was taken for
        granted, without a stop.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    geometry: Geometry
    path: Path
    note: str = ""


def read_image(
    path: str | Path,
    series: str | None = None,
    allow_labels: bool = False,
    fill_non_finite: float | None = None,
    spacing: Sequence[float] | None = None,
) -> ImageVolume:
    """Read a 3D scalar image from a file or from a folder with one DICOM series.

    Parameters
    ----------
    path : file that SimpleITK reads, or a DICOM folder
    series : SeriesInstanceUID, needed where a folder holds several series
    allow_labels : take a label map as if it were an image
    fill_non_finite : value for NaN and infinite voxels; None refuses them
    spacing : (sk, sj, si) in mm instead of what the file says, or does not say

    Raises
    ------
    InputError
        The file is missing or no image, its name is not UTF-8, it is not a 3D scalar image, it
        looks like a label map, it holds several channels or times, it has non-finite voxels or
        their value cannot be used, the DICOM folder is empty, ambiguous, damaged or not a straight
        stack of slices, or the spacing is none.
    """
    path = Path(path)
    check_name(path)
    if fill_non_finite is not None and not np.isfinite(fill_non_finite):
        raise InputError(f"--fill-non-finite must be a finite number, not {fill_non_finite:g}.")
    if spacing is not None:
        spacing = _checked_spacing(spacing)
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if not path.is_file() and not path.is_dir():  # ITK would wait for a pipe for ever
        raise InputError(f"{path} is neither a file nor a folder: give an image file.")
    hidden, note = None, ""
    with _quiet_itk():
        if path.is_dir():
            image, note = dicom.read_series(path, series, spaced=spacing is not None)
        else:
            image, hidden = _read_file(path)
            note = dicom.place_frames(image, path, spaced=spacing is not None)
            note = note if spacing is not None else note or tiff.put_spacing(image, path)
    geometry, placed = _placed(image, path)
    if spacing is not None:
        image.SetSpacing(spacing[::-1])
        geometry = Geometry.of(image)
    array = _finite(_voxels(image), path, fill_non_finite, hidden)
    if not allow_labels and labelmaps.looks_like_labels(array):
        raise InputError(
            f"{path} looks like a label map, not like an image: give the CT or MR image, or "
            "--allow-labels if it really is one."
        )
    return ImageVolume(array, geometry.spacing[::-1], geometry, path, note or placed)


def read_geometry(path: Path) -> Geometry:
    """The lattice of an image file by its header alone; raises InputError where it is none."""
    check_name(path)
    with _quiet_itk(), _alone(path) as file:
        reader = _read_header(path, file)
    axes = np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)[:3, :3]
    sizes = (reader.GetSize(), reader.GetSpacing(), reader.GetOrigin())
    return Geometry(*(values[:3] for values in sizes), tuple(axes.ravel()))


def _placed(image: sitk.Image, path: Path) -> tuple[Geometry, str]:
    """The lattice of an image, and a sentence where its NIfTI file has another one, too."""
    _check_place(path, image)
    placement = None if path.is_dir() else nifti.read_placement(path)
    geometry = replace(Geometry.of(image), placement=placement)
    if placement is None or not placement.differs(geometry.size):
        return geometry, ""
    return geometry, (
        f"the qform and the sform of {path} place it differently: the one that Slicer takes is used"
    )


class _Memory:
    """The memory of an image as numpy takes it, without a copy: its arrays keep it alive."""

    def __init__(self, image: sitk.Image) -> None:
        self.image = image
        view = sitk.GetArrayViewFromImage(image)  # nobody else has this memory after it
        interface = view.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}  # writable


def _voxels(image: sitk.Image) -> np.ndarray:
    """The voxels (K, J, I) of an image that nobody changes from now on."""
    return np.asarray(_Memory(image))


def _checked_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    values = tuple(float(value) for value in spacing)
    if len(values) != 3 or not all(0 < value < np.inf for value in values):
        given = " ".join(f"{value:g}" for value in values)
        raise InputError(f"--spacing must be three positive numbers in mm, K J I, not {given}.")
    return values


def output_suffix(path: str | Path) -> str:
    """The suffix of a label map file, one of OUTPUT_SUFFIXES; InputError for any other.

    InputError, too, where ITK cannot take the name: before there is anything to write.
    """
    check_name(path)
    name = Path(path).name.lower()
    for suffix in OUTPUT_SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return suffix
    raise InputError(
        f"{path} has no suffix that can be written: end it with one of "
        f"{', '.join(OUTPUT_SUFFIXES)}."
    )


def check_lattice(geometry: Geometry, path: str | Path) -> None:
    """Raise InputError for a NIfTI file of sheared axes: ITK would silently straighten them."""
    axes = np.reshape(geometry.direction, (3, 3))
    if ".nii" in output_suffix(path) and np.abs(axes.T @ axes - np.eye(3)).max() > MAX_SHEAR:
        raise InputError(
            f"{path} cannot hold the image's axes, which are not at right angles: end it with "
            ".nrrd or .mha."
        )


def write_mask(mask: np.ndarray, geometry: Geometry, path: str | Path, name: str = "") -> None:
    """Write a mask as a uint8 label map (1 inside), or as a Slicer segmentation (.seg.nrrd).

    Parameters
    ----------
    mask : bool (K, J, I), the shape of the image
    geometry : the lattice of the image; a NIfTI file gets both transforms of a NIfTI image
    path : what to write; the suffix says how
    name : name of the segment in a .seg.nrrd; the file's name where it is empty

    Raises
    ------
    InputError
        The suffix is unknown, its format cannot hold the lattice, or the file cannot be written.
    """
    suffix = output_suffix(path)
    check_lattice(geometry, path)
    if mask.shape != geometry.size[::-1]:
        raise InputError(f"The mask has the shape {mask.shape}, the image {geometry.size[::-1]}.")
    image = sitk.GetImageFromArray(np.asarray(mask, bool).view(np.uint8))
    geometry.apply(image)
    if suffix == ".seg.nrrd":
        for key, value in _segmentation_fields(geometry.size, name or stem(path)).items():
            image.SetMetaData(key, value)
    try:
        with _quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=suffix != ".nii")
        if geometry.placement is not None and ".nii" in suffix:
            nifti.place(Path(path), geometry.placement)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be written: {_reason(error)}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def stem(path: str | Path) -> str:
    """The name of a label map file without its folder and suffix."""
    return Path(path).name[: -len(output_suffix(path))]


def _segmentation_fields(size: tuple[int, int, int], name: str) -> dict[str, str]:
    """The NRRD fields by which Slicer recognises a segmentation with one segment."""
    extent = " ".join(f"0 {n - 1}" for n in size)
    return {
        "Segment0_ID": "Segment_1",
        "Segment0_Name": name,
        "Segment0_NameAutoGenerated": "0",
        "Segment0_Color": " ".join(f"{c:g}" for c in SEGMENT_COLOUR),
        "Segment0_ColorAutoGenerated": "0",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Extent": extent,
        "Segment0_Tags": TISSUE_TAG,
        "Segmentation_MasterRepresentation": "Binary labelmap",  # the key of Slicer up to 5.2
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }


def _read_file(path: Path) -> tuple[sitk.Image, np.ndarray | None]:
    """The image, and where it has voxels that ITK hides, see `nifti.non_finite_voxels`."""
    with _alone(path) as file:
        return _read_alone(path, file)


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The file, in a folder of its own where ITK would take another one's voxels.

    Those of x.nii for x.nii.gz where both lie side by side, whatever they hold.
    """
    if not path.name.lower().endswith(".nii.gz") or not path.with_suffix("").is_file():
        yield path
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        try:
            file.symlink_to(path.resolve())
        except OSError:  # Windows lets not everybody make links
            shutil.copyfile(path, file)
        yield file


def _read_alone(path: Path, file: Path) -> tuple[sitk.Image, np.ndarray | None]:
    """See `_read_file`; `file` is where the image of `path` is to be read."""
    reader = _read_header(path, file)
    with ThreadPoolExecutor(1) as beside:  # at the same time, for packed files are slow to read
        hidden = beside.submit(nifti.non_finite_voxels, path, reader.GetSize()[2::-1])
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise InputError(
                f"{path} cannot be read, it may be damaged: {_reason(error)}"
            ) from None
    return image[:, :, :, 0] if image.GetDimension() == 4 else image, hidden.result()


def _read_header(path: Path, file: Path) -> sitk.ImageFileReader:
    """The reader of a 3D scalar image, its header read; see `_read_alone`."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} is not an image that can be read: {_reason(error)}") from None
    _check_kind(path, reader)
    _check_place(path, reader)
    return reader


def _check_place(path: Path, found: sitk.Image | sitk.ImageFileReader) -> None:
    if not np.isfinite((*found.GetSpacing(), *found.GetOrigin(), *found.GetDirection())).all():
        raise InputError(
            f"{path} is damaged: its header says no numbers for where the volume lies; copy or "
            "download it again."
        )


def _check_kind(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse what is not a 3D scalar image before its voxels are read."""
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1:
        tiff.check_strips(path)
        raise InputError(
            f"{path} is a colour or vector image with {reader.GetNumberOfComponents()} components "
            "per voxel: a scalar volume is needed."
        )
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise InputError(f"{path} has complex voxels: a volume of real numbers is needed.")
    tiff.check_whole(path)
    if len(size) == 2:
        raise InputError(f"{path} is a 2D image ({size[0]} x {size[1]}): a volume is needed.")
    if len(size) > 4 or (len(size) == 4 and size[3] != 1):
        raise InputError(
            f"{path} is a {len(size)}D image ({' x '.join(map(str, size))}): save the one 3D "
            "volume that you want to segment."
        )
    tiff.check_pages(path, size[2])


def _finite(
    array: np.ndarray, path: Path, fill: float | None, hidden: np.ndarray | None
) -> np.ndarray:
    """The array without NaN and infinite voxels: they are replaced by `fill`, or refused."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    # Slice by slice, so that a large volume needs no second copy.
    if hidden is None:
        count = sum(int(plane.size - np.count_nonzero(np.isfinite(plane))) for plane in array)
    else:
        count = int(np.count_nonzero(hidden))
    if count == 0:
        return array
    if fill is None:
        raise InputError(
            f"{path} has NaN or infinite voxels ({count} of {array.size}): repair it ('slidesam "
            "segment' can replace them, with --fill-non-finite VALUE)."
        )
    if abs(fill) > float(np.finfo(array.dtype).max):
        raise InputError(
            f"--fill-non-finite {fill:g} does not fit into the {array.dtype} voxels of {path}."
        )
    for k, plane in enumerate(array):
        plane[~np.isfinite(plane) if hidden is None else hidden[k]] = fill
    return array


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """Keep ITK's own warnings off stderr; what matters comes as an exception."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _reason(error: RuntimeError) -> str:
    """The last line of an ITK exception, which is the one that people can read."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else "no reason given"
    text = text.split("ITK ERROR:")[-1].split("sitk::ERROR:")[-1].strip()
    return text if text.endswith(".") else text + "."
