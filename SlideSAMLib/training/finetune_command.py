"""`slidesam finetune CONFIG`."""

from __future__ import annotations

import argparse

from . import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; imports nothing heavy."""
    command.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train from the configured model on the configured data; writes a model file and its card."""
    command.need_packages()
    from ..cli.outputs import check_writable
    from .datasets import read_dataset
    from .finetune import check_measured, export, read_finetune_config, unmeasured

    config = read_finetune_config(args.config)
    check_measured(config.train)
    command.check_start(config.train, config.weights_path)
    training = command.train(config.train, args.resume, args.stop_after)
    if training.fabric.global_rank:
        return 0
    if training.stopped:
        command.say_stopped(training)
        return 0
    check_writable(config.weights_path, "The model")
    before, after = export(config, training.best_path)
    if before is not None and after is not None:
        print(f"Held-out cases, one box: mean Dice {before.mean:.3f} before, {after.mean:.3f} now.")
    else:
        print(unmeasured(config.train, [read_dataset(one) for one in config.train.datasets]))
    print(f"The model is {config.weights_path}, its card {config.card_path}.")
    return 0
