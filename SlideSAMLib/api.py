"""Segmenting a numpy volume with one call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .prompts import SlicePrompt
from .protocol import SliceModel
from .sliding.slide import Slider
from .sliding.slide_types import FinishedSlice, SlideSettings
from .stack import Stack
from .window import EmbeddingCache


@dataclass(frozen=True, eq=False)
class SlideResult:
    """What `segment` found.

    mask : bool, shape of the volume.
    confidence : slice index along `axis` -> 0..1, for every slice that was predicted.
    stops : why each direction ended: "backward", "forward", and for every stretch between two
        prompted slices that are not neighbours a key such as "12-20".
    voxels : slice index -> number of voxels of the mask, for every slice that was predicted.
    axis : the slide axis.
    seconds : {"encode", "predict", "total"}; the total holds the other two.
    model, device, precision : names of what was used.
    intensity : (low, high), the intensity window in image units that was used.
    """

    mask: np.ndarray
    confidence: dict[int, float]
    stops: dict[str, str]
    voxels: dict[int, int]
    axis: int
    seconds: dict[str, float]
    model: str
    device: str
    precision: str
    intensity: tuple[float, float]


def segment(
    volume: np.ndarray,
    prompts: SlicePrompt | Iterable[SlicePrompt],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    axis: int = 0,
    first: int | None = None,
    last: int | None = None,
    model: SliceModel | str | os.PathLike | None = None,
    window: Sequence[float] | None = None,
    settings: SlideSettings | None = None,
    cache: EmbeddingCache | None = None,
    progress: Callable[[int, int | None, FinishedSlice], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SlideResult:
    """Segment one object of a volume from prompts on one or more slices.

    Parameters
    ----------
    volume : array (K, J, I), any real dtype; never changed.
    prompts : one or more SlicePrompt; their index counts along `axis`, x and y are column and
        row of `volume.take(index, axis)`.
    spacing : (sk, sj, si) in mm, along the axes of `volume`.
    axis : slide axis, 0 to 2.
    first, last : limits of the slide along `axis`, inclusive.
    model : from `load_model`, or a name or file for it; None loads the built-in one. Any other
        `protocol.SliceModel` will do.
    window : (low, high) intensity window in image units; None chooses one, see
        `intensity.automatic_window` and, for the prompts, `sliding.seen`.
    settings : see SlideSettings.
    cache : where embeddings are kept between calls; it helps only with stacks that share a key.
    progress : called as progress(done, total, finished) after every slice; total may be None.
    cancelled : asked before every window; True ends the work and keeps the finished slices.

    Raises
    ------
    InputError
        The volume, a prompt, the limits or a setting cannot be used.
    ModelError
        The model cannot be loaded, or the memory of its device is too small for a window.
    """
    start = time.perf_counter()
    stack = Stack(volume, axis=axis, spacing=spacing, window=window)
    result = segment_stack(stack, prompts, first, last, model, settings, cache, progress, cancelled)
    result.seconds["total"] = time.perf_counter() - start
    return result


def segment_stack(
    stack: Stack,
    prompts: SlicePrompt | Iterable[SlicePrompt],
    first: int | None = None,
    last: int | None = None,
    model: SliceModel | str | os.PathLike | None = None,
    settings: SlideSettings | None = None,
    cache: EmbeddingCache | None = None,
    progress: Callable[[int, int | None, FinishedSlice], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SlideResult:
    """`segment` for those who have the stack of the volume; the same arguments and errors."""
    start = time.perf_counter()
    prompts = [prompts] if isinstance(prompts, SlicePrompt) else prompts
    slider = Slider(stack, prompts, _loaded(model), first, last, settings, cache, cancelled)
    mask = np.zeros(stack.volume_shape, bool)
    stacked = stack.from_volume(mask)  # a view: what is written to it is in the mask
    confidence: dict[int, float] = {}
    for finished in slider.run():
        stacked[finished.index] = finished.mask
        confidence[finished.index] = finished.confidence
        if progress is not None:
            progress(finished.done, finished.total, finished)
    return _result(slider, mask, confidence, time.perf_counter() - start)


def _result(
    slider: Slider, mask: np.ndarray, confidence: dict[int, float], seconds: float
) -> SlideResult:
    stack, model = slider.stack, slider.predictor.model
    stacked = stack.from_volume(mask)
    order = sorted(confidence)
    return SlideResult(
        mask=mask,
        confidence={index: confidence[index] for index in order},
        stops={name: str(stop) for name, stop in slider.stops.items()},
        voxels={index: int(np.count_nonzero(stacked[index])) for index in order},
        axis=stack.axis,
        seconds={**slider.predictor.seconds, "total": seconds},
        model=model.traits.name,
        device=model.device,
        precision=model.precision,
        intensity=stack.intensity,
    )


def _loaded(model: SliceModel | str | os.PathLike | None) -> SliceModel:
    if isinstance(model, SliceModel):
        return model
    if not isinstance(model, str | os.PathLike | None):
        raise InputError(f"The model must be loaded, or a name or a file, not {model!r}.")
    from .models import load_model

    return load_model("builtin" if model is None else model)
