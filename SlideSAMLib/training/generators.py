"""Random numbers that a later process carries on with."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch


class StateMismatch(Exception):
    """A saved state that does not fit the data of today; says what differs."""


def generator_state(rng: np.random.Generator) -> str:
    """The state as JSON: its integers are too long for most formats."""
    return json.dumps(rng.bit_generator.state)


def restored_generator(state: str) -> np.random.Generator:
    """A generator that goes on where the other one stood."""
    rng = np.random.default_rng(0)
    rng.bit_generator.state = json.loads(state)
    return rng


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of torch's own generators, of the CPU and of a CUDA device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put torch's own generators back to where they stood."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
