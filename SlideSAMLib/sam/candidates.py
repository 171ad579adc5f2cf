"""The candidates of a SAM network at the size of the slice: the first at once, others on demand.

A slide looks at few but candidate 0, and a decoder's answer of 256 x 256 becomes 1024 x 1024 on a
large slice. So the other candidates stay on the device as the decoder made them, 2 MiB a window.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..compute.devices import on_host
from ..compute.memory import out_of_memory
from ..compute.own_settings import own_settings
from ..patches import REMOTE


class OtherCandidates:
    """The candidates of one window after candidate 0.

    held : (candidates - 1, 3, side, side) on a device, as the decoder made them; finished.
    shape : (H, W) of the slice. stream : the CUDA stream that made them, or None.
    """

    def __init__(
        self, held: Tensor, shape: tuple[int, int], stream: torch.cuda.Stream | None
    ) -> None:
        self.held = held
        self._shape, self._stream = shape, stream
        self._made: dict[int, list[np.ndarray]] = {}

    @property
    def nbytes(self) -> int:
        return self.held.numel() * self.held.element_size()

    def logits(self, number: int) -> np.ndarray:
        """Logits of a candidate on the slice, float32 (3, H, W), on the host."""
        return self._on_host(number)[0]

    def extents(self, number: int) -> np.ndarray:
        """Its extents, int32 (3, 4), see `WindowPrediction`."""
        return self._on_host(number)[1]

    def _on_host(self, number: int) -> list[np.ndarray]:
        if number not in self._made:
            self._made[number] = self._enlarged(self.held[number - 1][None])
        return self._made[number]

    def _enlarged(self, logits: Tensor) -> list[np.ndarray]:
        """Where a GPU has no room for it, the host does it: little has to come from there."""
        beside = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with own_settings(), beside:
            try:
                return [values[0] for values in on_host(*on_slice(logits, self._shape))]
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            return [values[0] for values in on_host(*on_slice(logits.cpu(), self._shape))]


def on_slice(logits: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Logits (B, 3, side, side) at the size of the slice, float32 (B, 3, H, W), and their extents.

    The extents, int32 (B, 3, 4), are those of `WindowPrediction`. The host is asked nothing.
    """
    # Antialiasing acts only where the slice is smaller than the network's output.
    full = F.interpolate(logits, shape, mode="bilinear", antialias=True).float()
    return full, _extents(full)


def _extents(logits: Tensor) -> Tensor:
    """`patches.extent_of` for logits (..., H, W): int32 (..., 4); the host is not asked."""
    near = logits > -REMOTE
    edges = []
    for lines in (near.any(-1), near.any(-2)):  # rows, columns
        count = lines.shape[-1]
        numbers = torch.arange(count, device=logits.device, dtype=torch.int32)
        first = torch.where(lines, numbers, count).amin(-1)
        edges.append((first, torch.where(lines, numbers, -1).amax(-1) + 1))
    (top, bottom), (left, right) = edges
    # Where nothing is near: an empty extent.
    return torch.stack([torch.minimum(top, bottom), torch.minimum(left, right), bottom, right], -1)
