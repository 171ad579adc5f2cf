"""The nodes of a Segment Editor, and the prompts of its selected segment. No Qt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..drawing import slice_views
from ..drawing.overlay import nearest
from ..scene import lattice as lattices
from ..scene import segments
from ..scene.lattice import Lattice
from ..scene.prompt_set import Mark, PromptSet, from_json
from ..scene.segmenting import check_nodes
from ..scene.source import SourceReader
from ..text import tr as _
from . import applying


class ObliqueView(ValueError):
    """The slice view shows no slice of the lattice, or not where it is wanted."""


def oblique() -> ObliqueView:
    return ObliqueView(
        _("This view cuts the volume's slices at an angle: rotate it to the volume.")
    )


class PromptBook:
    """Reads and writes the prompts of the selected segment, and makes new ones from positions.

    effect : the `scriptedEffect` of the Segment Editor. on_damage : called with a sentence where
        the saved prompts of a segment cannot be read.
    """

    def __init__(self, effect: Any, reader: SourceReader, on_damage: Callable[[str], None]) -> None:
        self.effect = effect
        self.reader = reader
        self._on_damage = on_damage
        self._parsed: tuple[Any, PromptSet] = (None, PromptSet())
        self._known: PromptSet | None = None
        self.saving = False  # observers of the segment need not wonder who has changed its marks

    @property
    def segmentation_node(self) -> Any:
        node = self.effect.parameterSetNode()
        return None if node is None else node.GetSegmentationNode()

    @property
    def volume_node(self) -> Any:
        node = self.effect.parameterSetNode()
        return None if node is None else node.GetSourceVolumeNode()

    @property
    def segment_id(self) -> str | None:
        """The selected segment, None where none is, or it does not exist any more."""
        node, segmentation_node = self.effect.parameterSetNode(), self.segmentation_node
        if segmentation_node is None:
            return None
        segment_id = node.GetSelectedSegmentID()
        known = segment_id and segmentation_node.GetSegmentation().GetSegment(segment_id)
        return segment_id if known else None

    @property
    def prompts(self) -> PromptSet:
        """The prompts of the selected segment; they live in its tag, which undo may change."""
        segment_id = self.segment_id
        if segment_id is None:
            return PromptSet()
        text = segments.saved_text(self.segmentation_node, segment_id)
        if self._parsed[0] == text:
            return self._parsed[1]
        part = self.reader.part() if text else None
        if part is None:
            # Without a volume the voxels of older texts cannot be placed; ask again later.
            self._parsed = ("", PromptSet())
            return self._parsed[1]
        try:
            self._parsed = (text, from_json(text, part))
        except ValueError as error:
            self._parsed = (text, PromptSet())
            self._on_damage(str(error))
        return self._parsed[1]

    def save(self, prompts: PromptSet) -> None:
        """Keep these prompts with the selected segment."""
        segmentation_node, segment_id = self.segmentation_node, self.segment_id
        self.saving = True
        try:
            segments.save_prompts(segmentation_node, segment_id, prompts)
            # To read them back would make all their masks anew.
            self._parsed = (segments.saved_text(segmentation_node, segment_id), prompts)
        finally:
            self.saving = False
            self._known = self.prompts

    def changed(self) -> bool:
        """Whether the prompts are others than they were when they were saved, or asked about."""
        known, self._known = self._known, self.prompts
        return known is not self._known

    def check(self) -> None:
        """Raise ValueError with a sentence unless there is something to work on."""
        if self.segment_id is None:
            raise ValueError(_("Choose or add a segment first."))
        check_nodes(self.volume_node, self.segmentation_node, self.segment_id)

    def nearest(self, slice_node: Any, xy: Sequence[float], radius: float) -> int | None:
        """The number of the mark on the shown slice that a pixel is on, or None."""
        part = self.reader.part()
        found = None if part is None else nearest(self.prompts, slice_node, part, xy)
        return None if found is None or found[1] > radius else found[0]

    def place(self, slice_node: Any) -> tuple[int, int, Lattice]:
        """(axis, index, part) of the slice that a view shows; ValueError where it has none."""
        self.check()
        part = self.reader.read().part
        shown = slice_views.shown_slice(slice_node, part)
        if shown is None:
            raise oblique()
        axis, index = shown
        if not part.first[axis] <= index <= part.last[axis]:
            here = [slice_views.middle(slice_node)]
            raise self._outside(here, _("This slice is outside the volume: scroll to the object."))
        return axis, index, part

    def mark(self, slice_node: Any, ras: Sequence[Sequence[float]], label: int) -> Mark:
        """A point, or a box from two corners, at world positions on the slice that a view shows."""
        axis, index, part = self.place(slice_node)
        if not slice_views.is_near(slice_node, part, axis, index, np.array(ras, float)).all():
            raise oblique()  # another slice would be marked than the one under the mouse
        places = [part.position(each) for each in ras]
        for place in places:
            place[axis] = index  # the view may stand between two slices
        if len(places) == 1:
            if not part.contains(np.floor(places[0] + 0.5).astype(int)):
                raise self._outside(ras, _("This is outside the volume: click on the object."))
        else:
            low, high = np.min(places, axis=0), np.max(places, axis=0)
            if np.any(high < part.first - 0.5) or np.any(low > part.last + 0.5):
                text = _("The box is outside the volume: draw it around the object.")
                raise self._outside(ras, text)
            places = [np.clip(place, part.first, part.last) for place in places]
            span = np.abs(np.rint(places[0]) - np.rint(places[1]))
            if np.count_nonzero(span) < 2:
                raise ValueError(_("The box is too small: drag it around the object."))
        return Mark(axis, tuple(tuple(part.local(place).tolist()) for place in places), label)

    def _outside(self, ras: Sequence[Sequence[float]], text: str) -> ValueError:
        """The text, or the right one where the volume goes on and the labels do not."""
        volume = lattices.of_volume(self.volume_node)
        if any(volume.contains(volume.voxel(each)) for each in ras):
            text = _(
                "The segmentation's geometry ends before this place: set it to this volume with "
                "'Specify geometry', beside the source volume."
            )
        return ValueError(text)

    def existing(self, slice_node: Any) -> Mark:
        """What the segment has on the slice that a view shows, as a mark.

        The view has to show all of the slice. What is inside the window, or has the outline in it,
        says too little: an outline that leaves the slice looks whole in a tilted view.
        """
        axis, index, part = self.place(slice_node)
        if not slice_views.is_near(
            slice_node, part, axis, index, _corners(part, axis, index)
        ).all():
            raise oblique()
        extent = list(part.extent)
        extent[2 * axis : 2 * axis + 2] = index, index  # of a large volume, this slice alone
        mask = applying.selected_mask(self.effect, part.cropped(extent))
        on_slice = mask.squeeze(2 - axis)  # (K, J, I) to (row, column)
        if not on_slice.any():
            raise ValueError(_("The segment has nothing on this slice: draw it there first."))
        corner = part.first.astype(float)
        corner[axis] = index
        return Mark(axis, (tuple(part.local(corner).tolist()),), 1, on_slice)

    def fullest(self, slice_nodes: Iterable[Any]) -> Any:
        """Of views, the one whose slice has most of the segment; None where none has anything."""
        counts = [(self._count(node), node) for node in slice_nodes]
        count, node = max(counts, key=lambda each: each[0], default=(0, None))
        return node if count else None

    def _count(self, slice_node: Any) -> int:
        """How many voxels of the segment can be taken from a view."""
        try:
            return int(self.existing(slice_node).mask.sum())
        except (ValueError, RuntimeError):  # `existing` says why to those who ask for this view
            return 0


def _corners(part: Lattice, axis: int, index: int) -> np.ndarray:
    """World positions (4, 3) of the outermost voxels of a slice."""
    ends = list(zip(part.first.tolist(), part.last.tolist(), strict=True))
    ends[axis] = (index,)
    ijk = np.array([[*voxel, 1.0] for voxel in itertools.product(*ends)])
    return (ijk @ part.ijk_to_ras.T)[:, :3]
