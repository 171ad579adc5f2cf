"""What the sliding asks of a model, whatever network is inside. No torch here.

A model has two stages. `encode` sees the image of a window and never a prompt, so its result can
be cached and computed ahead. `predict` sees one encoded window and the prompts. SAM's networks do
nearly all of their work in `encode`, the built-in network nearly all of it in `predict`.

Slice order inside a window is always: before, centre, after (along the slide axis). A model that
was trained for one sliding direction is told nothing about the direction: `known` says it all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .boxes import Box
from .patches import KnownMasks


@dataclass(frozen=True, eq=False)
class Window:
    """Three neighbouring slices as the models receive them.

    planes : the slices before, centre and after, each float32 (H, W), finite, clipped to the
        intensity window of the stack. A stack reads each when it is asked for; nobody writes.
    spacing : (slice gap, row height, column width) in mm.
    intensity : (low, high), the values of `planes` at the ends of that window; those of the image
        wherever float32 can hold them.
    key : identifies stack and centre for caches.
    slice_keys : identify the voxels of each slice, for models that keep what they make of a slice
        for the other windows that hold it; empty where nobody knows.
    """

    planes: Sequence[np.ndarray]
    spacing: tuple[float, float, float]
    intensity: tuple[float, float]
    key: tuple
    slice_keys: tuple[Hashable, ...] = ()

    @cached_property
    def slices(self) -> np.ndarray:
        """All three, float32 (3, H, W); without a copy where they lie side by side."""
        return np.asarray(self.planes, np.float32)


@dataclass(frozen=True, eq=False)
class WindowPrompt:
    """Prompts of one window; boxes and points lie on its centre slice, in voxels of the slice.

    masks : what earlier windows said about the slices, or None: float32 (3, H, W) in 0..1, or
        `KnownMasks`, which gives that once it is needed.
    known : which of the three masks mean something.
    memory : what `remember` returned for the user's slice, or None; distance : slices from there to
        the centre.
    """

    box: Box | None = None
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    masks: np.ndarray | KnownMasks | None = None
    known: tuple[bool, bool, bool] = (False, False, False)
    memory: Any = None
    distance: int = 0


class CandidateLogits:
    """The logits of all candidates of a window, each made once it is asked for.

    A slide looks at few but candidate 0, and masks as large as a slice are not made for nothing.
    To be indexed like an array, float32 (C, 3, h, w), that nobody writes to; np.asarray makes all.
    What follows from the logits, such as their extents, is made in the same way.

    make : candidate -> float32 (3, h, w); known : those that are there already.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        make: Callable[[int], np.ndarray],
        known: Mapping[int, np.ndarray],
    ) -> None:
        self.shape = shape
        self._make, self._known = make, dict(known)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: Any) -> np.ndarray:
        number, *rest = where if isinstance(where, tuple) and where else (where,)
        if not isinstance(number, (int, np.integer)):
            return np.asarray(self)[where]
        return self._candidate(range(len(self))[number])[tuple(rest)]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array([self._candidate(number) for number in range(len(self))], dtype)

    def _candidate(self, number: int) -> np.ndarray:
        if number not in self._known:
            self._known[number] = self._make(number)
        return self._known[number]


@dataclass(frozen=True, eq=False)
class WindowPrediction:
    """Candidate masks of the three slices of a window.

    logits : float32 (C, 3, h, w) at the resolution of the slice, > 0 inside. They cover the part
        of the slice that starts at `corner` (row, column); everything else is background. They may
        be made on demand.
    corner : (row, column) of logits[..., 0, 0] in the slice.
    quality : float32 (C,), predicted IoU of each candidate, 0..1.
    presence : float32 (3,), probability that the object is on each slice, or None.
    shape : (H, W) of the slice.
    extents : int (C, 3, 4), a part of each slice's logits (top, left, bottom, right; the last two
        exclusive) outside of which all are -`patches.REMOTE` or less; None where they have not been
        looked for. A GPU finds them at once. They may be found on demand, too.
    """

    logits: np.ndarray | CandidateLogits
    corner: tuple[int, int]
    quality: np.ndarray
    shape: tuple[int, int]
    presence: np.ndarray | None = None
    extents: np.ndarray | CandidateLogits | None = None

    def full(self, candidate: int, background: float = -20.0) -> np.ndarray:
        """The logits of one candidate on the whole slices: float32 (3, H, W)."""
        out = np.full((3, *self.shape), background, np.float32)
        y, x = self.corner
        height, width = self.logits.shape[-2:]
        out[:, y : y + height, x : x + width] = self.logits[candidate]
        return out


@dataclass(frozen=True)
class ModelTraits:
    """What a model declares about itself; the sliding and the reports read it.

    prompts : subset of {"box", "point", "negative", "mask"} that the model was trained for.
    box_margin : how much of the enlargement of the next box it needs, 0..1: 0 where it looks
        beyond boxes by itself.
    """

    name: str
    licence: str
    input_size: int
    region: str  # "slice": sees whole slices; "crop": sees a region around the prompt
    resize: str  # "nearest" or "antialias"
    intensity: str  # how a window is scaled, for people
    prompts: frozenset[str] = field(default_factory=frozenset)
    candidates: int = 3
    box_margin: float = 1.0


@runtime_checkable
class SliceModel(Protocol):
    """The one interface between the sliding and any network.

    A model may also offer what the functions at the end of this file, and `rehearsal`, ask for.
    """

    traits: ModelTraits
    device: str
    precision: str

    def encode(self, windows: Sequence[Window]) -> list[Any]:
        """Encode windows in one batch; the results have `nbytes` and go to the cache."""

    def predict(self, embedding: Any, prompt: WindowPrompt) -> WindowPrediction:
        """Predict the candidates of one encoded window.

        Candidate 0 is the model's single best answer where it has one."""

    def remember(self, embedding: Any, mask: np.ndarray) -> Any:
        """What to carry from a slice whose mask is trusted (bool (H, W), centre slice); or None."""


def windows_at_once(model: SliceModel) -> int:
    """How many windows the model would like to encode in one call now: at least 1.

    Models to which a batch is worth more than its windows have a method of this name.
    """
    ask = getattr(model, "windows_at_once", None)
    return 1 if ask is None else max(1, int(ask()))


def remembers(model: SliceModel) -> bool:
    """Whether `remember` may return anything: else no window need be encoded for it.

    Models without a memory have a false attribute of this name.
    """
    return bool(getattr(model, "remembers", True))


def encodes_in_background(model: SliceModel) -> bool:
    """Whether `encode` returns while another processor still works on it.

    Such models have a true attribute of this name.
    """
    return bool(getattr(model, "encodes_in_background", False))


def encodes_early(model: SliceModel) -> bool:
    """Whether a window is worth encoding before anything is marked on it: that takes the time.

    Such models have a method `encode_early(window, cancelled)`, which gives what `encode` gives, or
    None where `cancelled()` was true before it was done.
    """
    return hasattr(model, "encode_early")


def prompts_at_once(model: SliceModel) -> int:
    """How many prompted windows the model would like to predict in one call: at least 1.

    Models to which that is worth something have a method of this name, and `predict_many`.
    """
    ask = getattr(model, "prompts_at_once", None)
    return 1 if ask is None else max(1, int(ask()))


def objects_at_once(model: SliceModel) -> int:
    """How many objects are worth sliding along side by side: at least 1.

    On a GPU as many as give all the windows that the model takes in one call, two for an object. A
    CPU is busy with one object, and gets it finished sooner alone.
    """
    return 1 if model.device == "cpu" else max(1, prompts_at_once(model) // 2)


def predict_many(
    model: SliceModel, embeddings: Sequence[Any], prompts: Sequence[WindowPrompt]
) -> list[WindowPrediction]:
    """Predict several windows, each with its own prompt: in one call where the model can.

    A model that can has a method `predict_many(embeddings, prompts)`. It answers what `predict`
    answers for each of them, to within rounding, however many come together.
    """
    together = getattr(model, "predict_many", None)
    if together is not None:
        return together(embeddings, prompts)
    return [model.predict(*each) for each in zip(embeddings, prompts, strict=True)]
