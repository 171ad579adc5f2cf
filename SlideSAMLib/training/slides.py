"""Where the built-in network's windows come from: this process, or some that work ahead.

Only the network can say where a slide goes next, so windows cannot be made long in advance. But
there can be several pools of slabs: while the device learns from the windows of one, the others
move on, each in a process of its own, on the CPU. The pools take turns. Without such processes the
slabs are made and kept on the device of the training where that is an NVIDIA GPU; elsewhere they
stay on the CPU, since Apple's GPUs cannot sample beyond an edge.
"""

from __future__ import annotations

import io
import signal
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, multiprocessing

from ..errors import InputError
from .config import TrainConfig
from .fields import Device
from .generators import StateMismatch
from .mixture import Mixture
from .rollouts import Pool, Step

SEEDS_APART = 1_000_003  # of the pools of one process
SHARED = torch.float16  # of images and masks between processes: all of them are 0..1


class Slides(Protocol):
    """Batches of windows, and what the network says about them."""

    def step(self) -> Step:
        """The next batch, on the device of the training."""

    def advance(self, probabilities: Tensor) -> None:
        """The network's answer to it, (B, 3, GRID, GRID); see `rollouts.Pool`."""

    def state(self) -> dict:
        """All that the next batches depend on."""


def open_slides(
    config: TrainConfig, seed: int, state: dict | None = None, device: Device = "cpu"
) -> Slides:
    """As configured; with a state they go on. Raises InputError and StateMismatch."""
    if config.data_processes:
        return SlidesAhead(config, seed, state, device)
    return OwnSlides(config, seed, state, device)


class OwnSlides:
    """See `Slides`: one pool in this process, on a device."""

    def __init__(
        self, config: TrainConfig, seed: int, state: dict | None = None, device: Device = "cpu"
    ) -> None:
        self._target = torch.device(device)
        self._device = self._target if self._target.type == "cuda" else torch.device("cpu")
        self._mixture = mixture = Mixture(config, seed, state and state["mixture"], self._device)
        if state is None:
            self._pool = Pool(config.batch, mixture.draw, np.random.default_rng(seed + 1))
        else:
            self._pool = Pool.restored(state["pool"], mixture.draw, mixture.again)

    def step(self) -> Step:
        return self._pool.step().to(self._target)

    def advance(self, probabilities: Tensor) -> None:
        self._pool.advance(probabilities.to(self._device))

    def state(self) -> dict:
        return {"mixture": self._mixture.state(), "pool": self._pool.state()}


class SlidesAhead:
    """See `Slides`: as many pools as `data_processes`, each a batch, which take turns.

    The processes end when this object, or the process that has it, is gone.
    """

    def __init__(
        self, config: TrainConfig, seed: int, state: dict | None = None, device: Device = "cpu"
    ) -> None:
        self._turn = state["turn"] if state else 0
        states = state["pools"] if state else [None] * config.data_processes
        self._pools = [
            _Remote(config, seed + SEEDS_APART * n, s, device) for n, s in enumerate(states)
        ]
        for pool in self._pools:
            pool.step()  # raises what went wrong at the start

    def step(self) -> Step:
        return self._pools[self._turn].step()

    def advance(self, probabilities: Tensor) -> None:
        self._pools[self._turn].advance(probabilities)
        self._turn = (self._turn + 1) % len(self._pools)

    def state(self) -> dict:
        return {"turn": self._turn, "pools": [pool.state() for pool in self._pools]}


class _Remote:
    """A pool in another process. Large tensors lie in memory that both share."""

    def __init__(self, config: TrainConfig, seed: int, state: dict | None, device: Device) -> None:
        self._device = device
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        given = (config, seed, None if state is None else _packed(state), theirs)
        process = context.Process(target=_serve, args=given, daemon=True)
        process.start()
        theirs.close()
        self._shared: dict[str, Tensor] | None = None  # the batch, and the answer to it
        self._ready = False

    def step(self) -> Step:
        """The present batch, waited for; a copy, since the next one takes its place."""
        if not self._ready:
            content = self._receive()
            self._shared = content or self._shared
            self._ready = True
        copies = {
            name: tensor.to(self._device, copy=True)
            for name, tensor in self._shared.items()
            if name != "answer"
        }
        wide = {name: t.float() if t.dtype == SHARED else t for name, t in copies.items()}
        return Step.of(wide)

    def advance(self, probabilities: Tensor) -> None:
        self._shared["answer"].copy_(probabilities.to(SHARED))  # from any device
        self._line.send("advance")
        self._ready = False

    def state(self) -> dict:
        if not self._ready:
            self.step()
        self._line.send("state")
        return _unpacked(self._receive())

    def _receive(self) -> Any:
        try:
            content = self._line.recv()
        except EOFError:
            raise RuntimeError("A process that makes windows has died.") from None
        if isinstance(content, Exception):
            raise content
        return content


def _packed(state: dict) -> bytes:
    """As a file, which needs no memory that is shared."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _unpacked(content: bytes) -> dict:
    return torch.load(io.BytesIO(content), weights_only=True)


def _serve(config: TrainConfig, seed: int, state: bytes | None, line: Connection) -> None:
    """A pool at the orders of another process, until that hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other's business
    torch.set_num_threads(1)
    try:
        slides = OwnSlides(config, seed, None if state is None else _unpacked(state))
    except (InputError, StateMismatch) as error:
        line.send(error)
        return
    step = slides.step()
    shared = {
        name: tensor.to(SHARED if tensor.ndim == 4 else tensor.dtype, copy=True).share_memory_()
        for name, tensor in step.tensors().items()
    }
    shared["answer"] = torch.zeros_like(shared["target"]).share_memory_()
    line.send(shared)
    while True:
        try:
            order = line.recv()
        except (EOFError, OSError):
            return
        if order == "state":  # the batch that is ready changes nothing about it
            line.send(_packed(slides.state()))
            continue
        slides.advance(shared["answer"].float())
        step = slides.step()
        for name, tensor in step.tensors().items():
            shared[name].copy_(tensor)
        line.send(None)
