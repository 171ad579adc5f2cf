"""What a user waits for: the first mask, a correction, one slice, a whole object."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from ..prompts import SlicePrompt
from ..protocol import SliceModel, WindowPrompt, predict_many
from ..session import Session
from ..sliding.slide import Slider
from ..stack import Stack
from .clock import finish, medians
from .peak import peak_beyond
from .phantom import Phantom

DECODES = 7


def measure(
    model: SliceModel,
    phantom: Phantom,
    device: torch.device,
    rounds: int = 3,
    limited: bool = False,
) -> dict[str, Any]:
    """Time one model on one phantom.

    limited : the slide is told where the column ends; otherwise the stop rules find it out.

    `first_mask_s`: box drawn, nothing encoded yet; the very first one, and the median of those
    after it. `refine_s`: a point more on a slice that is encoded. `decode_s`: one window that is
    encoded, without the sliding around it; `decode_two_s`: half the time of two in one call, as
    both directions of a slide can be asked. `run_s`: from the box to the last slice, `slices` of
    them; `peak_mib`: memory of that run beyond what was there before.
    """
    firsts, refined = [], []
    for n in range(rounds + 1):
        session = Session(Stack(phantom.volume), model)
        index = max(phantom.middle - n, 0)
        firsts.append(_preview(session, phantom.prompt(index), device))
        refined.append(_preview(session, phantom.points(index), device))
        refined.append(_preview(session, phantom.points(index, extra=True), device))
    found: dict[str, Any] = {
        "model": model.traits.name,
        "precision": model.precision,
        "shape": list(phantom.volume.shape),
        "first_mask_s": round(statistics.median(firsts[1:]), 4),
        "first_mask_cold_s": round(firsts[0], 4),
        "refine_s": round(statistics.median(refined[2:]), 4),
        **_decode(model, phantom, device),
    }
    run: dict[str, Any] = {}
    peak = peak_beyond(lambda: run.update(_run(model, phantom, device, limited)), device)
    return {**found, **run, "peak_mib": None if peak is None else round(peak)}


def _preview(session: Session, prompt: SlicePrompt, device: torch.device) -> float:
    finish(device)
    start = time.perf_counter()
    session.set_prompt(prompt)
    session.preview(prompt.index)
    return time.perf_counter() - start  # the masks are on the host


def _decode(model: SliceModel, phantom: Phantom, device: torch.device) -> dict[str, float]:
    stack = Stack(phantom.volume)
    centres = [phantom.middle, min(phantom.middle + 1, stack.slices - 1)]
    two = model.encode(stack.windows(centres))
    prompts = [WindowPrompt(box=phantom.prompt().box)] * 2
    work = {
        "decode_s": lambda: model.predict(two[0], prompts[0]),
        "decode_two_s": lambda: predict_many(model, two, prompts),
    }
    taken = medians(work, device, DECODES)
    one, both = taken["decode_s"].clock, taken["decode_two_s"].clock
    return {"decode_s": round(one, 5), "decode_two_s": round(both / 2, 5)}


def _run(
    model: SliceModel, phantom: Phantom, device: torch.device, limited: bool
) -> dict[str, Any]:
    limits = (phantom.first, phantom.last) if limited else (None, None)
    finish(device)
    start = time.perf_counter()
    stack = Stack(phantom.volume)
    slider = Slider(stack, [phantom.prompt()], model, *limits)
    done = {finished.index for finished in slider.run() if finished.mask.any()}
    seconds = time.perf_counter() - start
    spent = slider.predictor.seconds
    return {
        "slices": len(done),
        "run_s": round(seconds, 3),
        "slice_s": round(seconds / max(len(done), 1), 4),
        "encode_share": round(spent["encode"] / seconds, 3),
        "predict_share": round(spent["predict"] / seconds, 3),
    }
