"""What the model sees of the scene: the source volume on the voxels of the segmentation. No Qt."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..text import tr as _
from . import lattice as lattices
from .editing import copied, image_array, own_voxels
from .lattice import Lattice


@dataclass(eq=False)
class Source:
    """A volume on a lattice, as it was at one moment.

    voxels : (K, J, I) on `part`, a copy.
    part : the voxels of the segmentation's lattice that the volume covers, where they lay when it
        was read last: volume and segmentation may have been moved together since.
    signature : see `signature_of`; the same one means the same voxels.
    stacks : what the worker has made of them for sliding, see `work`.
    """

    voxels: np.ndarray
    part: Lattice
    signature: tuple
    stacks: dict[tuple, Any] = field(default_factory=dict)


class SourceReader:
    """Reads the source volume through an effect, and remembers it while nothing changes.

    effect : the `scriptedEffect` of a Segment Editor effect.
    """

    def __init__(self, effect: Any) -> None:
        self._effect = effect
        self._last: Source | None = None
        # Those that results still hold: the volume may come back to the place they were made at.
        self._made: weakref.WeakSet[Source] = weakref.WeakSet()

    def part(self) -> Lattice | None:
        """The voxels that can be marked, as they are now; None while something is missing."""
        segmentation_node, volume_node = self._nodes()
        if segmentation_node is None or volume_node is None or volume_node.GetImageData() is None:
            return None
        image = self._effect.referenceGeometryImage()
        if image is None:
            return None
        try:
            lattice = lattices.of_image(image, segmentation_node)
            return lattices.covered_part(lattice, lattices.of_volume(volume_node))
        except ValueError:  # no overlap, or a transform that is not linear: `read` says which
            return None

    def read(self) -> Source:
        """The source volume, read anew only where it or its place has changed.

        Raises
        ------
        ValueError
            The volume and the segmentation share no voxel, or a transform is not linear.
        RuntimeError
            Slicer cannot bring the volume onto the segmentation's geometry.
        """
        segmentation_node, volume_node = self._nodes()
        image = self._effect.referenceGeometryImage()
        if image is None:
            # Asking for the volume gives a segmentation its first geometry.
            self._effect.sourceVolumeImageData()
            image = self._effect.referenceGeometryImage()
        if image is None:
            raise RuntimeError(_("The segmentation has no geometry: choose a source volume."))
        lattice = lattices.of_image(image, segmentation_node)
        part = lattices.covered_part(lattice, lattices.of_volume(volume_node))
        signature = signature_of(volume_node, part)
        if self._last is None or self._last.signature != signature:
            self._last = None  # before the copy: two large volumes at once are one too many
            known = (source for source in self._made if source.signature == signature)
            self._last = next(known, None) or Source(self._copy(part), part, signature)
            self._made.add(self._last)
        self._last.part = part
        return self._last

    def unchanged(self, source: Source) -> bool:
        """Whether results on this source still fit the scene."""
        volume_node = self._nodes()[1]
        part = self.part()
        return part is not None and signature_of(volume_node, part) == source.signature

    def forget(self) -> None:
        """Let go of the copy."""
        self._last = None

    def _nodes(self) -> tuple[Any, Any]:
        node = self._effect.parameterSetNode()
        if node is None:
            return None, None
        return node.GetSegmentationNode(), node.GetSourceVolumeNode()

    def _copy(self, part: Lattice) -> np.ndarray:
        segmentation_node, volume_node = self._nodes()
        voxels = own_voxels(volume_node, part)
        if voxels is not None:
            return voxels
        image = self._effect.sourceVolumeImageData()
        if image is None:
            raise RuntimeError(_("The volume cannot be brought onto the segmentation's geometry."))
        lattice = lattices.of_image(image, segmentation_node)
        return copied(image_array(image)[lattice.slices(part)])


def signature_of(volume_node: Any, part: Lattice) -> tuple:
    """Changes with the voxels of the volume, and with where they lie on the lattice.

    part : as `lattice.covered_part` gives it for the volume.
    """
    place = np.linalg.solve(part.ijk_to_ras, lattices.of_volume(volume_node).ijk_to_ras)
    return (
        volume_node.GetID(),
        volume_node.GetImageData().GetMTime(),  # its scalars' too, which numpy writers modify
        part.extent,
        tuple(np.round(place, 9).ravel().tolist()),
        tuple(np.round(part.ijk_to_local, 9).ravel().tolist()),
        tuple(np.round(part.spacing, 9).tolist()),  # a common transform may scale both
    )
