"""The best weights of a run, by the Dice of whole volumes that are slid over.

The Dice of training windows says little about sliding. `best.safetensors` holds the averaged
weights of the best evaluation so far; its notes say which, so that file and value never disagree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError
from ..evaluation.cases import Case, check_structures, read_manifest
from ..evaluation.protocols import FULL
from ..files.safetensors_files import read_safetensors
from .config import SelectConfig, TrainConfig
from .datasets import held_out_cases, read_dataset

if TYPE_CHECKING:
    from ..evaluation.report import Summary

VALUE = "volume_dice"  # in the curve and in the notes of the file
BEST = "best.safetensors"
CANDIDATE = "candidate.safetensors"  # while it is measured
Writing = Callable[[Path, dict[str, str]], None]  # writes the model of now, with these notes


def columns(config: SelectConfig | None) -> tuple[str, ...]:
    """Names of the figures in the curve: the Dice that chooses, and by prompt if there are several.

    The Dice that chooses is the mean over the prompts of the mean over the cases.
    """
    if config is None:
        return ()
    several = config.prompts if len(config.prompts) > 1 else ()
    return (VALUE, *(f"{VALUE}_{prompt}" for prompt in several))


class Selection:
    """Evaluates weights and keeps the best. Raises InputError where the cases cannot be used.

    best : Dice of best.safetensors; None where there is none yet.
    """

    def __init__(self, config: TrainConfig, device: str) -> None:
        self.path = Path(config.output) / BEST
        self.best: float | None = None
        self._config, self._device = config.select, device
        self._cases = _cases(config)
        # Here, so that a case that cannot be slid over is found now and not hours later.
        check_structures(self._cases, config.select.limit, config.select.min_voxels)
        # What makes the Dice of two evaluations comparable; a hash, since files are passed on.
        chosen = {k: v for k, v in asdict(config.select).items() if k not in ("steps", "minutes")}
        measured = json.dumps({**chosen, **_described(self._cases)}, sort_keys=True)
        self._note = hashlib.sha256(measured.encode()).hexdigest()

    def begin(self) -> None:
        """A new run: forget the best of an older one."""
        self.path.unlink(missing_ok=True)

    def resume(self) -> None:
        """Keep the best so far, if it was measured in the same way."""
        try:
            _, note = read_safetensors(self.path)
            self.best = float(note[VALUE]) if note["selection"] == self._note else None
        except (OSError, ValueError, KeyError):
            self.best = None

    def evaluate(self, write: Writing) -> dict[str, float]:
        """Measure the model that `write` writes; it becomes best.safetensors if it is the best.

        Returns the values of `columns`. torch's random numbers stay as they are.
        """
        candidate = self.path.with_name(CANDIDATE)
        write(candidate, {})
        # Without their names PyTorch would open all GPUs, those of other processes, too.
        own = [torch.cuda.current_device()] if self._device == "cuda" else None
        with torch.random.fork_rng(own):
            dice = {prompt: self._dice(candidate, prompt) for prompt in self._config.prompts}
        mean = float(np.mean(list(dice.values())))
        if self.best is None or mean > self.best:
            notes = {VALUE: repr(mean), "selection": self._note}
            write(self.path, notes)
            self.best = mean
        candidate.unlink()
        values = (mean, *dice.values())
        return dict(zip(columns(self._config), values, strict=False))

    def _dice(self, weights: Path, prompt: str) -> float:
        chosen = self._config
        how = (prompt, chosen.protocol, chosen.limit, chosen.min_voxels)
        return measure(self._cases, weights, *how, device=self._device).mean


def measure(
    cases: Sequence[Case],
    weights: Path,
    prompt: str = "box",
    protocol: str = FULL,
    limit: int = 3,
    min_voxels: int = 0,
    device: str = "auto",
) -> Summary:
    """Slide the model of a file over the cases, see `evaluation.runner.evaluate`."""
    from ..evaluation.report import summarise
    from ..evaluation.runner import evaluate
    from ..models import load_model

    model = load_model(weights, device)
    return summarise(evaluate(cases, model, prompt, protocol, limit, min_voxels))[0]


def _described(cases: Sequence[Case]) -> dict[str, list]:
    """What is measured of the cases, besides the structures that their settings name."""
    said = {"case ids": [case.id for case in cases]}
    if any(case.unlabelled is not None for case in cases):
        said["unlabelled"] = [case.unlabelled for case in cases]
    if any(case.parts for case in cases):
        said["regions"] = [sorted(case.names.values()) for case in cases]
    return said


def _cases(config: TrainConfig) -> list[Case]:
    chosen = config.select
    if chosen.manifest is None:
        sets = [read_dataset(described) for described in config.datasets]
        cases = held_out_cases(sets, config.held_out, chosen.cases)
    else:
        cases = read_manifest(chosen.manifest, chosen.ids)
        cases = cases[: chosen.cases or len(cases)]
    least = chosen.min_voxels
    usable = [case for case in cases if case.structures(1, least)]
    if not usable and chosen.manifest is None and least <= 1:
        raise InputError(
            "select cannot be used: none of the cases that are held out has a structure to select "
            "by; hold out more (`held_out`), or give select a `manifest`."
        )
    if not usable:
        raise InputError(f"No case to select by has a structure of {max(least, 1)} voxels or more.")
    return usable
