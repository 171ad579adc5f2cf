"""Sessions on small volumes, for tests."""

from typing import Any

import numpy as np

from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.session import Session
from SlideSAMLib.stack import Stack
from Testing.fakes import ThresholdModel, block_volume

BOX = (10, 8, 24, 19)
PROMPT = SlicePrompt(6, box=BOX)


def new_session(
    volume: np.ndarray | None = None, model: Any = None, axis: int = 0, **options: Any
) -> Session:
    """A session on a volume, that of `block_volume` where none is given."""
    volume = block_volume()[0] if volume is None else volume
    stack = Stack(volume, axis=axis, window=(0, 100))
    return Session(stack, model or ThresholdModel(), **options)


def two_parts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two blocks side by side on the slices 2 to 15: (volume, left mask, right mask)."""
    volume, left = block_volume((18, 30, 40), (2, 15), (8, 19), (4, 14))
    right = block_volume((18, 30, 40), (2, 15), (8, 19), (22, 34))[1]
    volume[right] = 100
    return volume, left, right
