"""The prompt of a slice that was corrected, for the sessions to come. No Qt, no MRML.

A correction refines the mask that its slice had. The marks do not tell of that mask, and where they
are negative points only, they are no prompt without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Corrected:
    """A SlideSAMLib.SlicePrompt, small enough to wait with its result.

    keys : the Mark.key of all marks that it was made from.
    bits, shape : its mask, packed, and (H, W); None where it has none.
    """

    keys: frozenset
    box: tuple[float, float, float, float] | None
    points: Sequence[tuple[float, float]]
    labels: Sequence[int]
    bits: np.ndarray | None
    shape: tuple[int, int] | None

    @staticmethod
    def of(prompt: Any, keys: frozenset) -> Corrected:
        mask = prompt.mask
        bits, shape = (None, None) if mask is None else (np.packbits(mask), mask.shape)
        return Corrected(keys, prompt.box, prompt.points, prompt.labels, bits, shape)

    def prompt(self, index: int) -> Any:
        """The same as the prompt of a slice."""
        from SlideSAMLib import SlicePrompt

        mask = None
        if self.bits is not None:
            voxels = np.unpackbits(self.bits, count=self.shape[0] * self.shape[1])
            mask = voxels.reshape(self.shape).view(bool)
        return SlicePrompt(index, self.box, self.points, self.labels, mask)


def keys_of(marks: Iterable[Any]) -> frozenset:
    """Equal for marks of a slice that say the same."""
    return frozenset(mark.key for mark in marks)
