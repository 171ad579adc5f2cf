"""The training loop: seeded, logged, resumable, one or many processes.

What is trained, on what and with which loss, is a `Task`. Under `torchrun` each process draws its
own windows and Lightning Fabric averages the gradients.
"""

from __future__ import annotations

import csv
import math
import os
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from .config import TrainConfig

COMMON = ("step", "minutes", "windows_per_second", "rate", "loss")  # columns of every curve


class Task(Protocol):
    """What is trained.

    network : its parameters that require gradients are learnt.
    figures : names of what `loss` reports, for the columns of the curve.
    betas : of the optimiser.
    """

    network: torch.nn.Module
    figures: tuple[str, ...]
    betas: tuple[float, float]

    def start(self, seed: int) -> None:
        """Open the source of windows; a resumed run starts with another seed."""

    def loss(self, network: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """Draw a batch, ask `network` (as Fabric wraps it); the mean loss, and figures."""

    def write(self, learnt: dict[str, torch.Tensor], path: Path, note: dict[str, str]) -> None:
        """Write the model with these values of the learnt parameters, atomically."""


class _Average:
    """Exponential moving average of the weights, quicker at the start."""

    def __init__(self, network: torch.nn.Module, share: float) -> None:
        self.share = share
        self.values = {k: v.clone().float() for k, v in learnt(network).items()}

    def update(self, network: torch.nn.Module, step: int) -> None:
        share = min(self.share, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in learnt(network).items():
                self.values[key].lerp_(value.float(), 1 - share)


def learnt(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that are trained, by name, without their gradients."""
    return {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}


class Training:
    """One run. `run` trains to the end of the schedule and returns the path of the weights."""

    def __init__(self, config: TrainConfig) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.fabric = Fabric(
            accelerator="auto",
            devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
            num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
            strategy=_strategy(),
            precision=config.precision,
        )
        self.fabric.launch()
        self.folder = Path(config.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.task = make_task(config)
        self.average = _Average(self.task.network, config.average)
        parameters = [p for p in self.task.network.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=self.task.betas,
        )
        self.network, self.optimiser = self.fabric.setup(self.task.network, optimiser)
        self.average.values = {
            name: value.to(self.fabric.device) for name, value in self.average.values.items()
        }
        self.done, self.seconds = 0, 0.0
        self._events: Any = None  # of TensorBoard

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def progress(self) -> float:
        """Share of the schedule that is done, 0..1."""
        if self.config.minutes:
            return min(self.seconds / 60 / self.config.minutes, 1.0)
        return min(self.done / self.config.steps, 1.0)

    def _rate(self) -> float:
        warm = min((self.done + 1) / self.config.warm_up, 1.0)
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress()))
        return self.config.learning_rate * warm * cosine

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each atomically; rank 0 only."""
        if self.fabric.global_rank:
            return
        state = {
            "network": learnt(self.network.module),
            "average": self.average.values,
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
            "seconds": self.seconds,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)
        note = {"steps": str(self.done), "seed": str(self.config.seed)}
        self.task.write(self.average.values, self.weights_path, note)

    @property
    def weights_path(self) -> Path:
        return self.folder / "weights.safetensors"

    def resume(self) -> bool:
        """Continue from the checkpoint of the output folder; False where there is none."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.network.module.load_state_dict(state["network"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in self.average.values.items():
            value.copy_(state["average"][name])
        self.done, self.seconds = state["done"], state["seconds"]
        return True

    def run(self) -> Path:
        """Train until the schedule ends."""
        config = self.config
        # A resumed run sees new windows.
        self.task.start(config.seed * 1000 + self.fabric.global_rank + 17 * self.done)
        sums: dict[str, list[float]] = {}
        clock = saved = time.monotonic()
        while self._running():
            sums.setdefault("loss", []).append(self._step(sums))
            now = time.monotonic()
            self.seconds += now - clock
            sums.setdefault("seconds", []).append(now - clock)
            clock = now
            if self.done % config.log_every == 0:
                self._log(sums)
            if now - saved > 60 * config.save_minutes:
                self.save()
                saved = now
        self.save()
        return self.weights_path

    def _running(self) -> bool:
        """All processes must agree, or one would wait for the others for ever."""
        more = torch.tensor(float(self.progress() < 1))
        return bool(self.fabric.all_reduce(more, reduce_op="mean") >= 1)

    def _step(self, sums: dict[str, list[float]]) -> float:
        """One step of the optimiser, from as many batches as are accumulated."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        total = 0.0
        for part in range(self.config.accumulate):
            last = part == self.config.accumulate - 1
            with self.fabric.no_backward_sync(self.network, enabled=not last):
                loss, figures = self.task.loss(self.network)
                self.fabric.backward(loss / self.config.accumulate)
            total += float(loss.detach()) / self.config.accumulate
            for name, value in figures.items():
                sums.setdefault(name, []).append(value)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.done += 1
        self.average.update(self.network.module, self.done)
        return total

    def _log(self, sums: dict[str, list[float]]) -> None:
        seconds = sum(sums.pop("seconds"))
        if self.fabric.global_rank == 0:
            config = self.config
            windows = config.log_every * config.batch * config.accumulate * self.fabric.world_size
            numbers = {
                "step": self.done,
                "minutes": self.seconds / 60,
                "windows_per_second": windows / seconds,
                "rate": self._rate(),
                **{name: float(np.mean(values)) for name, values in sums.items()},
            }
            row = {name: _text(name, value) for name, value in numbers.items()}
            self._write_row(row)
            self._write_events(numbers)
            print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
        sums.clear()

    def _write_row(self, row: dict[str, str]) -> None:
        path = self.folder / "curve.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, (*COMMON, *self.task.figures), restval="")
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def _write_events(self, numbers: dict[str, float]) -> None:
        """The same for TensorBoard, where it is wanted."""
        if not self.config.tensorboard:
            return
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.folder))
        for name, value in numbers.items():
            if name != "step":
                self._events.add_scalar(name, value, self.done)
        self._events.flush()


def make_task(config: TrainConfig) -> Task:
    """The task of a configuration: the built-in network, or the one that `start_from` names."""
    from .builtin_task import BuiltinTask

    return BuiltinTask(config)


def _strategy() -> Any:
    """Which prompts a window gets decides which parameters it uses: not always all of them."""
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    return DDPStrategy(find_unused_parameters=True) if several else "auto"


def _text(name: str, value: float) -> str:
    form = {"step": "d", "minutes": ".2f", "windows_per_second": ".1f", "rate": ".2e"}
    return format(value, form.get(name, ".4f"))
