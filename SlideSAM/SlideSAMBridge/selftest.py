"""What the module's self-test needs, so that it runs in any Slicer: a scene and a small model.

The model finds connected bright voxels in the three slices of a window. It knows nothing of
organs; it is there to show that every voxel that a model answers for lands in the right place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .scene import editing, lattice

INSIDE, OUTSIDE = 400, 0


@dataclass(frozen=True, eq=False)
class _Embedding:
    slices: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.slices.nbytes


class BrightModel:
    """A SlideSAMLib.protocol.SliceModel that answers with the bright voxels near the prompt."""

    device = "cpu"
    precision = "float32"

    def __init__(self) -> None:
        from SlideSAMLib.protocol import ModelTraits

        self.traits = ModelTraits(
            name="bright voxels (self-test)",
            licence="Apache-2.0",
            input_size=0,
            region="slice",
            resize="nearest",
            intensity="as it is",
            prompts=frozenset(("box", "point")),
            candidates=1,
        )

    def encode(self, windows: Sequence[Any]) -> list[_Embedding]:
        return [_Embedding(window.slices) for window in windows]

    def predict(self, embedding: _Embedding, prompt: Any) -> Any:
        from SlideSAMLib.protocol import WindowPrediction

        bright = embedding.slices > (INSIDE + OUTSIDE) / 2
        start = np.zeros(bright.shape[1:], bool)
        if prompt.box is not None:
            x0, y0, x1, y1 = (round(v) for v in prompt.box)
            start[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
        for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
            if label == 1:
                start[round(y), round(x)] = True
        centre = _grow(start & bright[1], bright[1])
        found = np.stack([_grow(centre & bright[n], bright[n]) for n in range(3)])
        return WindowPrediction(
            logits=np.where(found, 6.0, -6.0).astype(np.float32)[None],
            corner=(0, 0),
            quality=np.array([0.95], np.float32),
            shape=bright.shape[1:],
        )

    def remember(self, embedding: _Embedding, mask: np.ndarray) -> None:
        return None


def _grow(start: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """All of `allowed` (H, W) that hangs together with `start`, in the four directions."""
    grown = start & allowed
    while True:
        larger = grown.copy()
        larger[1:] |= grown[:-1]
        larger[:-1] |= grown[1:]
        larger[:, 1:] |= grown[:, :-1]
        larger[:, :-1] |= grown[:, 1:]
        larger &= allowed
        if np.array_equal(larger, grown):
            return grown
        grown = larger


class TestScene:
    """A bright ellipsoid and a second bright block in an oblique volume, and a segmentation.

    volume, segmentation : the nodes. truth : bool (K, J, I), the ellipsoid. centre : RAS in mm.
    """

    __test__ = False  # not a test case, in spite of its name

    def __init__(self, scene: Any, transformed: bool = False) -> None:
        import slicer

        k, j, i = np.mgrid[0:24, 0:48, 0:56]
        middle = (12, 22, 26)
        inside = ((k - 12) / 7.5) ** 2 + ((j - 22) / 12.5) ** 2 + ((i - 26) / 15.5) ** 2
        # The half voxels leave no tip of a single voxel, at which the slide would rightly stop.
        self.truth = inside <= 1
        image = np.where(self.truth, INSIDE, OUTSIDE).astype(np.int16)
        image[3:20, 38:45, 40:52] = INSIDE  # does not touch the ellipsoid
        angle = np.radians(15)
        turn = np.array(
            [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        )
        matrix = np.eye(4)
        matrix[:3, :3] = turn @ np.diag([-0.9, -1.1, 2.5])
        matrix[:3, 3] = (30, 40, -20)
        self.volume = slicer.util.addVolumeFromArray(image, ijkToRAS=matrix, name="Self-test")
        if transformed:
            shift = np.eye(4)
            shift[:3, 3] = (5, -7, 11)
            node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
            node.SetMatrixTransformToParent(lattice.to_matrix(shift))
            self.volume.SetAndObserveTransformNodeID(node.GetID())
        self.segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        self._lattice = lattice.of_volume(self.volume)
        self.middle = middle[::-1]  # (K, J, I) to (I, J, K)
        self.centre = self._ras(self.middle)
        self.model = BrightModel()

    def box(self, axis: str) -> list[list[float]]:
        """Two RAS corners around the ellipsoid on its middle slice along I, J or K."""
        low, high = [10, 9, 4], [42, 35, 20]
        number = "IJK".index(axis)
        low[number] = high[number] = self.middle[number]
        return [self._ras(low), self._ras(high)]

    def slice_node(self) -> Any:
        """A slice view's node, in no scene, that shows the middle slice along K."""
        import slicer

        matrix = self._lattice.ijk_to_ras.copy()
        matrix[:3, :3] /= np.linalg.norm(matrix[:3, :3], axis=0)
        matrix[:3, 3] = self.centre
        node = slicer.vtkMRMLSliceNode()
        node.GetSliceToRAS().DeepCopy(lattice.to_matrix(matrix))
        node.UpdateMatrices()
        return node

    def mask(self, segment_id: str) -> np.ndarray:
        """The voxels of a segment on the volume's lattice: bool (K, J, I)."""
        return editing.segment_mask(self.segmentation, segment_id, self._lattice)

    def _ras(self, ijk: Sequence[float]) -> list[float]:
        return (self._lattice.ijk_to_ras @ [*ijk, 1.0])[:3].tolist()
