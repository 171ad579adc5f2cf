"""Segmenting all prompted segments of a segmentation in one go. No Qt.

The prompts are those that the effect or the console keeps in the segments. `Batch` is made and
asked on the main thread; `Batch.task` is the work, which touches nothing of the scene, so it may
run on the worker. What it emits goes to `Batch.take` on the main thread, which writes each segment
as soon as it is finished; all of them are one step of undo.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np

from . import checks
from .effect.jobs import sentence
from .scene import segmenting, segments
from .scene.editing import Editor, Preparation
from .scene.lattice import Lattice
from .scene.prompt_set import PromptSet, from_json, slice_prompt
from .scene.source import signature_of
from .setup.library import missing_package
from .text import tr as _

OUTSIDE = _("Its prompts lie outside the volume: mark the object again.")


@dataclass(frozen=True, eq=False)
class Entry:
    """A segment with prompts."""

    segment_id: str
    name: str
    prompts: PromptSet


@dataclass(frozen=True, eq=False)
class Advance:
    """How far the work is: entry number (from 0) and finished slices of it."""

    number: int
    slices: int


@dataclass(frozen=True, eq=False)
class Answer:
    """The mask of an entry, bool (K, J, I) on the batch's part; or the error that it ended with."""

    entry: Entry
    mask: np.ndarray | None
    error: Exception | None = None


@dataclass
class Report:
    """written : ids of the segments that were written. failed : segment id -> sentence."""

    written: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def source_volume(segmentation_node: Any) -> Any:
    """The volume that gave the segmentation its geometry, or None."""
    role = segmentation_node.GetReferenceImageGeometryReferenceRole()
    return segmentation_node.GetNodeReference(role)


class Inline:
    """Stands in for a job where the work is done at once, on the calling thread."""

    def __init__(self, batch: Batch, cancelled: Callable[[], bool] | None = None) -> None:
        checks.function("cancelled", cancelled)
        self.emit = batch.take
        self.cancelled = cancelled or (lambda: False)


class Batch:
    """All prompted segments of a segmentation on one volume.

    volume_node : None for the one that gave the segmentation its geometry.
    mode : "add" to the segments, or "replace" what they have.
    widget_of : see `segmenting.UndoStep`, which is there as `undo`.
    Raises ValueError or RuntimeError with a sentence; the scene is then as it was.
    """

    def __init__(
        self,
        editor: Editor,
        segmentation_node: Any,
        volume_node: Any,
        mode: str = "add",
        widget_of: Callable[[Any], Any] = lambda segmentation_node: None,
    ) -> None:
        checks.mode(mode)
        checks.segmentation_node(segmentation_node)
        if volume_node is None:
            volume_node = source_volume(segmentation_node)
        if volume_node is None:
            raise ValueError(_("Choose the volume that the prompts were made on."))
        segmenting.check_nodes(volume_node, segmentation_node, None)
        self.editor, self.mode = editor, mode
        self.segmentation_node, self.volume_node = segmentation_node, volume_node
        editor.point_at(segmentation_node, volume_node)
        self._preparation = Preparation(segmentation_node, volume_node)
        try:
            self._volume, self.part = editor.source()
            self._signature = signature_of(volume_node, self.part)
            self.entries, damaged = _entries(segmentation_node, self.part)
            if not self.entries and not damaged:
                raise ValueError(
                    _(
                        "No segment of this segmentation has prompts: mark the objects with the "
                        "Slide-SAM effect of the Segment Editor, one segment each."
                    )
                )
        except BaseException:
            self._preparation.revert()
            raise
        self.undo = segmenting.UndoStep(editor, segmentation_node, widget_of)
        self.report = Report(failed=damaged)

    def task(
        self, load: Callable[[], Any], cache: Callable[[], Any], again: bool = False
    ) -> Callable[[Any], None]:
        """The work, for a job with `emit` and `cancelled`.

        load, cache : give the model, and where its embeddings are kept.
        again : raise where the memory of a GPU is too small. The work is there to be started again
            then, as `retreat.on_any_device` does; it goes on with what has no answer yet.
        """
        voxels, part = self._volume, self.part
        left, key = dict(enumerate(self.entries)), self._signature

        def perform(job: Any) -> None:
            try:
                model = load()
                from SlideSAMLib.protocol import objects_at_once
            except ImportError as error:
                raise missing_package(error) from error
            stack_of = lru_cache(partial(_stack, voxels, part, key))
            slider = partial(_slider, stack_of, part, model, cache(), job.cancelled)

            def answer(number: int, mask: np.ndarray | None, error: Exception | None) -> None:
                job.emit(Answer(left.pop(number), mask, error))

            slide = partial(_slide, part=part, slider=slider, job=job, answer=answer)
            for group in _groups(list(left.items()), objects_at_once(model)):
                _slide_all(group, slide, left, job, again)

        return perform

    def run(
        self,
        load: Callable[[], Any],
        cache: Callable[[], Any],
        cancelled: Callable[[], bool] | None,
    ) -> None:
        """Do it all at once, on the calling thread."""
        try:
            self.task(load, cache)(Inline(self, cancelled))
        finally:
            self.finish()

    def finish(self) -> None:
        """Call it when the task has ended: where nothing was written, the scene is as it was."""
        if self.report.written:
            self.undo.settle()
        else:
            self._preparation.revert()

    def take(self, event: Any) -> None:
        """Write a finished segment; other events are passed over. Raises nothing of its own."""
        if not isinstance(event, Answer):
            return
        error = event.error
        if error is None:
            try:
                self._write(event)
            except Exception as failed:  # the timer that calls this must see the other events
                _log(failed)
                error = failed
        if error is None:
            self.report.written.append(event.entry.segment_id)
        else:
            self.report.failed[event.entry.segment_id] = sentence(error)

    def _write(self, answer: Answer) -> None:
        segment_id = answer.entry.segment_id
        segmenting.check_unchanged(
            self.editor, self.volume_node, self.segmentation_node, self._signature, segment_id
        )
        if not answer.mask.any():
            raise RuntimeError(_("Nothing was found: mark it with a box, or with more points."))
        found = self.editor.writable(answer.mask, self._volume, self.part)
        if found is None:
            raise RuntimeError(_("The masking settings leave out everything that was found."))
        with self.undo.writing():
            self.segmentation_node.CreateDefaultDisplayNodes()
            self.editor.write(segment_id, *found, self.mode == "replace")


def _entries(segmentation_node: Any, part: Lattice) -> tuple[list[Entry], dict[str, str]]:
    """The segments with a positive prompt, in their order; and what cannot be read."""
    entries, damaged = [], {}
    segmentation = segmentation_node.GetSegmentation()
    for number in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(number)
        text = segments.saved_text(segmentation_node, segment_id)
        if not text:
            continue
        try:
            prompts = from_json(text, part)
        except ValueError as error:
            damaged[segment_id] = str(error)
            continue
        if any(mark.kind != "point" or mark.label for mark in prompts.marks):
            name = segmentation.GetNthSegment(number).GetName()
            entries.append(Entry(segment_id, name, prompts))
    return entries, damaged


def slide_axes(prompts: PromptSet) -> list[int]:
    """The axes to slide along: those of the orientations in which something was marked."""
    return sorted({m.axis for m in prompts.marks if m.kind != "point" or m.label})


def _groups(entries: list, most: int) -> Iterator[list]:
    for start in range(0, len(entries), most):
        yield entries[start : start + most]


@dataclass(eq=False)
class _Run:
    """An entry and its slider along one axis; what it found, in the shape of the part."""

    number: int
    entry: Entry
    slider: Any
    mask: np.ndarray


def _log(error: Exception) -> None:
    """What is no sentence of ours is for the log, too."""
    if not isinstance(error, ValueError | RuntimeError):
        traceback.print_exception(error)


def _slide_all(
    group: list[tuple[int, Entry]],
    slide: Callable[[list], None],
    left: dict[int, Entry],
    job: Any,
    again: bool,
) -> None:
    """Slide side by side, or else one by one: an entry that fails must not stop the others.

    left : the entries without an answer. again : as in `Batch.task`.
    """
    if job.cancelled():
        return
    from SlideSAMLib.compute.memory import out_of_memory

    try:
        slide(group)
        return
    except Exception as error:
        if again and out_of_memory(error):
            raise
        _log(error)
        failed = error.with_traceback(None)  # which holds what the try had on the GPU
    if len(group) > 1:
        for each in group:
            if each[0] in left:
                _slide_all([each], slide, left, job, again)
    elif not job.cancelled():
        job.emit(Answer(left.pop(group[0][0]), None, failed))


def _slide(
    group: list[tuple[int, Entry]],
    part: Lattice,
    slider: Callable[..., Any],
    job: Any,
    answer: Callable[[int, np.ndarray | None, Exception | None], None],
) -> None:
    """Answer some entries, which are slid along side by side. Runs on the worker.

    Cancelled, those that are not finished get no answer. Raises whatever the model raises.
    """
    from SlideSAMLib.sliding.together import slide_together

    runs: list[_Run] = []
    for number, entry in group:
        try:
            made = [slider(entry.prompts, axis) for axis in slide_axes(entry.prompts)]
            if not all(made):
                raise ValueError(OUTSIDE)
        except (ValueError, RuntimeError) as error:
            answer(number, None, error)
            continue
        runs += [_Run(number, entry, s, np.zeros(part.shape, bool)) for s in made]
    open_runs, done = list(runs), dict.fromkeys((number for number, _ in group), 0)
    for place, finished in slide_together([run.slider for run in runs]):
        run = runs[place]
        if finished is not None:
            run.slider.stack.from_volume(run.mask)[finished.index] = finished.mask
            done[run.number] += 1
            job.emit(Advance(run.number, done[run.number]))
            continue
        open_runs.remove(run)
        if not job.cancelled() and all(run.entry is not other.entry for other in open_runs):
            mask, *others = [other.mask for other in runs if other.entry is run.entry]
            for other in others:
                mask |= other
            answer(run.number, mask, None)


def _stack(voxels: np.ndarray, part: Lattice, key: Any, axis: int) -> Any:
    """The volume along an axis; made once for all entries, as that looks at every voxel."""
    from SlideSAMLib import Stack

    # (I, J, K) to the array axes (K, J, I). One key: the embeddings are shared by all segments.
    return Stack(voxels, axis=2 - axis, spacing=part.spacing, key=key)


def _slider(
    stack_of: Callable[[int], Any],
    part: Lattice,
    model: Any,
    cache: Any,
    cancelled: Callable[[], bool],
    prompts: PromptSet,
    axis: int,
) -> Any:
    """The slider of some prompts along an axis, or None where nothing is marked on its slices."""
    from SlideSAMLib.sliding.slide import Slider

    on_slices = [
        slice_prompt(index, marks, part, axis)
        for index, marks in prompts.on_slices(part, axis).items()
        if any(m.axis == axis and (m.kind != "point" or m.label) for m in marks)
    ]
    if not on_slices:
        return None
    return Slider(stack_of(axis), on_slices, model, cache=cache, cancelled=cancelled)
