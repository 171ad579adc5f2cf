"""`slidesam demo`: segment a real MR brain, or the user's own image, and draw the result."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError
from .prompting import add_prompt_arguments, gather_prompts
from .segment import add_image_arguments, add_model_arguments, read_image

FOLDER = Path("demo-output")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `slidesam demo`."""
    parser.add_argument(
        "--output", type=Path, default=FOLDER, metavar="DIR", help=f"default: {FOLDER}"
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="your own image file or DICOM folder; it needs prompts",
    )
    add_prompt_arguments(parser)
    add_model_arguments(parser)
    add_image_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the demo on the brain, or on --image with its prompts."""
    if find_spec("matplotlib") is None:
        raise InputError("The demo draws with matplotlib: pip install matplotlib.")
    from ..demo import data
    from ..demo import run as demo

    if args.image is not None:
        prompts = gather_prompts(args)
        demo.check_folder(args.output)
        demo.check_inputs(args, "segment")
        demo.run(args, read_image(args), prompts, name="segment")
        return 0
    if args.slice is not None or args.box or args.point or args.negative_point or args.prompts:
        raise InputError("Prompts need --image FILE: the brain of the demo has its own.")
    reading = (args.spacing, args.series, args.fill_non_finite)
    if args.axis != data.AXIS or args.allow_labels or any(value is not None for value in reading):
        raise InputError(
            "--axis, --spacing, --series, --fill-non-finite and --allow-labels need --image FILE."
        )
    demo.check_folder(args.output)
    demo.check_inputs(args, "brain")
    brain = data.load_brain()
    demo.run(args, brain.image, [data.PROMPT], name="brain", reference=brain.mask)
    return 0
