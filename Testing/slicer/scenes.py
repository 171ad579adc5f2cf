"""Scenes for the Slicer tests, with ground truth worked out by numpy from the matrices alone.

There must be no __init__.py in this folder: it would hide the real package `slicer`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import slicer
import vtk
from scipy import ndimage
from vtk.util.numpy_support import vtk_to_numpy

from Testing.fakes import ThresholdModel

SHAPE = (12, 16, 20)  # (K, J, I)
INSIDE, OUTSIDE = 400, 0
# With oversampling 2 the interpolated image has multiples of 400/64; this is none of them.
THRESHOLD = 220


def _turn() -> np.ndarray:
    a, b = np.radians([25, 15])
    around_s = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    around_r = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    return np.array(around_s) @ np.array(around_r)


def affine(linear: Any, origin: Any = (0, 0, 0)) -> np.ndarray:
    """4 x 4 from a 3 x 3 and an origin."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = origin
    return matrix


GEOMETRIES = {
    "identity": np.eye(4),
    "negative spacing": affine(np.diag([-0.8, -0.9, 2.0]), (50, 40, -30)),
    "oblique": affine(_turn() @ np.diag([-0.8, -0.9, 2.0]), (12, -7, 33)),
    "oblique anisotropic": affine(_turn() @ np.diag([-0.6, 0.7, 3.5]), (12, -7, 33)),
    "left-handed": affine(np.diag([0.7, 0.9, -1.5]), (-5, 8, 60)),
    "anisotropic": affine(np.diag([-0.6, -0.6, 5.0]), (50, 40, -200)),
    "sagittal scan": affine([[0, 0, 1.5], [-0.9, 0, 0], [0, -0.9, 0]], (3, 20, 30)),
    # Half a micrometre, metres from the origin: single precision is half a voxel here.
    "microscopy": affine(np.diag([-0.0005, -0.0006, 0.001]), (4000, -3000, 2000)),
    "sheared": affine([[0.9, 0, 0], [0, 0.9, 0.7], [0, 0, 2.0]], (4, 5, 6)),
}
# A rotation with a shift, as a registration gives it.
TRANSFORM = affine([[0, -1, 0], [1, 0, 0], [0, 0, 1]], (5, -7, 11))
MIDDLE = (9, 7, 6)  # voxel (i, j, k) inside the object


def object_mask() -> np.ndarray:
    """An object without any symmetry, so that every flip and swap shows: bool (K, J, I)."""
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 4:11, 5:14] = True
    mask[3:9, 4:7, 14:17] = True
    mask[6:9, 11:13, 5:8] = True
    return mask


def model(**options: Any) -> ThresholdModel:
    """Finds what is bright and hangs together with the prompt, wherever it goes."""
    return ThresholdModel(**{"threshold": THRESHOLD, "margin": 1000.0, **options})


def array(matrix: Any) -> np.ndarray:
    return slicer.util.arrayFromVTKMatrix(matrix)


def add_transform(matrix: np.ndarray) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def to_world(node: Any) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode():
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return array(matrix)


class Scene:
    """A volume with the object, and an empty segmentation.

    transforms : any of "volume", "segmentation": which node hangs under TRANSFORM.
    oversampling : of the segmentation's geometry; None leaves it without a geometry.
    """

    def __init__(
        self,
        ijk_to_ras: np.ndarray = GEOMETRIES["negative spacing"],
        transforms: tuple[str, ...] = (),
        oversampling: float | None = None,
        image: np.ndarray | None = None,
    ) -> None:
        self.truth = object_mask()
        if image is None:
            image = np.where(self.truth, INSIDE, OUTSIDE).astype(np.int16)
        self.image = image
        self.ijk_to_ras = ijk_to_ras
        self.volume = slicer.util.addVolumeFromArray(image, ijkToRAS=ijk_to_ras, name="Volume")
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
        node = add_transform(TRANSFORM) if transforms else None
        if "volume" in transforms:
            self.volume.SetAndObserveTransformNodeID(node.GetID())
        if "segmentation" in transforms:
            self.segmentation.SetAndObserveTransformNodeID(node.GetID())
        if oversampling is not None:
            self.oversample(oversampling)

    def oversample(self, factor: float) -> None:
        geometry = slicer.vtkSlicerSegmentationGeometryLogic()
        geometry.SetInputSegmentationNode(self.segmentation)
        geometry.SetSourceGeometryNode(self.volume)
        geometry.SetOversamplingFactor(factor)
        assert geometry.CalculateOutputGeometry() == ""
        geometry.SetReferenceImageGeometryInSegmentationNode()

    @property
    def contents(self) -> Any:
        return self.segmentation.GetSegmentation()

    def import_segment(self, segment_id: str, step: float, first: Any = (8, 2, 1)) -> None:
        """A full segment of 8 x 12 x 10 voxels of the volume, on a lattice of its own.

        step : its voxels are this many of the volume's wide; voxel edges coincide.
        first : its first voxel (i, j, k) of the volume.
        """
        size = np.array([8, 12, 10]) / step
        image = slicer.vtkOrientedImageData()
        image.SetExtent(*np.stack([0 * size, size - 1], axis=1).astype(int).ravel().tolist())
        place = affine(np.eye(3) * step, np.array(first) - 0.5 + step / 2)
        image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(self.ijk_to_ras @ place))
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        image.GetPointData().GetScalars().Fill(1)
        segment = slicer.vtkSegment()
        segment.SetName(segment_id)
        segment.AddRepresentation("Binary labelmap", image)
        self.contents.AddSegment(segment, segment_id)

    def ras(self, ijk: Any = MIDDLE) -> list[float]:
        """World position of a voxel (i, j, k) of the volume."""
        return (to_world(self.volume) @ self.ijk_to_ras @ [*ijk, 1.0])[:3].tolist()

    def of(self, segmentation: Any) -> Scene:
        """The same with another segmentation on the same volume."""
        other = copy.copy(self)
        other.segmentation = segmentation
        return other

    def has(self, name: str) -> bool:
        """Whether the first segment of a name has any voxel."""
        segment_id = self.contents.GetSegmentIdBySegmentName(name)
        image = self.segmentation.GetBinaryLabelmapInternalRepresentation(segment_id)
        if image is None or image.GetPointData().GetScalars() is None:
            return False
        value = self.contents.GetSegment(segment_id).GetLabelValue()
        return bool((vtk_to_numpy(image.GetPointData().GetScalars()) == value).any())

    def found(self, segment_id: str) -> np.ndarray:
        """Voxels (i, j, k) of the volume, with fractions, where a segment's voxels lie: (N, 3)."""
        image = self.segmentation.GetBinaryLabelmapInternalRepresentation(segment_id)
        value = self.contents.GetSegment(segment_id).GetLabelValue()
        extent, shape = image.GetExtent(), image.GetDimensions()[::-1]
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        ijk = np.argwhere(voxels == value)[:, ::-1] + extent[0::2]
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        world = to_world(self.segmentation) @ array(matrix)
        back = np.linalg.inv(to_world(self.volume) @ self.ijk_to_ras) @ world
        return (np.c_[ijk, np.ones(len(ijk))] @ back.T)[:, :3]

    def mask(self, segment_id: str) -> np.ndarray:
        """A segment on the volume's voxels: bool (K, J, I); fails where it lies between them."""
        found = self.found(segment_id)
        whole = np.rint(found).astype(int)
        assert np.allclose(found, whole, atol=1e-6)
        mask = np.zeros(self.image.shape, bool)
        mask[whole[:, 2], whole[:, 1], whole[:, 0]] = True
        assert mask.sum() == len(whole)
        return mask


def interpolated(image: np.ndarray, ijk: np.ndarray) -> np.ndarray:
    """Values of an image (K, J, I) at voxels (i, j, k) with fractions, trilinear: (N,)."""
    return ndimage.map_coordinates(image.astype(float), ijk[:, ::-1].T, order=1, mode="nearest")


def fine_truth(scene: Scene, factor: int) -> np.ndarray:
    """Where an oversampled lattice is brighter than THRESHOLD: (N, 3) voxels of the volume.

    The outer voxel edges coincide, so fine voxel n lies at (n + 0.5) / factor - 0.5.
    """
    axes = [(np.arange(n * factor) + 0.5) / factor - 0.5 for n in SHAPE[::-1]]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[interpolated(scene.image, grid) > THRESHOLD]


def sorted_rows(points: np.ndarray) -> np.ndarray:
    rounded = np.round(points, 4) + 0.0  # + 0.0: no negative zeros
    return rounded[np.lexsort(rounded.T)]


def snapshot() -> dict[str, Any]:
    """What a failed call must leave as it was."""
    state: dict[str, Any] = {}
    for index in range(slicer.mrmlScene.GetNumberOfNodes()):
        node = slicer.mrmlScene.GetNthNode(index)
        state[node.GetID()] = node.GetClassName()
        if node.IsA("vtkMRMLSegmentationNode"):
            contents = node.GetSegmentation()
            state[node.GetID()] = (
                tuple(contents.GetSegmentIDs()),
                contents.GetConversionParameter("Reference image geometry"),
                node.GetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole()),
                node.GetDisplayNodeID(),
            )
    return state
