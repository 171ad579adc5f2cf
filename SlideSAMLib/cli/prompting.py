"""Prompts from the command line and from JSON files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..prompts import SlicePrompt

# Axes of a (K, J, I) array. A slice across k has columns i and rows j, one across j columns i
# and rows k, one across i columns j and rows k: exactly volume.take(index, axis).
AXES = {"k": 0, "j": 1, "i": 2}
FIELDS = {"slice", "box", "points", "labels"}


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
    """Read a JSON file of prompts; InputError says which entry is wrong."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} must hold a JSON list with at least one prompt.")
    return [_prompt(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)]


def _prompt(entry: Any, where: str) -> SlicePrompt:
    if not isinstance(entry, dict) or "slice" not in entry:
        raise InputError(f'{where}: a prompt must be an object with a "slice".')
    unknown = sorted(set(entry) - FIELDS)
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; known are {sorted(FIELDS)}.")
    try:
        return SlicePrompt(
            entry["slice"], entry.get("box"), entry.get("points"), entry.get("labels")
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{where}: slice must be a whole number, box four numbers, points pairs of numbers and "
            "labels 0 or 1."
        ) from None


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
