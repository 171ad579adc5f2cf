"""From marks in the scene to a written segment: the whole job, in order.

Check, bring the volume onto the lattice, place the marks, run the model, look whether the scene is
still the same, and only then write, as one undo step. Whatever goes wrong before the write leaves
the scene as it was.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..setup.library import missing_package
from ..text import tr as _
from . import lattice as lattices
from . import marks as marking
from . import segments
from .contents import Contents, stamps
from .editing import Editor, Preparation
from .lattice import Lattice
from .orientation import AXES, slide_axis
from .source import signature_of

CHANGED = _("The scene changed while the segmentation ran, so nothing was written: start it again.")


@dataclass(frozen=True)
class Request:
    """What to segment; every index is a voxel index of the segmentation's lattice.

    points, box : world RAS in mm. labels : 1 or 0 for each point.
    orientation : see `orientation.slide_axis`.
    segment_id : the segment to write to, or None for a new one.
    first, last : limits of the slide as slice indices along the slide axis, inclusive.
    window : (low, high) intensity window in image units, or None.
    mode : "add" to the segment, or "replace" what it has.
    settings : SlideSAMLib.SlideSettings, or None.
    progress : called as progress(done, total, finished) after every slice.
    cancelled : asked before every window; True ends the work, and what is finished is written.
    """

    points: Sequence[Sequence[float]] | None = None
    labels: Sequence[int] | None = None
    box: Sequence[Sequence[float]] | None = None
    orientation: Any = "Axial"
    segment_id: str | None = None
    first: int | None = None
    last: int | None = None
    window: Sequence[float] | None = None
    mode: str = "add"
    settings: Any = None
    progress: Callable[[int, int | None, Any], None] | None = None
    cancelled: Callable[[], bool] | None = None


def segment(
    editor: Editor,
    volume_node: Any,
    segmentation_node: Any,
    load: Callable[[], Any],
    request: Request,
) -> tuple[str, Any]:
    """Segment one object and write it; returns (segment id, SlideSAMLib.SlideResult).

    `load` gives the model; it is called when all that was marked is known to be usable. The slices
    of the result count from the first slice of the volume on the lattice.

    Raises
    ------
    ValueError
        A node, a mark, the orientation or a limit cannot be used.
    RuntimeError
        Nothing was found, all of it is masked, the work was cancelled before the first slice, the
        scene changed meanwhile, or a package is missing.
    """
    checks.mode(request.mode)
    checks.settings(request.settings)
    checks.function("progress", request.progress)
    checks.function("cancelled", request.cancelled)
    check_nodes(volume_node, segmentation_node, request.segment_id)
    editor.point_at(segmentation_node, volume_node)
    preparation = Preparation(segmentation_node, volume_node)
    try:
        volume, part = editor.source()
        signature = signature_of(volume_node, part)
        marks, result = _run(volume, part, load, request)
        check_unchanged(editor, volume_node, segmentation_node, signature, request.segment_id)
        found = editor.writable(result.mask, volume, part)
        if found is None:
            raise RuntimeError(_why_nothing(result))
        editor.save_state()
    except BaseException:
        # Also on a keyboard interrupt: the half of the job that was done has to go.
        preparation.revert()
        raise
    return _write(editor, segmentation_node, *found, marks, request), result


def check_nodes(volume_node: Any, segmentation_node: Any, segment_id: str | None) -> None:
    """Raise ValueError unless the nodes can be used and the segment exists."""
    if not checks.is_a(volume_node, "vtkMRMLScalarVolumeNode"):
        raise ValueError(_("The volume node must be a scalar volume (vtkMRMLScalarVolumeNode)."))
    name = f"'{volume_node.GetName()}'"
    if checks.is_a(volume_node, "vtkMRMLLabelMapVolumeNode"):
        raise ValueError(
            _("{name} is a label map: give the image it was drawn on.").format(name=name)
        )
    image = volume_node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise ValueError(_("The volume {name} has no image data: load it first.").format(name=name))
    if image.GetNumberOfScalarComponents() != 1:
        raise ValueError(
            _(
                "The volume {name} has {count} values per voxel: turn it into a scalar volume"
                " first (module Vector to Scalar Volume)."
            ).format(name=name, count=image.GetNumberOfScalarComponents())
        )
    checks.segmentation_node(segmentation_node)
    if segmentation_node.GetScene() is None or volume_node.GetScene() is None:
        raise ValueError(_("The volume and the segmentation must be in the scene."))
    lattices.local_to_ras(volume_node)  # refuse transforms that are not linear
    lattices.local_to_ras(segmentation_node)
    segmentation = segmentation_node.GetSegmentation()
    if segment_id is not None:
        checks.segment_id(segmentation, segment_id)
    representation = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() > 0 and representation != "Binary labelmap":
        raise ValueError(
            _(
                "The segments of '{name}' are stored as {representation}: make Binary "
                "labelmap the source representation in the Segmentations module."
            ).format(name=segmentation_node.GetName(), representation=representation)
        )


def _run(
    volume: np.ndarray, part: Lattice, load: Callable[[], Any], request: Request
) -> tuple[marking.Marks, Any]:
    """Place the marks on the part of the lattice that has image, and run the model."""
    import SlideSAMLib

    axis = slide_axis(request.orientation, part)
    marks = marking.from_ras(part, axis, request.points, request.labels, request.box)
    offset = int(part.first[axis])
    first, last = _limits(request, part, axis)
    prompts = marking.to_prompts(marks, part)

    def report(done: int, total: int | None, finished: Any) -> None:
        # Outside of here slices count along the lattice, not from the start of the part.
        shifted = dataclasses.replace(finished, index=finished.index + offset)
        request.progress(done, total, shifted)

    try:
        result = SlideSAMLib.segment(
            volume,
            prompts,
            spacing=part.spacing,
            axis=2 - axis,  # (I, J, K) to the array axes (K, J, I)
            first=first,
            last=last,
            model=load(),
            window=request.window,
            settings=request.settings,
            progress=None if request.progress is None else report,
            cancelled=request.cancelled,
        )
    except ImportError as error:
        raise missing_package(error) from error
    return marks, result


def _limits(request: Request, part: Lattice, axis: int) -> tuple[int | None, int | None]:
    """First and last slice counted from the start of the part."""
    low, high = int(part.first[axis]), int(part.last[axis])
    for name, value in (("first", request.first), ("last", request.last)):
        if value is None:
            continue
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number or not low <= value <= high or int(value) != value:
            raise ValueError(
                _(
                    "The {name} slice must be a whole number from {low} to {high} along {axis}, "
                    "not {value!r}."
                ).format(name=name, low=low, high=high, axis=AXES[axis], value=value)
            )
    if request.first is not None and request.last is not None and request.first > request.last:
        raise ValueError(
            _("The first slice {first} is behind the last slice {last}.").format(
                first=request.first, last=request.last
            )
        )
    return (
        None if request.first is None else int(request.first) - low,
        None if request.last is None else int(request.last) - low,
    )


def check_unchanged(
    editor: Editor,
    volume_node: Any,
    segmentation_node: Any,
    signature: tuple,
    segment_id: str | None,
) -> None:
    """Raise RuntimeError unless the result still fits: a progress callback may run the GUI.

    signature : `source.signature_of` the volume when the work began.
    """
    if not editor.alive or segmentation_node.GetScene() is None or volume_node.GetScene() is None:
        raise RuntimeError(CHANGED)
    try:
        check_nodes(volume_node, segmentation_node, segment_id)
        editor.point_at(segmentation_node, volume_node)
        part = lattices.covered_part(editor.lattice(), lattices.of_volume(volume_node))
    except ValueError as error:
        raise RuntimeError(CHANGED) from error
    if signature_of(volume_node, part) != signature:
        raise RuntimeError(CHANGED)


def _why_nothing(result: Any) -> str:
    if result.mask.any():
        return _(
            "Nothing was written: the masking settings of the Segment Editor (editable "
            "area or intensity range) leave out everything that was found."
        )
    if "cancelled" in result.stops.values():
        return _("Cancelled before the first slice was finished, so nothing was written.")
    return _("Nothing was found at the marked place: mark it with a box, or with more points.")


def _write(
    editor: Editor,
    segmentation_node: Any,
    mask: np.ndarray,
    lattice: Lattice,
    marks: marking.Marks,
    request: Request,
) -> str:
    segmentation_node.CreateDefaultDisplayNodes()  # does nothing where there is one
    segment_id = request.segment_id
    if segment_id is None:
        segment_id = segments.add_segment(segmentation_node)
    editor.write(segment_id, mask, lattice, request.mode == "replace")
    segments.save_marks(segmentation_node, segment_id, marks)
    return segment_id


class UndoStep:
    """One step of undo for several writes, as long as nobody else changes the segmentation.

    The state before the first write is saved in the history of the editor that writes, and in that
    of the Segment Editor's widget where it shows the segmentation; without a state of its own
    there, the widget's Undo would go back behind the last edit made in it. Only one of the two
    histories then takes the writes back: what one of them brings back is an edit for the other,
    which would keep its step.

    Whether somebody else has changed it is told by its voxels from `settle` on, and before that by
    times of change: between two writes of one run there is no time to look at every voxel.

    widget_of : gives the Segment Editor's widget that shows a segmentation, or None.
    """

    def __init__(
        self, editor: Editor, segmentation_node: Any, widget_of: Callable[[Any], Any]
    ) -> None:
        self._editor, self._node, self._widget_of = editor, segmentation_node, widget_of
        self._widget: Any = None  # that has the state, too
        self._contents = Contents()
        self._before: tuple | None = None  # the segmentation, see Contents
        self._left: tuple | None = None  # the same after the last write, once it is settled
        self._stamps: tuple | None = None  # as that write left them
        self.written = 0  # how many writes would be taken back

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around each write. After somebody else's edit a new step begins, or it would go along."""
        if self._stamps != stamps(self._node):
            self._before = self._contents.of(self._node)
            self._editor.save_state()
            self._widget = self._widget_of(self._node)
            if self._widget is not None:
                self._widget.saveStateForUndo()
            self.written = 0
        try:
            yield
            self.written += 1
        finally:
            self._stamps, self._left = stamps(self._node), None

    def settle(self) -> None:
        """Nothing more will be written."""
        if self._stamps == stamps(self._node):
            self._left = self._contents.of(self._node)

    @property
    def possible(self) -> bool:
        """Whether there is something to take back, and nothing of anybody else's with it."""
        return (
            self.written > 0
            and self._node.GetScene() is not None
            and self._editor.can_undo()
            and not self._changed(self._contents.of(self._node))
        )

    def _changed(self, now: tuple) -> bool:
        """Whether the segmentation, of which this is known, is not as the last write left it."""
        return self._stamps != stamps(self._node) if self._left is None else self._left != now

    def take_back(self) -> int:
        """Call it where it is `possible`; returns how many writes were taken back."""
        if self._widget is not None and self._widget_of(self._node) is self._widget:
            self._widget.undo()
        now = self._contents.of(self._node)
        if now == self._before:
            self._editor.forget()
        else:
            if self._changed(now):  # the widget has steps that came to nothing in the end
                self._widget.redo()
            # No widget had the state, or it has lost it: undo is off there, or it has shown
            # another segmentation meanwhile.
            self._editor.undo()
        count, self.written = self.written, 0
        return count
