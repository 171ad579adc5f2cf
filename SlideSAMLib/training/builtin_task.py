"""What trains the built-in model: its network, slabs that are slid over, and its loss."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ..builtin import features
from ..builtin.network import BuiltinNetwork
from ..builtin.weights import deepened, read_network, with_reference, write_weights
from ..errors import InputError, SlideSAMError
from .config import TrainConfig
from .losses import figures, window_loss
from .mixture import check_data
from .slides import open_slides

DECODER = ("trunk.", "decoder.", "branches.", "hyper.", "refinement.", "quality.", "presence.")


class BuiltinTask:
    """See `loop.Task`."""

    figures = (
        "box_centre",
        "box_ahead",
        "point_centre",
        "point_ahead",
        "slide_centre",
        "slide_ahead",
        "presence_present",
        "presence_absent",
    )
    betas = (0.9, 0.98)
    matrices = ("stages.", "downs.", "blocks.", "trunk.", "decoder.", "branches.")

    def __init__(self, config: TrainConfig) -> None:
        check_data(config)
        self._config = config
        self.data_seconds = 0.0
        self.network = _network(config).to(memory_format=torch.channels_last)
        if config.trainable == "decoder":
            freeze_encoder(self.network)

    def start(self, seed: int, state: dict | None = None) -> None:
        device = next(self.network.parameters()).device
        self._slides = open_slides(self._config, seed, state, device)

    def state(self) -> dict:
        return self._slides.state()

    def loss(self, network: Any) -> tuple[torch.Tensor, dict[str, float]]:
        begun = time.perf_counter()
        step = self._slides.step()
        self.data_seconds += time.perf_counter() - begun
        device = next(self.network.parameters()).device
        inputs = features.assemble(step.batch).contiguous(memory_format=torch.channels_last)
        logits, fine, quality, presence = network(inputs)
        loss = window_loss(logits, fine, quality, presence, step)
        found = figures(fine.detach(), presence.detach(), step)
        with torch.no_grad():
            probabilities = fine.detach().float().sigmoid()
            if device.type == "cuda":  # so that the time of the data is theirs alone
                torch.cuda.synchronize(device)
            begun = time.perf_counter()
            self._slides.advance(probabilities)
            self.data_seconds += time.perf_counter() - begun
        return loss, found

    def write(self, learnt: dict[str, torch.Tensor], path: Path, note: dict[str, str]) -> None:
        values = {**self.network.state_dict(), **learnt}
        write_weights(values, self.network.config, path, note)


def _network(config: TrainConfig) -> BuiltinNetwork:
    """The network to begin with.

    Raises InputError where its sizes cannot be used, ModelError where `start_from` cannot.
    """
    try:
        if not config.start_from:
            return BuiltinNetwork(**config.network)
        known = with_reference(read_network(Path(config.start_from)))
        return deepened(known, **config.network)
    except SlideSAMError:  # says what is wrong by itself
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError, IndexError) as error:
        raise InputError(
            f"The setting network, {config.network}, cannot be used: {error}."
        ) from None


def freeze_encoder(network: BuiltinNetwork) -> None:
    """Leave only what comes behind the transformer to be trained."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(DECODER)
