"""Half precision against float32: on masks of real volumes, and on logits of random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compute.devices import precision_name
from ..evaluation.metrics import dice
from ..protocol import SliceModel, WindowPrompt
from ..sam.network import SlideSam
from ..stack import Stack
from .phantom import Phantom
from .subjects import as_model


def on_volumes(
    models: Sequence[SliceModel], manifest: Path, cases: Sequence[str] | None, limit: int
) -> dict[str, Any]:
    """Dice of the second model's masks with the first one's, on the cases of a manifest.

    Each of the `limit` largest structures of a case is prompted with a box, and slid through to
    its end; nothing is told of its extent. Structures where both masks are empty are left out.
    """
    from ..evaluation import cases as catalogue

    scores: dict[str, list[float]] = {}
    for case in catalogue.read_manifest(manifest, cases, verify=False):
        content = case.load()
        for structure in catalogue.structures(content.labels, case.names, limit):
            masks = [_mask(model, case, structure, content) for model in models]
            if masks[0].any() or masks[1].any():
                scores.setdefault(case.id, []).append(dice(*masks))
    every = [score for each in scores.values() for score in each]
    return {
        "model": models[0].traits.name,
        "precisions": [model.precision for model in models],
        "structures": len(every),
        "mean_dice": round(float(np.mean(every)), 5) if every else None,
        "least_dice": round(min(every), 5) if every else None,
        "cases": {name: round(float(np.mean(each)), 5) for name, each in scores.items()},
    }


def _mask(model: SliceModel, case: Any, structure: Any, content: Any) -> np.ndarray:
    from ..api import segment
    from ..evaluation.subject import Subject

    subject = Subject(case, structure, content, "box", seed=0)
    return segment(subject.image, subject.prompt, spacing=subject.spacing, model=model).mask


def on_logits(
    name: str, network: SlideSam, device: torch.device, dtype: torch.dtype, phantom: Phantom
) -> dict[str, Any]:
    """How far the logits of a network in `dtype` are from those in float32, on one window.

    `error`: norm of the difference over the norm; `same_sign`: share of the voxels that are on
    the same side of 0, so in the same mask, though random weights make masks of no meaning.
    """
    window = Stack(phantom.volume).window(phantom.middle)
    prompt = WindowPrompt(box=phantom.prompt().box)
    answers = []
    for each in (torch.float32, dtype):
        model = as_model(network, name, device, each)
        (embedding,) = model.encode([window])
        answers.append(model.predict(embedding, prompt).logits[0])  # of the single-mask token
    exact, rounded = answers
    return {
        "model": f"{name}, random weights",
        "precisions": ["float32", precision_name(dtype)],
        "error": float(f"{np.linalg.norm(rounded - exact) / np.linalg.norm(exact):.2g}"),
        "same_sign": round(float(np.mean((rounded > 0) == (exact > 0))), 5),
    }
