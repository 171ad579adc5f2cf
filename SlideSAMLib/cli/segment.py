"""`slidesam segment`: one image, some prompts, one label map."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .prompting import AXES, add_prompt_arguments, check_range, gather_prompts

if TYPE_CHECKING:
    from ..api import SlideResult
    from ..images.volumes import ImageVolume
    from ..prompts import SlicePrompt

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `slidesam segment`."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file or DICOM folder")
    parser.add_argument(
        "output",
        type=Path,
        metavar="OUTPUT",
        help="label map: .nii.gz, .nii, .nrrd, .mha or .seg.nrrd",
    )
    add_prompt_arguments(parser)
    add_model_arguments(parser)
    add_image_arguments(parser)
    parser.add_argument(
        "--report", type=Path, metavar="FILE.json", help="write slices, times and stop reasons here"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model runs, and where."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="builtin", metavar="NAME|FILE", help="default: builtin")
    group.add_argument(
        "--device", default="auto", metavar="DEVICE", help="auto (default), cpu, cuda or mps"
    )
    group.add_argument("--precision", choices=PRECISIONS, default="auto")


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """How the image is read."""
    group = parser.add_argument_group("image")
    group.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="grey values that the model sees; default: chosen from the image",
    )
    group.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("K", "J", "I"),
        help="voxel size in mm along k, j, i, instead of the file's own",
    )
    group.add_argument("--series", metavar="UID", help="which DICOM series of the folder")
    group.add_argument(
        "--fill-non-finite", type=float, metavar="VALUE", help="replace NaN and infinite voxels"
    )
    group.add_argument(
        "--allow-labels", action="store_true", help="take a label map as if it were an image"
    )


def run(args: argparse.Namespace) -> int:
    """Segment one image; nothing is written before everything has succeeded."""
    from ..images import volumes
    from .outputs import check_different, check_writable, write_together

    prompts = gather_prompts(args)
    volumes.output_suffix(args.output)
    files = {"IMAGE": args.image, "OUTPUT": args.output, "--report": args.report}
    files |= {"--prompts": args.prompts, "--model": Path(args.model).expanduser()}
    check_different({name: path for name, path in files.items() if path is not None})
    if args.report is not None:
        check_writable(args.report, "The report")
    check_writable(args.output)
    image = read_image(args)
    geometry = image.geometry
    volumes.check_lattice(geometry, args.output)
    result = segment_image(args, image, prompts)
    text = json.dumps(make_report(args, image, prompts, result), indent=1) + "\n"
    del image  # writing the mask needs memory, too

    writers: dict[Path, Callable[[Path], None]] = {
        args.output: lambda path: volumes.write_mask(
            result.mask, geometry, path, name=volumes.stem(args.output)
        )
    }
    if args.report is not None:
        writers[args.report] = lambda path: _write_text(path, text)
    write_together(writers)
    print(summary(result, str(args.output)))
    return 0


def read_image(args: argparse.Namespace) -> ImageVolume:
    """Read IMAGE as the arguments of `add_image_arguments` say."""
    from ..images import volumes

    image = volumes.read_image(
        args.image,
        series=args.series,
        allow_labels=args.allow_labels,
        fill_non_finite=args.fill_non_finite,
        spacing=args.spacing,
    )
    if image.note:
        print(f"note: {image.note}", file=sys.stderr)
    return image


def segment_image(
    args: argparse.Namespace, image: ImageVolume, prompts: list[SlicePrompt]
) -> SlideResult:
    """Check everything against the image, load the model, slide with a progress bar."""
    from ..api import segment_stack
    from ..models import load_model
    from ..stack import Stack
    from .progress import slice_bar

    stack = Stack(image.array, axis=AXES[args.axis], spacing=image.spacing, window=args.window)
    check_range(prompts, args.first, args.last, (stack.slices, stack.height, stack.width))
    model = load_model(args.model, device=args.device, precision=args.precision)
    with slice_bar("segmenting") as progress:
        result = segment_stack(
            stack, prompts, args.first, args.last, model=model, progress=progress
        )
    if not result.mask.any():
        print("warning: the model found nothing at the prompt, the mask is empty", file=sys.stderr)
    return result


def make_report(
    args: argparse.Namespace,
    image: ImageVolume,
    prompts: list[SlicePrompt],
    result: SlideResult,
) -> dict[str, Any]:
    """What `--report` writes: what ran, how long, and what came out of every slice."""
    from .. import __version__

    return {
        "slidesam": __version__,
        "image": str(image.path),
        "axis": args.axis,
        "model": result.model,
        "device": result.device,
        "precision": result.precision,
        "intensity": [float(value) for value in result.intensity],
        "prompts": [
            {"slice": p.index, "box": p.box, "points": p.points, "labels": p.labels}
            for p in prompts
        ],
        "seconds": {name: round(float(value), 4) for name, value in result.seconds.items()},
        "voxels": sum(result.voxels.values()),
        "slices": [
            {"index": index, "voxels": result.voxels[index], "confidence": round(float(c), 4)}
            for index, c in result.confidence.items()
        ],
        "stops": result.stops,
    }


def summary(result: SlideResult, output: str) -> str:
    """One line about a finished run."""
    filled = [index for index, voxels in result.voxels.items() if voxels]
    extent = f"slices {filled[0]} to {filled[-1]}" if filled else "no slice"
    return (
        f"{output}: {sum(result.voxels.values())} voxels on {extent} in "
        f"{result.seconds['total']:.1f} s ({result.model}, {result.device}, {result.precision})"
    )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
