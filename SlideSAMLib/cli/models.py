"""`slidesam models`: what there is, whether it is whole, and how to get or drop it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, ModelError

if TYPE_CHECKING:
    from ..catalogue import ModelInfo

KINDS = ("slide-sam", "sam", "medsam")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `slidesam models ACTION`."""
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=type(parser)
    )
    actions.add_parser("list", help="the models known by name, and which are on this computer")

    verify = actions.add_parser("verify", help="read a model completely and check its SHA-256")
    verify.add_argument("model", metavar="NAME|FILE")

    convert = actions.add_parser(
        "convert", help="write any known checkpoint as one plain safetensors file"
    )
    convert.add_argument("source", type=Path, metavar="FILE")
    convert.add_argument("target", type=Path, metavar="TARGET.safetensors")
    convert.add_argument("--half", action="store_true", help="store float16")
    convert.add_argument(
        "--kind", choices=KINDS, help="SAM and MedSAM files look alike: say which it is"
    )

    download = actions.add_parser("download", help="fetch a model into the models folder")
    download.add_argument("name", metavar="NAME")
    download.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="take this file, for models that only people can download",
    )

    remove = actions.add_parser("remove", help="delete a model from the models folder")
    remove.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Do one of the actions."""
    return ACTIONS[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from ..models import list_models, models_folder

    rows = [("NAME", "STATE", "SIZE", "LICENCE", "WHAT IT IS")]
    rows += [(m.name, _state(m), _size(m), m.licence, m.title) for m in list_models()]
    widths = [max(len(row[n]) for row in rows) for n in range(4)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row[:4], widths, strict=True)]
        print("  ".join([*cells, row[4]]))
    print(f"Models folder: {models_folder()}")
    return 0


def _state(info: ModelInfo) -> str:
    if info.installed:
        return "here"
    return {"builtin": "missing", "download": "download"}.get(info.source, "choose file")


def _size(info: ModelInfo) -> str:
    size = info.path.stat().st_size if info.installed else info.size
    return "unknown" if size is None else _megabytes(size)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def _verify(args: argparse.Namespace) -> int:
    from ..models import verify

    found = verify(args.model)
    if found.matches is False:
        raise ModelError(
            f"{found.path} is not the expected file: its SHA-256 is {found.sha256}, not "
            f"{found.expected}."
        )
    known = "as expected" if found.matches else "no published SHA-256 to compare with"
    print(f"{found.path}: {found.description}")
    print(f"SHA-256 {found.sha256} ({known})")
    return 0


def _convert(args: argparse.Namespace) -> int:
    from ..sam.checkpoints import convert
    from .outputs import check_different, check_writable

    check_different({"FILE": args.source, "TARGET": args.target})
    if args.target.suffix.lower() == ".safetensors":
        check_writable(args.target, "The converted model")
    checkpoint = convert(args.source, args.target, half=args.half, kind=args.kind)
    print(f"{args.target}: {checkpoint.description}, {_megabytes(args.target.stat().st_size)}")
    return 0


def _download(args: argparse.Namespace) -> int:
    from ..models import download, install, model_info
    from .progress import byte_bar

    if args.source is not None:
        print(f"{args.name}: installed as {install(args.name, args.source)}")
        return 0
    info = model_info(args.name)
    if info.installed:
        print(f"{info.name}: already at {info.path}")
        return 0
    if info.url is None and info.source == "file":
        raise InputError(
            f"The model '{info.name}' has no direct address: fetch its file from {info.page}, then "
            f"run 'slidesam models download {info.name} --from FILE'."
        )
    with byte_bar(info.name) as progress:
        path = download(args.name, progress)
    print(f"{info.name}: downloaded to {path}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from ..models import remove

    print(f"{args.name}: removed, {_megabytes(remove(args.name))} freed")
    return 0


ACTIONS = {
    "list": _list,
    "verify": _verify,
    "convert": _convert,
    "download": _download,
    "remove": _remove,
}
