"""The preview: a second segmentation node that shows what may become part of a segment. No Qt.

It is never saved, hangs under the same transform as the segmentation, is shown in the same views,
and shares its voxels. Two segments in one labelmap show the slices that the model is sure of and,
dimmed, the others. The latter have no outline of Slicer's; the overlays of all views draw one for
them, dashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..scene.lattice import Lattice
from ..scene.patch import Bounds, Patch
from .dashes import outlines

NAME = "Slide-SAM preview"
SURE, WEAK = "sure", "weak"
LABELS = {SURE: 1, WEAK: 2}
# (fill, outline) opacity: the dimmed slices ask to be looked at.
OPACITY = {SURE: (0.45, 1.0), WEAK: (0.2, 0.0)}

# Slice index (from the start of the part) -> (mask, bool (H, W); confidence, 0..1).
Slices = Mapping[int, tuple[np.ndarray, float]]


@dataclass(frozen=True, eq=False)
class Shown:
    """What is shown of one slice.

    bounds : the voxels of the mask that are set, see `patch`; None where none is.
    """

    mask: np.ndarray
    kind: str
    bounds: Bounds | None


class Preview:
    """Shows masks of slices; makes its node when there is something to show."""

    def __init__(self) -> None:
        self._node: Any = None
        self._patch: Patch | None = None
        self._axis: int | None = None
        self._shown: dict[int, Shown] = {}
        self._outlines: dict[tuple[int, int], list[np.ndarray]] = {}  # (axis, index) -> lines
        self.color: tuple[float, ...] = (1.0, 1.0, 1.0)
        self.version = 0  # counts up when what is shown changes

    @property
    def node(self) -> Any:
        """The preview segmentation node, or None while there is none in the scene."""
        if self._node is not None and self._node.GetScene() is None:
            self._forget()  # the scene was closed, or somebody deleted it
        return self._node

    @property
    def shown(self) -> frozenset[int]:
        """The slices that have something on them."""
        return frozenset(self._shown) if self.node is not None else frozenset()

    def show(
        self,
        segmentation_node: Any,
        part: Lattice,
        axis: int,
        slices: Slices,
        color: Sequence[float],
        weak_below: float,
        only: Iterable[int] | None = None,
    ) -> None:
        """Show exactly these slices, counted along `axis` from the start of `part`.

        only : the slices that changed, where the others are known to be as they were.
        A mask that is shown already is known by being the same object: nobody may write to it.
        """
        fresh = self._prepare(segmentation_node, part, axis)
        indices = {*self._shown, *slices} if only is None or fresh else set(only)
        changed = [n for n in indices if not self._is_shown(n, slices.get(n), weak_below)]
        for index in changed:
            self._erase(index)
        entries = {n: slices[n] for n in changed if n in slices}
        self._write(
            {
                n: Shown(mask, _kind(confidence, weak_below), set_bounds(mask, axis, n))
                for n, (mask, confidence) in entries.items()
            }
        )
        self._color(color)
        if changed:
            self.version += 1
            self._patch.image.Modified()  # numpy writes go unnoticed
            self._node.GetDisplayNode().Modified()  # or views that stand still keep their picture

    def weak_outlines(self, axis: int, index: int) -> list[np.ndarray]:
        """The outlines, on one slice of any orientation, of what the model is not sure of.

        index : counts along `axis` from the start of the part. See `dashes.outlines`.
        """
        if self.node is None or not any(each.kind == WEAK for each in self._shown.values()):
            return []
        if axis == self._axis and (index not in self._shown or self._shown[index].kind != WEAK):
            return []
        if (axis, index) not in self._outlines:
            covered = self._patch.on_slice(axis, index)
            if covered is None:
                return []
            voxels, start = covered
            self._outlines[axis, index] = [
                line + start[::-1] for line in outlines(voxels == LABELS[WEAK])
            ]
        return self._outlines[axis, index]

    def clear(self) -> None:
        """Show nothing, and take the node out of the scene."""
        node = self.node
        self._forget()
        if node is not None:
            display = node.GetDisplayNode()
            scene = node.GetScene()
            scene.RemoveNode(node)
            if display is not None and display.GetScene() is not None:
                scene.RemoveNode(display)

    def _forget(self) -> None:
        if self._patch is not None:
            # Before the node goes: Slicer clears every segment out of the labelmap it shares.
            self._patch.empty()
        self._node = self._patch = self._axis = None
        self._shown, self._outlines = {}, {}
        self.version += 1

    def _is_shown(
        self, index: int, entry: tuple[np.ndarray, float] | None, weak_below: float
    ) -> bool:
        shown = self._shown.get(index)
        if shown is None or entry is None:
            return shown is None and entry is None
        return shown.mask is entry[0] and shown.kind == _kind(entry[1], weak_below)

    def _erase(self, index: int) -> None:
        shown = self._shown.pop(index, None)
        if shown is not None and shown.bounds is not None:
            self._patch.at(shown.bounds)[...] = 0
        if shown is not None and shown.kind == WEAK:
            self._outlines.clear()  # slices of other orientations cross this one

    def _write(self, fresh: dict[int, Shown]) -> None:
        """Show slices where nothing is shown."""
        self._shown.update(fresh)
        if any(each.kind == WEAK for each in fresh.values()):
            self._outlines.clear()
        filled = [each for each in fresh.values() if each.bounds is not None]
        if not filled:
            return
        bounds = np.stack([each.bounds for each in filled])
        self._patch.cover(np.stack([bounds[..., 0].min(0), bounds[..., 1].max(0)], axis=1))
        along = 2 - self._axis
        for each in filled:
            rows, columns = (slice(*pair) for pair in np.delete(each.bounds, along, 0).tolist())
            voxels = self._patch.at(each.bounds).squeeze(along)
            np.multiply(each.mask[rows, columns], np.uint8(LABELS[each.kind]), out=voxels)

    def _prepare(self, segmentation_node: Any, part: Lattice, axis: int) -> bool:
        """Make the node where there is none that fits; True where it is empty now."""
        fits = self.node is not None and self._patch.lattice.same_voxels(part)
        if not fits:
            self.clear()
            self._make(segmentation_node, part)
        self._node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
        self._node.GetDisplayNode().SetViewNodeIDs(_view_ids(segmentation_node))
        if fits and self._axis != axis:
            self._patch.empty()
            self._shown, self._outlines = {}, {}
            fits = False
        self._axis = axis
        return not fits

    def _make(self, segmentation_node: Any, part: Lattice) -> None:
        import slicer

        scene = segmentation_node.GetScene()
        node = slicer.vtkMRMLSegmentationNode()
        node.SetName(NAME)
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)  # nobody should choose it to edit
        node.UndoEnabledOff()
        scene.AddNode(node)
        node.CreateDefaultDisplayNodes()  # before the segments, which then get properties of theirs
        contents = node.GetSegmentation()
        contents.SetSourceRepresentationName("Binary labelmap")
        patch = Patch(part)
        for name, value in LABELS.items():
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.SetLabelValue(value)
            segment.AddRepresentation("Binary labelmap", patch.image)
            contents.AddSegment(segment, name)
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetVisibility3D(False)  # a surface at every slice would take longer than the model
        for name, (fill, outline) in OPACITY.items():
            display.SetSegmentOpacity2DFill(name, fill)
            display.SetSegmentOpacity2DOutline(name, outline)
        self._node, self._patch = node, patch

    def _color(self, color: Sequence[float]) -> None:
        if self.color != tuple(color):
            self.color = tuple(color)
            self.version += 1
        contents = self._node.GetSegmentation()
        for name in LABELS:
            segment = contents.GetSegment(name)
            if not np.allclose(segment.GetColor(), color):
                segment.SetColor(*color)


def set_bounds(mask: np.ndarray, axis: int, index: int) -> Bounds | None:
    """The box, one slice thick, around what is set in the mask (H, W) of a slice; see `patch`."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    bounds = [[top, bottom], [int(columns[0]), int(columns[-1]) + 1]]
    bounds.insert(2 - axis, [index, index + 1])
    return np.array(bounds)


def _view_ids(segmentation_node: Any) -> list[str]:
    """Ids of the views that show a segmentation; none for all, as Slicer has it."""
    count = segmentation_node.GetNumberOfDisplayNodes()
    shown = [segmentation_node.GetNthDisplayNode(n).GetViewNodeIDs() for n in range(count)]
    return list(dict.fromkeys(name for names in shown for name in names)) if all(shown) else []


def _kind(confidence: float, weak_below: float) -> str:
    return WEAK if confidence < weak_below else SURE
