"""`slidesam train CONFIG`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; imports nothing heavy."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file of the run")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in the output folder"
    )


def run(args: argparse.Namespace) -> int:
    """Train; under torchrun once per process. The weights and the curve lie in `output`."""
    from ..errors import InputError
    from .config import read_config

    config = read_config(args.config)
    try:
        from .curve import draw_curve
        from .loop import Training
    except ModuleNotFoundError as error:
        raise InputError(
            f"Training needs the package {error.name}: install SlideSAM with its extra 'train'."
        ) from None
    training = Training(config)
    if args.resume and not training.resume():
        raise InputError(f"There is no checkpoint in {config.output} to resume from.")
    if not args.resume and training.checkpoint.exists():
        raise InputError(
            f"{config.output} already holds a run: add --resume to continue it, or name another "
            "output folder."
        )
    path = training.run()
    if training.fabric.global_rank == 0:
        curve = training.folder / "curve.csv"
        if curve.exists():
            draw_curve(curve, curve.with_suffix(".png"))
        print(f"The weights are in {path}.")
    return 0
