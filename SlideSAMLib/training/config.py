"""The training's settings, read from one YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from ..errors import InputError


@dataclass
class TrainConfig:
    """Everything a training run depends on.

    output : folder of the run (checkpoint, curve, final weights).
    data : folder of the training manifest, or None for invented shapes only.
    steps : optimiser steps; with `minutes` the schedule follows the clock instead.
    batch : windows per step and process.
    sources : share of each family of volumes: shapes, label_maps, regions, real.
    """

    output: str
    data: str | None = None
    seed: int = 1
    steps: int = 10_000
    minutes: float | None = None
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: int = 200
    average: float = 0.998
    shapes: int = 100
    precision: str = "bf16-mixed"
    threads: int = 1
    log_every: int = 50
    save_minutes: float = 5.0
    start_from: str | None = None
    sources: dict[str, float] = field(
        default_factory=lambda: {"shapes": 0.35, "label_maps": 0.15, "regions": 0.2, "real": 0.3}
    )
    network: dict = field(default_factory=dict)


def read_config(path: Path) -> TrainConfig:
    """Read a YAML file; relative paths in it are relative to the working folder.

    Raises InputError for a missing or broken file and for settings that do not exist.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"The configuration {path} cannot be read: {error}.") from None
    if not isinstance(values, dict) or "output" not in values:
        raise InputError(f"The configuration {path} must name at least the folder `output`.")
    unknown = sorted(set(values) - {f.name for f in fields(TrainConfig)})
    if unknown:
        raise InputError(f"The configuration {path} has unknown settings: {', '.join(unknown)}.")
    config = TrainConfig(**values)
    if config.steps < 1 or config.batch < 1 or config.learning_rate <= 0:
        raise InputError(f"In {path}, steps, batch and learning_rate must be positive.")
    return config
