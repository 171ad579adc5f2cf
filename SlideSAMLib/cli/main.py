"""The `slidesam` command: which sub-command, which exit code, one line per error.

Every sub-command is a module with `add_arguments(parser)` and `run(args) -> int`. Only the module
of the chosen sub-command is imported, so that `slidesam --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from ..compute.memory import host_shortage, out_of_memory
from ..errors import SlideSAMError
from .stopping import Terminated, signals_as_interrupts

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
TOO_LARGE = (
    "The memory of the GPU is too small: choose the device cpu, a smaller model or, in training, a "
    "smaller batch."
)
HOST_TOO_SMALL = (
    "The memory of this computer is too small{}: close other programs, or take a smaller image "
    "(crop it), a smaller model or, in training, a smaller batch."
)

NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-inf$|-nan$", re.IGNORECASE)

COMMANDS = {
    "segment": ("SlideSAMLib.cli.segment", "segment an image from prompts on one or more slices"),
    "models": ("SlideSAMLib.cli.models", "list, check, convert, download or remove models"),
    "evaluate": ("SlideSAMLib.evaluation.command", "measure a model on labelled volumes"),
    "ablate": (
        "SlideSAMLib.evaluation.ablate_command",
        "measure what each part of the slide is worth",
    ),
    "train": ("SlideSAMLib.training.command", "train a model like the built-in one"),
    "finetune": (
        "SlideSAMLib.training.finetune_command",
        "make a model of your own out of another one and labelled volumes",
    ),
    "benchmark": ("SlideSAMLib.cli.benchmark", "measure speed and memory on this machine"),
    "demo": ("SlideSAMLib.cli.demo", "segment a real MR brain and draw the result"),
}


class UsageError(SlideSAMError):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions, not a usage text and an exit.

    It takes negative numbers as Python writes them: argparse's own pattern takes -1e-05 and -100.
    for options, so that "--window -1e-05 2e-05" lacks its arguments.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._negative_number_matcher = NEGATIVE_NUMBER

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def build_parser(chosen: str | None) -> Parser:
    """The parser of the command; only the chosen sub-command gets its arguments."""
    parser = Parser(
        prog="slidesam",
        description="Prompt one slice of a CT or MR volume; a window of three slices slides "
        "through the rest. Not for clinical use.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            importlib.import_module(module).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 done, 2 wrong use or input, 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        with signals_as_interrupts():
            return _run(words, chosen)
    except SystemExit as stop:  # --help
        return OK if stop.code is None else int(stop.code)
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # the terminal may have gone
            print("interrupted: nothing half written", file=sys.stderr)
        return stop.exit_code if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:  # the reader of our output (`| head`) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (SlideSAMError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except (RuntimeError, MemoryError) as error:
        sentence = _shortage(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return BAD_INPUT


def _run(words: list[str], chosen: str | None) -> int:
    args = build_parser(chosen).parse_args(words)
    if args.version:
        from .. import __version__

        print(f"SlideSAM {__version__}")
        return OK
    if args.command is None:
        raise UsageError("no command given (see slidesam --help)")
    return importlib.import_module(COMMANDS[args.command][0]).run(args)


def entry() -> NoReturn:
    """The console script."""
    _escape_what_cannot_be_printed()
    sys.exit(main())


def _escape_what_cannot_be_printed() -> None:
    """Let no file name end the command: output to a file has a legacy code page on Windows.

    Only here, where the process is ours: the streams of those who call `main` are theirs.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there may be none, or something like it
            stream.reconfigure(errors="backslashreplace")


def _shortage(error: Exception) -> str | None:
    """What to say where memory was too small; None for any other error."""
    if out_of_memory(error):
        return TOO_LARGE
    asked = host_shortage(error)
    if asked is None:
        return None
    return HOST_TOO_SMALL.format(f" ({asked})" if asked else "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
