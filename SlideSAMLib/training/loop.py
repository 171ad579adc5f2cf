"""The training loop of the built-in model: seeded, logged, resumable, one or many processes.

Under `torchrun` each process draws its own slabs and Lightning Fabric averages the gradients.
"""

from __future__ import annotations

import csv
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from ..builtin.network import BuiltinNetwork
from ..builtin.weights import read_network, write_weights
from .config import TrainConfig
from .losses import figures, window_loss
from .mixture import Mixture
from .rollouts import Pool

COLUMNS = (
    "step",
    "minutes",
    "rate",
    "loss",
    "box_centre",
    "box_ahead",
    "point_centre",
    "point_ahead",
    "slide_centre",
    "slide_ahead",
    "presence_present",
    "presence_absent",
)

DECODER = ("trunk.", "branches.", "hyper.", "refinement.", "quality.", "presence.")


class _Average:
    """Exponential moving average of the weights, quicker at the start."""

    def __init__(self, network: torch.nn.Module, share: float) -> None:
        self.share = share
        self.values = {k: v.detach().clone().float() for k, v in network.state_dict().items()}

    def update(self, network: torch.nn.Module, step: int) -> None:
        share = min(self.share, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in network.state_dict().items():
                self.values[key].lerp_(value.float(), 1 - share)


def freeze_encoder(network: BuiltinNetwork) -> None:
    """Leave only what comes behind the transformer to be trained."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(DECODER)


class Training:
    """One run. `run` trains to the end of the schedule and returns the path of the weights."""

    def __init__(self, config: TrainConfig) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.fabric = Fabric(
            accelerator="auto",
            devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
            num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
            strategy="ddp" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else "auto",
            precision=config.precision,
        )
        self.fabric.launch()
        self.folder = Path(config.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        if config.start_from:
            network = read_network(Path(config.start_from))
        else:
            network = BuiltinNetwork(**config.network)
        network = network.to(memory_format=torch.channels_last)
        if config.trainable == "decoder":
            freeze_encoder(network)
        self.average = _Average(network, config.average)
        learnt = [p for p in network.parameters() if p.requires_grad]
        matrices = [p for p in learnt if p.ndim > 1]
        others = [p for p in learnt if p.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        self.network, self.optimiser = self.fabric.setup(network, optimiser)
        self.done, self.seconds = 0, 0.0

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
            "network": self.network.state_dict(),
            "average": self.average.values,
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
            "seconds": self.seconds,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)
        note = {"steps": str(self.done), "seed": str(self.config.seed)}
        write_weights(self.average.values, self.network.module.config, self.weights_path, note)

    @property
    def weights_path(self) -> Path:
        return self.folder / "weights.safetensors"

    def resume(self) -> bool:
        """Continue from the checkpoint of the output folder; False where there is none."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.values = state["average"]
        self.done, self.seconds = state["done"], state["seconds"]
        return True

    def run(self) -> Path:
        """Train until the schedule ends."""
        config, rank = self.config, self.fabric.global_rank
        seed = config.seed * 1000 + rank + 17 * self.done  # a resumed run sees new slabs
        mixture = Mixture(config, seed)
        pool = Pool(config.batch, mixture.draw, np.random.default_rng(seed + 1))
        sums: dict[str, list[float]] = {}
        clock = saved = time.monotonic()
        while self._running():
            loss = self._step(pool, sums)
            sums.setdefault("loss", []).append(loss)
            now = time.monotonic()
            self.seconds += now - clock
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

    def _step(self, pool: Pool, sums: dict[str, list[float]]) -> float:
        step = pool.step()
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        inputs = step.inputs.contiguous(memory_format=torch.channels_last)
        logits, fine, quality, presence = self.network(inputs)
        loss = window_loss(logits, fine, quality, presence, step)
        self.optimiser.zero_grad()
        self.fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.done += 1
        self.average.update(self.network.module, self.done)
        for name, value in figures(fine.detach(), presence.detach(), step).items():
            sums.setdefault(name, []).append(value)
        with torch.no_grad():
            pool.advance(fine.detach().float().sigmoid())
        return float(loss.detach())

    def _log(self, sums: dict[str, list[float]]) -> None:
        if self.fabric.global_rank == 0:
            row = {name: f"{np.mean(values):.4f}" for name, values in sums.items()}
            row |= {
                "step": self.done,
                "minutes": f"{self.seconds / 60:.2f}",
                "rate": f"{self._rate():.2e}",
            }
            path = self.folder / "curve.csv"
            fresh = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, restval="")
                if fresh:
                    writer.writeheader()
                writer.writerow(row)
            shown = " ".join(f"{k}={v}" for k, v in row.items())
            print(shown, flush=True)
        sums.clear()
