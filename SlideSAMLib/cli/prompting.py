"""Prompts from the command line and from JSON files."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..prompt_json import prompts_from_json
from ..prompts import SlicePrompt

# Axes of a (K, J, I) array. A slice across k has columns i and rows j, one across j columns i
# and rows k, one across i columns j and rows k: exactly volume.take(index, axis).
AXES = {"k": 0, "j": 1, "i": 2}


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is marked, where, and how far to slide."""
    group = parser.add_argument_group(
        "prompts", "X Y are i j on a slice across k, i k across j, j k across i; from 0, as stored."
    )
    group.add_argument("--slice", type=int, metavar="N", help="index of the prompted slice")
    group.add_argument(
        "--axis", choices=tuple(AXES), default="k", help="slide along k (default), j or i"
    )
    group.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("X0", "Y0", "X1", "Y1")
    )
    group.add_argument("--point", type=float, nargs=2, action="append", metavar=("X", "Y"))
    group.add_argument("--negative-point", type=float, nargs=2, action="append", metavar=("X", "Y"))
    group.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE.json",
        help='prompts on several slices: [{"slice": 57, "box": [X0, Y0, X1, Y1], '
        '"points": [[X, Y]], "labels": [1]}]',
    )
    group.add_argument("--first", type=int, metavar="N", help="do not slide below this slice")
    group.add_argument("--last", type=int, metavar="N", help="do not slide above this slice")


def gather_prompts(args: argparse.Namespace) -> list[SlicePrompt]:
    """The prompts that the arguments of `add_prompt_arguments` describe.

    Raises InputError where there is none or one cannot be used.
    """
    prompts = read_prompts(args.prompts) if args.prompts is not None else []
    points = args.point or []
    negative = args.negative_point or []
    boxes = args.box or []
    if len(boxes) > 1:
        raise InputError(
            "Only one --box can be given; several prompts go into --prompts FILE.json."
        )
    if boxes or points or negative:
        if args.slice is None:
            raise InputError("A box or a point needs --slice N, the slice that it lies on.")
        prompts.append(
            SlicePrompt(
                args.slice,
                box=tuple(boxes[0]) if boxes else None,
                points=[*points, *negative],
                labels=[1] * len(points) + [0] * len(negative),
            )
        )
    elif args.slice is not None:
        raise InputError(f"Nothing is marked on slice {args.slice}: give --box or --point.")
    if not prompts:
        raise InputError("There is no prompt: give --slice with --box or --point, or --prompts.")
    return prompts


def read_prompts(path: Path) -> list[SlicePrompt]:
    """Read a JSON file of prompts; InputError says what is wrong with it."""
    try:
        return prompts_from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file with JSON prompts.") from None
    except (InputError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from None


def check_range(
    prompts: list[SlicePrompt], first: int | None, last: int | None, shape: tuple[int, int, int]
) -> None:
    """Raise InputError unless prompts and limits fit a stack of (slices, height, width)."""
    for prompt in prompts:
        prompt.check_inside(*shape)
    for name, value in (("--first", first), ("--last", last)):
        if value is not None and not 0 <= value < shape[0]:
            raise InputError(
                f"{name} {value} is outside the volume: the slices along this axis are 0 to "
                f"{shape[0] - 1}."
            )
    if first is not None and last is not None and first > last:
        raise InputError(f"--first {first} is greater than --last {last}: give --first <= --last.")
