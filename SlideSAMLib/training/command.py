"""`slidesam train CONFIG`."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, ModelError

if TYPE_CHECKING:
    from .config import TrainConfig
    from .loop import Training


PACKAGES = ("yaml", "lightning_fabric", "matplotlib")  # of every training
# What gloo and NCCL say of a process that has gone.
ENDED = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; imports nothing heavy."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file of the run")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in the output folder"
    )
    parser.add_argument(
        "--stop-after",
        type=float,
        metavar="MINUTES",
        help="end this call after so long, with a checkpoint to go on from",
    )


def run(args: argparse.Namespace) -> int:
    """Train; under torchrun once per process. The weights and the curve lie in `output`."""
    need_packages()
    from .config import read_config

    config = read_config(args.config)
    check_start(config)
    training = train(config, args.resume, args.stop_after)
    if training.fabric.global_rank != 0:
        return 0
    if training.stopped:
        say_stopped(training)
    else:
        print(f"The weights are in {training.best_path}.")
        if training.selection is not None:
            print(
                f"They have the best volume Dice of the run, {training.selection.best:.3f}; the "
                f"newest are in {training.weights_path}."
            )
    return 0


def say_stopped(training: Training) -> None:
    """Say how a run goes on that was ended before its schedule was."""
    print(f"Stopped at step {training.done}; the same command with --resume goes on.")


def need_packages(names: Iterable[str] = PACKAGES) -> None:
    """Raise InputError where a package that training needs is missing."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"Training needs the package {name}: install SlideSAM with its extra 'train'."
            )


def check_start(config: TrainConfig, *others: Path) -> None:
    """Raise InputError where the run, or one of the other files, would replace its start_from.

    So, too, where a package is missing that its settings ask for, or where one of the other files
    is one that the run writes and replaces itself.
    """
    from .selection import BEST, CANDIDATE

    wanted = {"tensorboard": config.tensorboard, "peft": config.trainable == "lora"}
    need_packages(name for name, asked in wanted.items() if asked)
    written = [Path(config.output) / name for name in ("weights.safetensors", BEST, CANDIDATE)]
    start = Path(config.start_from).resolve() if config.start_from else None
    if start in [path.resolve() for path in (*written, *others)]:
        raise InputError(
            f"The run would overwrite {config.start_from}, which it starts from: name another "
            "output folder."
        )
    if own := [path for path in others if path in written]:
        raise InputError(f"The run itself writes {own[0]}: give the model another name.")


def train(config: TrainConfig, resume: bool, stop_after: float | None = None) -> Training:
    """Train as configured, or for `stop_after` minutes; returns the training.

    Raises InputError where there is nothing to resume, or a run that was not asked to be resumed,
    or the minutes are not positive; ModelError where another run is writing to the folder, or
    another process of this run has ended.
    """
    from .loop import Training

    if stop_after is not None and not stop_after > 0:
        raise InputError(f"--stop-after must be above 0 minutes, not {stop_after:g}.")

    training = Training(config)
    with training.checkpoints.alone(), _others_are_there():
        if resume and not training.resume():
            raise InputError(f"There is no checkpoint in {config.output} to resume from.")
        if not resume and training.checkpoints.path.exists():
            raise InputError(
                f"{config.output} already holds a run: add --resume to continue it, or name "
                "another output folder."
            )
        if training.fabric.global_rank == 0:
            _say_start(config)
        training.run(stop_after)
    return training


def _say_start(config: TrainConfig) -> None:
    """What is learnt from; reading it may take minutes in which nothing else is said."""
    from .datasets import described

    for dataset in config.datasets:
        print(described(dataset, config.held_out))
    print(f"Reading volumes; then there is a line every {config.log_every} steps.", flush=True)


@contextmanager
def _others_are_there() -> Iterator[None]:
    """Say in one sentence that another process has ended, so that its own message is seen."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ENDED):
            raise
        raise ModelError(
            "Another process of this run has ended: see what it said, or which signal it got, and "
            "go on with --resume."
        ) from None
