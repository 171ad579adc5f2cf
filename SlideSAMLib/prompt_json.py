"""Prompts as JSON: for files, for the command line and for saving a scene. No torch here.

One object per prompted slice: {"slice": 57, "box": [x0, y0, x1, y1], "points": [[x, y]],
"labels": [1], "mask": {"shape": [H, W], "runs": [...]}}; what is not marked is left out. `runs`
are the lengths of alternating runs of unset and set voxels, row by row, unset first.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import InputError
from .prompts import SlicePrompt

FIELDS = {"slice", "box", "points", "labels", "mask"}
MOST_VOXELS = 1 << 30  # of a mask; a line of text could ask for more memory than there is


def prompts_to_json(prompts: Iterable[SlicePrompt]) -> str:
    """Prompts as a JSON list, one object each, in the given order."""
    return json.dumps([_to_object(prompt) for prompt in prompts])


def prompts_from_json(text: str | list) -> list[SlicePrompt]:
    """Prompts from JSON text, or from the list that it stands for.

    Raises InputError where the text is no such list or a prompt cannot be used.
    """
    if isinstance(text, str):
        text = text.removeprefix("\ufeff")  # some editors begin files with a byte order mark
    try:
        objects = json.loads(text) if isinstance(text, str | bytes) else text
    except (ValueError, RecursionError) as error:
        raise InputError(f"The prompts are not valid JSON: {error}.") from None
    if not isinstance(objects, list) or not objects:
        raise InputError('The prompts must be a JSON list such as [{"slice": 57, "box": [...]}].')
    return [_from_object(each, place) for place, each in enumerate(objects)]


def _to_object(prompt: SlicePrompt) -> dict[str, Any]:
    out: dict[str, Any] = {"slice": prompt.index}
    if prompt.box is not None:
        out["box"] = list(prompt.box)
    if prompt.points:
        out["points"] = [list(point) for point in prompt.points]
        out["labels"] = list(prompt.labels)
    if prompt.mask is not None:
        out["mask"] = mask_to_object(prompt.mask)
    return out


def _from_object(entry: Any, place: int) -> SlicePrompt:
    if not isinstance(entry, dict) or "slice" not in entry:
        raise InputError(
            f'Prompt {place} must be a JSON object with a "slice", not {reprlib.repr(entry)}.'
        )
    unknown = sorted(set(entry) - FIELDS)
    if unknown:
        raise InputError(
            f"Prompt {place} has the unknown field {unknown[0]!r}: known are "
            f"{', '.join(sorted(FIELDS))}."
        )
    try:
        return SlicePrompt(
            index=entry["slice"],
            box=entry.get("box"),
            points=entry.get("points"),
            labels=entry.get("labels"),
            mask=None if entry.get("mask") is None else mask_from_object(entry["mask"]),
        )
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(
            f"Prompt {place} cannot be read ({error}): {reprlib.repr(entry)}."
        ) from None


def mask_to_object(mask: np.ndarray) -> dict[str, Any]:
    """A mask, bool (H, W), as a JSON object: its shape, and run lengths that start with False."""
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    runs = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return {"shape": list(mask.shape), "runs": [0, *runs] if flat[0] else runs}


def mask_from_object(entry: dict[str, Any]) -> np.ndarray:
    """What `mask_to_object` wrote, as bool (H, W).

    Raises ValueError, KeyError, TypeError or OverflowError where it is something else.
    """
    height, width = (int(n) for n in entry["shape"])
    runs = np.array(entry["runs"], np.int64)
    voxels = height * width
    if height > 0 and voxels > MOST_VOXELS:
        raise ValueError(f"a mask of {height} x {width} voxels is too large")
    # Each by itself, too: sums of such numbers start again at 0, and NumPy then writes anywhere.
    wrong = height < 1 or width < 1 or ((runs < 0) | (runs > voxels)).any()
    if wrong or runs.sum() != voxels:
        raise ValueError("the runs of the mask do not fill its shape")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)
