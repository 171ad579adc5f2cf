"""Segments: making one with a name and a colour of its own, and what is saved with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import checks
from ..text import tr as _
from . import marks as marking
from . import prompt_set
from .lattice import Lattice

NAME = "Slide-SAM"
# Colours that stand out on a grey image, and from each other.
PALETTE = (
    (0.90, 0.62, 0.00),
    (0.34, 0.71, 0.91),
    (0.00, 0.75, 0.45),
    (0.95, 0.90, 0.25),
    (0.85, 0.37, 0.10),
    (0.80, 0.47, 0.75),
    (0.20, 0.40, 0.95),
    (0.95, 0.30, 0.45),
    (0.55, 0.90, 0.20),
    (0.40, 0.85, 0.80),
)


def add_segment(segmentation_node: Any) -> str:
    """Add an empty segment "Slide-SAM n" in a colour unlike the others; returns its id."""
    segmentation = segmentation_node.GetSegmentation()
    others = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    name = unused_name([segment.GetName() for segment in others])
    color = distinct_color([segment.GetColor() for segment in others])
    return segmentation.AddEmptySegment("", name, color)


def unused_name(names: Sequence[str]) -> str:
    """ "Slide-SAM n" with the smallest n that is not taken."""
    number = 1
    while f"{NAME} {number}" in names:
        number += 1
    return f"{NAME} {number}"


def distinct_color(used: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The colour of the palette that is farthest from all that are used (RGB in 0..1)."""
    if not used:
        return PALETTE[0]
    distance = np.linalg.norm(np.array(PALETTE)[:, None] - np.array(used)[None], axis=2).min(1)
    return PALETTE[int(np.argmax(distance))]


def save_marks(segmentation_node: Any, segment_id: str, marks: marking.Marks) -> None:
    """Keep the marks with the segment, in the scene and in .seg.nrrd files."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    segment.SetTag(marking.TAG, marks.to_json())


def saved_marks(segmentation_node: Any, segment_id: str) -> Any:
    """The prompts that are kept with a segment, or None where there are none.

    As marks.Marks where `save_marks` kept them, as prompt_set.PromptSet where the effect did.
    Raises ValueError where there is no such segment, or the saved text is damaged.
    """
    checks.segmentation_node(segmentation_node)
    checks.segment_id(segmentation_node.GetSegmentation(), segment_id)
    text = saved_text(segmentation_node, segment_id)
    if text == "":
        return None
    try:
        return marking.from_json(text)
    except ValueError:
        # Text of the effect does not depend on the voxels, so any lattice will do.
        nowhere = Lattice((0, 0, 0, 0, 0, 0), np.eye(4), np.eye(4))
        return prompt_set.from_json(text, nowhere)


def save_prompts(segmentation_node: Any, segment_id: str, prompts: prompt_set.PromptSet) -> None:
    """Keep a prompt set with the segment, in place of all that was kept."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    if len(prompts):
        segment.SetTag(marking.TAG, prompts.to_json())
    else:
        segment.RemoveTag(marking.TAG)


def saved_text(segmentation_node: Any, segment_id: str) -> str:
    """The text that is kept with a segment, "" where there is none.

    Raises ValueError where there is no such segment.
    """
    import vtk

    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    if segment is None:
        raise ValueError(
            _("There is no segment with the id '{segment_id}'.").format(segment_id=segment_id)
        )
    text = vtk.reference("")
    return str(text.get()) if segment.GetTag(marking.TAG, text) else ""
