"""The training loop: seeded, logged, resumable, one or many processes.

What is trained, on what and with which loss, is a `Task`. Under `torchrun` each process draws its
own windows and Lightning Fabric averages the gradients.
"""

from __future__ import annotations

import math
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy

from ..errors import InputError
from ..files.tensor_files import is_builtin, read_tensor_file
from ..files.whole_files import file_sha256, make_folder
from .checkpoints import Checkpoints, depends, mismatch
from .config import TrainConfig
from .curve_log import CurveLog
from .generators import StateMismatch, random_state, restore_random_state
from .optimiser import make_optimiser
from .selection import BEST, Selection, columns

LONGEST = timedelta(hours=6)  # that processes wait for the one that evaluates


class Task(Protocol):
    """What is trained.

    network : its parameters that require gradients are learnt.
    figures : names of what `loss` reports, for the columns of the curve.
    betas : of the optimiser; matrices : beginnings of the names of the inner matrices, see
        `optimiser.make_optimiser`.
    data_seconds : spent so far on making windows, or on waiting for them.
    """

    network: torch.nn.Module
    figures: tuple[str, ...]
    betas: tuple[float, float]
    matrices: tuple[str, ...]
    data_seconds: float

    def start(self, seed: int, state: dict | None = None) -> None:
        """Open the source of windows; with the seed and a `state` of an earlier run it goes on.

        Raises StateMismatch where the state does not fit the data.
        """

    def state(self) -> dict:
        """All that the next windows depend on, of types that torch reads as weights only."""

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
        now = learnt(network)
        with torch.no_grad():  # in one call: hundreds of small ones would keep a GPU waiting
            values = [value.float() for value in now.values()]
            torch._foreach_lerp_([self.values[key] for key in now], values, 1 - share)


def learnt(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that are trained, by name, without their gradients."""
    return {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}


class Training:
    """One run. `run` trains to the end of the schedule and returns the path of the best weights."""

    def __init__(self, config: TrainConfig) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.fabric = Fabric(
            accelerator="auto",
            devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
            num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
            precision=config.precision,
            **_processes(),
        )
        self.fabric.launch()
        self.folder = Path(config.output)
        torch.manual_seed(config.seed)
        self.task = make_task(config)
        self.average = _Average(self.task.network, config.average)
        self.network, self.optimiser = self.fabric.setup(
            self.task.network, _optimiser(self.task, config)
        )
        self.average.values = {
            name: value.to(self.fabric.device) for name, value in self.average.values.items()
        }
        self.selection: Selection | None = None  # on rank 0 only: it evaluates, the others wait
        if config.select is not None and self.fabric.global_rank == 0:
            self.selection = Selection(config, self.fabric.device.type)
        make_folder(self.folder)
        self.checkpoints = Checkpoints(self.folder, self.fabric)
        self.curve = CurveLog(
            self.folder, (*self.task.figures, *columns(config.select)), config.tensorboard
        )
        start = config.start_from
        self._started_from = file_sha256(Path(start)) if start else None
        self.done, self.seconds = 0, 0.0  # steps, and the time that they took
        self._judged = (0, 0.0)  # step and seconds of the last evaluation of `select`
        self._sums: dict[str, list[float]] = {}  # what the next row of the curve is made of
        self._resumed = False
        self.stopped = False  # before the schedule's end

    def progress(self) -> float:
        """Share of the schedule that is done, 0..1."""
        if self.config.minutes:
            return min(self.seconds / 60 / self.config.minutes, 1.0)
        return min(self.done / self.config.steps, 1.0)

    def _rate(self) -> float:
        warm = min((self.done + 1) / max(self.config.warm_up, 1), 1.0)
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress()))
        return self.config.learning_rate * warm * cosine

    @property
    def weights_path(self) -> Path:
        """The newest averaged weights."""
        return self.folder / "weights.safetensors"

    @property
    def best_path(self) -> Path:
        """The weights to take: the best ones where there is a selection, else the newest."""
        return self.weights_path if self.config.select is None else self.folder / BEST

    def save(self) -> None:
        """Write the states to go on from and, on rank 0, weights and picture, each atomically.

        Every process must call it.
        """
        training = {
            "network": learnt(self.network.module),
            "average": self.average.values,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "started_from": self._started_from,
            "done": self.done,
            "seconds": self.seconds,
            "judged": self._judged,
            "sums": self._sums,
        }
        windows = {
            "depends": depends(self.config, self.fabric.world_size),
            "task": self.task.state(),
            "torch": random_state(self.fabric.device),
        }
        self.checkpoints.save(self.done, training, windows)
        if self.fabric.global_rank == 0:
            self._write(self.weights_path, {})
            self.curve.draw()

    def _write(self, path: Path, note: dict[str, str]) -> None:
        note = {"steps": str(self.done), "seed": str(self.config.seed), **note}
        self.task.write(self.average.values, path, note)

    def resume(self) -> bool:
        """Continue from the checkpoint of the output folder; False where there is none.

        Raises InputError where it cannot be read, began from another model, or is of another
        network or optimiser.
        """
        state = self.checkpoints.training()
        if state is None:
            return False
        # What is not trained comes from that file, and fits what is trained only if it is the same.
        if state.get("started_from", self._started_from) != self._started_from:
            raise InputError(
                f"The run in {self.folder} began from another model than "
                f"{self.config.start_from or 'none'}: set `start_from` as it was, or take another "
                "output folder."
            )
        own = learnt(self.network.module)
        if {n: v.shape for n, v in state["network"].items()} != {
            n: v.shape for n, v in own.items()
        }:
            raise InputError(
                f"The checkpoint in {self.folder} is of another network: set `network`, "
                "`trainable` and `lora_rank` as they were, or take another output folder."
            )
        groups = [len(group["params"]) for group in self.optimiser.state_dict()["param_groups"]]
        if [len(g["params"]) for g in state["optimiser"]["param_groups"]] != groups:
            raise InputError(
                f"The checkpoint in {self.folder} is of another optimiser: set `optimiser` as it "
                "was, or take another output folder."
            )
        self.network.module.load_state_dict(state["network"], strict=False)
        self.optimiser.load_state_dict(state["optimiser"])
        if state.get("scaler"):
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        for name, value in self.average.values.items():
            value.copy_(state["average"][name])
        self.done, self.seconds = state["done"], state["seconds"]
        self._judged = tuple(state.get("judged", self._judged))
        self._sums = state.get("sums", {})
        self._resumed = True
        return True

    def run(self, stop_after: float | None = None) -> Path:
        """Train until the schedule ends, or for so many minutes; then there is a checkpoint."""
        self._start()
        begun = saved = time.monotonic()
        while True:
            now = time.monotonic()
            out_of_time = stop_after is not None and now - begun >= 60 * stop_after
            more, judge, save, self.stopped = self._agree(now - saved, out_of_time)
            if judge or not (more or self.stopped):
                self._select()
            if save or not more:
                self.save()
                saved = time.monotonic()
            if not more:
                return self.best_path
            clock = time.monotonic()
            self._step()
            self.seconds += time.monotonic() - clock  # evaluating and saving is no training
            if self.done % self.config.log_every == 0:
                self._log()

    def _start(self) -> None:
        """Open the windows: the first ones, or those that come next where a run goes on."""
        if self.fabric.global_rank == 0:
            self.curve.cut_back(self.done)
        self._start_selection()
        seed = self.config.seed * 1000 + self.fabric.global_rank
        if not self._resumed:
            return self.task.start(seed)
        state = self.checkpoints.windows(self.done)
        wrong = mismatch(state, depends(self.config, self.fabric.world_size))
        if not wrong:
            try:
                self.task.start(seed, state["task"])
                return restore_random_state(state["torch"], self.fabric.device)
            except StateMismatch as error:
                wrong = str(error)
        print(f"Process {self.fabric.global_rank} goes on with other windows: {wrong}.", flush=True)
        self.task.start(seed + 17 * self.done)

    def _start_selection(self) -> None:
        """The best so far, or none: then even the weights of this step are still to be judged."""
        if self.selection is not None:
            self.selection.resume() if self._resumed else self.selection.begin()
        known = self.selection is not None and self.selection.best is not None
        if self.config.select is not None and not self.fabric.broadcast(known):
            self._judged = (0, self.seconds)

    def _agree(self, unsaved: float, out_of_time: bool) -> tuple[bool, bool, bool, bool]:
        """Whether to go on, to evaluate, to save (`unsaved` seconds after the last time), to stop.

        All processes must do the same, or one would wait for the others for ever. They also go by
        one clock, that of rank 0: with their own learning rates their weights would drift apart.
        """
        self.seconds = self.fabric.broadcast(self.seconds)
        late = unsaved > 60 * self.config.save_minutes and self.done > 0
        wishes = torch.tensor([self.progress() < 1, self._due(), late, out_of_time]).float()
        # Sums of ones are exact; means of them may be a little less than 1.
        unfinished, judge, save, out = self.fabric.all_reduce(wishes, reduce_op="sum").tolist()
        more = unfinished == self.fabric.world_size
        stop = more and out > 0
        return more and not stop, judge > 0, save > 0, stop

    def _due(self) -> bool:
        chosen, (step, seconds) = self.config.select, self._judged
        if chosen is None or self.done == step:
            return False
        if chosen.steps:
            return self.done % chosen.steps == 0
        return self.seconds - seconds >= 60 * chosen.minutes

    def _select(self) -> None:
        """Evaluate the averaged weights, if that has not been done at this step."""
        if self.config.select is None or self._judged[0] == self.done:
            return
        self._judged = (self.done, self.seconds)
        if self.selection is not None:
            found = self.selection.evaluate(self._write)
            self.curve.write({"step": self.done, "minutes": self.seconds / 60, **found})
        self.fabric.barrier()

    def _step(self) -> None:
        """One step of the optimiser, from as many batches as are accumulated."""
        begun, waited = time.monotonic(), self.task.data_seconds
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
                self._sums.setdefault(name, []).append(value)
        norm = self.fabric.clip_gradients(
            self.network, self.optimiser, max_norm=1.0, error_if_nonfinite=False
        )
        self._check(total, float(norm))
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.done += 1
        self.average.update(self.network.module, self.done)
        self._sums.setdefault("loss", []).append(total)
        self._sums.setdefault("seconds", []).append(time.monotonic() - begun)
        self._sums.setdefault("data", []).append(self.task.data_seconds - waited)

    def _check(self, loss: float, norm: float) -> None:
        """Raise InputError where a step would spoil the weights."""
        scaled = getattr(self.fabric.strategy.precision, "scaler", None) is not None
        # A scaler leaves out steps whose gradients are not finite, and scales less from then on.
        if not math.isfinite(loss) or not (math.isfinite(norm) or scaled):
            raise InputError(
                f"At step {self.done + 1} the loss is no finite number: go on with --resume from "
                f"what was saved in {self.folder}, at a lower learning_rate."
            )

    def _log(self) -> None:
        """A row of the curve: means since the last one, of the windows of rank 0."""
        if self.fabric.global_rank == 0:
            config, sums = self.config, dict(self._sums)
            steps, seconds = len(sums["seconds"]), sum(sums.pop("seconds"))
            windows = steps * config.batch * config.accumulate * self.fabric.world_size
            self.curve.write(
                {
                    "step": self.done,
                    "minutes": self.seconds / 60,
                    "windows_per_second": windows / seconds,
                    "data_share": sum(sums.pop("data")) / seconds,
                    "rate": self._rate(),
                    **{name: float(np.mean(values)) for name, values in sums.items()},
                }
            )
        self._sums.clear()


def _optimiser(task: Task, config: TrainConfig) -> torch.optim.Optimizer:
    orthogonal = task.matrices if config.optimiser == "muon" else ()
    named = task.network.named_parameters()
    return make_optimiser(named, config.learning_rate, config.weight_decay, task.betas, orthogonal)


def make_task(config: TrainConfig) -> Task:
    """The task of a configuration: the built-in network, or the one in the file `start_from`."""
    if config.start_from and not is_builtin(read_tensor_file(config.start_from)):
        from .sam_task import SamTask

        if config.optimiser != "adamw":
            raise InputError("SAM networks are trained with adamw only: set optimiser to adamw.")
        return SamTask(config)
    if config.trainable == "lora":
        raise InputError("The built-in model has no LoRA: set trainable to all or decoder.")
    from .builtin_task import BuiltinTask

    return BuiltinTask(config)


def _processes() -> dict[str, Any]:
    """How Fabric finds the other processes: torchrun's, or none.

    Fabric takes a job of Slurm with several tasks for several processes, too. They are not: without
    torchrun a run is one process, however many tasks the job may have.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return {"plugins": LightningEnvironment()}
    # Which prompts a window gets decides which parameters it uses: not always all of them.
    return {"strategy": DDPStrategy(find_unused_parameters=True, timeout=LONGEST)}
