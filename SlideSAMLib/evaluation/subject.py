"""One structure made ready: its stacks, its prompt, and the measuring of any answer to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from . import metrics, protocols
from .cases import Case, CaseVolume, Structure
from .prompting import generator, make_prompt
from .results import Click, StructureResult


class Subject:
    """One structure of one case and the one prompt that it gets.

    Attributes
    ----------
    image, truth : stacks (S, H, W), the slide axis in front; truth is bool
    known : bool stack, False where nobody has labelled the voxel; None where all are labelled
    spacing : (gap, row, column) in mm
    prompt : SlicePrompt; kind : see `prompting.PROMPTS`
    first, last : the slices at the ends of the structure, as far as it is labelled

    Of an answer only what lies where somebody has labelled is measured.
    """

    def __init__(
        self, case: Case, structure: Structure, content: CaseVolume, kind: str, seed: int
    ) -> None:
        axis = content.axis
        self.case = case
        self.structure = structure
        self.content = content
        self.kind = kind
        self.image = np.moveaxis(content.volume, axis, 0)  # (K, J, I) -> (slice, row, column)
        truth = case.truth(content.labels, structure)
        self.truth = np.moveaxis(truth, axis, 0)  # (K, J, I) -> (slice, row, column)
        known = content.known
        self.known = None if known is None else np.moveaxis(known, axis, 0)  # as the others
        rest = [size for i, size in enumerate(content.spacing) if i != axis]
        self.spacing = (content.spacing[axis], rest[0], rest[1])
        self.first, self.last = metrics.extent(self.truth)
        random = generator(case.id, structure.value, seed)
        self.prompt = make_prompt(self.truth, kind, self.spacing, random)

    @cached_property
    def pieces(self) -> int:
        """Number of 3D pieces of the structure; voxels that share a corner belong together."""
        from scipy import ndimage

        truth = self.truth[self._measured(protocols.FULL)[0]]
        used = ndimage.find_objects(truth.view(np.uint8))[0]
        return int(ndimage.label(truth[used], np.ones((3, 3, 3)))[1])

    def judged(self, mask: np.ndarray) -> np.ndarray:
        """What lies of a bool stack (S, H, W) where somebody has labelled."""
        return mask if self.known is None else mask & self.known

    def _measured(self, protocol: str) -> tuple[slice | np.ndarray, tuple[float, float, float]]:
        """The slices over which the metrics are taken, and the spacing of the stack they make.

        Slices that nobody has labelled are left out; the others are as far apart as on average.
        """
        part = protocols.judged(protocol, self.truth)
        if self.known is None:
            return part, self.spacing
        places = np.arange(len(self.truth))[part]
        places = places[self.known[part].any(axis=(1, 2))]
        step = (places[-1] - places[0]) / max(len(places) - 1, 1) or 1.0
        return places, (float(self.spacing[0] * step), *self.spacing[1:])

    def result(
        self,
        method: str,
        protocol: str,
        mask: np.ndarray,
        seconds: float,
        confidence: Mapping[int, float] | None = None,
        stops: dict[str, str] | None = None,
        chosen: dict[str, metrics.Metric] | None = None,
        clicks: Sequence[Click] = (),
    ) -> StructureResult:
        """Measure an answer, a bool stack (S, H, W).

        confidence : slice index -> 0..1, or None for methods that state none.
        """
        mask = self.judged(mask)
        scores = self._scores(mask, confidence or {})
        part, spacing = self._measured(protocol)
        counts = metrics.count_slices(mask, self.truth)
        return StructureResult(
            case=self.case.id,
            value=self.structure.value,
            structure=self.structure.name,
            method=method,
            protocol=protocol,
            prompt=self.kind,
            axis=self.content.axis,
            slices=self.truth.shape[0],
            index=self.prompt.index,
            box=self.prompt.box,
            points=self.prompt.points,
            voxels=self.structure.voxels,
            pieces=self.pieces,
            first=self.first,
            last=self.last,
            metrics=metrics.measure(mask[part], self.truth[part], spacing, chosen),
            leaked_before=counts.leaked_before,
            leaked_after=counts.leaked_after,
            missed=counts.missed,
            predicted=int(np.count_nonzero(mask.any(axis=(1, 2)))),
            confidence=float(np.mean([s[1] for s in scores])) if scores else None,
            seconds=seconds,
            stops=stops or {},
            clicks=tuple(clicks),
            scores=scores,
        )

    def _scores(
        self, mask: np.ndarray, confidence: Mapping[int, float]
    ) -> tuple[tuple[int, float, float], ...]:
        """Confidence beside Dice, slice by slice; slices without a mask claim nothing."""
        return tuple(
            (index, round(float(sure), 4), round(metrics.dice(mask[index], self.truth[index]), 4))
            for index, sure in sorted(confidence.items())
            if mask[index].any()
        )
