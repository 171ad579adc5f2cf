"""`slidesam benchmark`: what SlideSAM costs on this machine, beside the original networks."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..benchmark.suite import Plan

PARTS = ("encode", "runs", "startup", "memory", "agreement")
MODELS = ("builtin", "vit-b", "vit-l", "vit-h")
PRECISIONS = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `slidesam benchmark`."""
    parser.epilog = (
        "The vit models get random weights, which cost the same. While they slide, their answers "
        "are computed and then replaced by a known object."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument(
        "--quick", action="store_true", help="the built-in model and start-up alone, one round"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        metavar="MODEL",
        help=f"{', '.join(MODELS)} (default: builtin vit-b)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="DEVICE", help="auto (default), cpu, cuda or mps"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        metavar="PRECISION",
        help="of the encoder (default: float32 and what auto means here)",
    )
    parser.add_argument(
        "--batches",
        nargs="+",
        type=_positive,
        metavar="N",
        help="windows at once (default: 1; on CUDA 1 2 4 8)",
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="of each timing (default: 3)")
    group = parser.add_argument_group("whole runs")
    group.add_argument(
        "--shape", type=_positive, nargs=3, metavar=("K", "J", "I"), help="of the volume"
    )
    group.add_argument("--slices", type=_positive, metavar="N", help="of the object in it")
    group = parser.add_argument_group("masks in half precision")
    group.add_argument(
        "--data", type=Path, metavar="MANIFEST", help="volumes with labels, as for evaluate"
    )
    group.add_argument("--cases", nargs="+", metavar="ID", help="only these cases")
    group.add_argument(
        "--limit", type=_positive, metavar="N", help="largest structures of each (default: 1)"
    )
    group.add_argument("--checkpoint", metavar="NAME|FILE", help="a model besides the built-in one")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="write the kernels' times here"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, write the files part by part, print the table of what there is at the end."""
    from ..benchmark import table
    from ..benchmark.suite import Suite
    from .outputs import check_different, check_writable, write_together

    files = {"--json": args.json, "--profile": args.profile}
    given = {name: path for name, path in files.items() if path is not None}
    for name, path in given.items():
        check_writable(path, f"The file of {name}")
    read = {"--data": args.data, "--checkpoint": args.checkpoint and Path(args.checkpoint)}
    check_different(given | {name: path for name, path in read.items() if path is not None})
    plan = make_plan(args)
    if any(name.startswith("vit") for name in plan.models) and not find_spec("segment_anything"):
        raise InputError("The vit models need segment-anything: pip install segment-anything==1.0.")
    command = shlex.join(["slidesam", "benchmark", *_options(args)])

    def say(text: str) -> None:
        print(f"measuring {text}", file=sys.stderr)

    def keep() -> None:
        """Write what is measured so far: the next part may fail after an hour."""
        report = json.dumps({"command": command, **suite.report}, indent=1) + "\n"
        texts = {args.json: report, args.profile: suite.profile}
        write_together({path: _writer(text) for path, text in texts.items() if path is not None})

    suite = Suite(plan, say, keep)
    try:
        suite.run()
        keep()
    finally:
        if suite.report.keys() != {"machine"}:
            print(table.text(suite.report))
    return 0


def _writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")


def make_plan(args: argparse.Namespace) -> Plan:
    """What the arguments ask for.

    Raises InputError where they do not go together.
    """
    from ..benchmark.suite import Plan

    plan = Plan()
    if args.quick:
        plan = replace(plan, parts=("runs", "startup"), models=("builtin",), rounds=1)
    if args.data is None and (args.cases or args.limit or args.checkpoint):
        raise InputError("--cases, --limit and --checkpoint need the volumes of --data MANIFEST.")
    networks = [name for name in args.models or plan.models if name.startswith("vit")]
    if "agreement" in (args.parts or ()) and args.data is None and not networks:
        raise InputError("The agreement of the built-in model's masks needs --data MANIFEST.")
    idle = [part for part in ("encode", "memory") if part in (args.parts or ())]
    idle += ["profile"] if args.profile is not None else []
    if idle and not networks:
        raise InputError(
            f"There is nothing to measure of the built-in model for {' and '.join(idle)}: name a "
            "vit model with --models."
        )
    if args.data is not None and "agreement" not in (args.parts or plan.parts):
        raise InputError("--data is for the part agreement: name it with --parts.")
    names = ("parts", "models", "device", "precisions", "batches", "rounds", "slices", "cases")
    chosen = {name: getattr(args, name) for name in (*names, "limit", "checkpoint")}
    chosen |= {"manifest": args.data, "shape": tuple(args.shape) if args.shape else None}
    chosen |= {"profile": args.profile is not None}
    return replace(plan, **{name: value for name, value in chosen.items() if value is not None})


def _options(args: argparse.Namespace) -> list[str]:
    """The options that were given, files by their names alone."""
    words: list[str] = []
    for name, value in vars(args).items():
        if name in ("command", "version") or value in (None, False) or (name, value) == _DEFAULT:
            continue
        words.append(f"--{name}")
        if value is not True:
            values = value if isinstance(value, list) else [value]
            words += [v.name if isinstance(v, Path) else str(v) for v in values]
    return words


_DEFAULT = ("device", "auto")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text}")
    return int(text)
