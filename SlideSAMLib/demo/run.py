"""The demo from end to end: segment, measure, write files and pictures, tell about it."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..api import SlideResult
from ..cli import segment as segment_command
from ..cli.outputs import check_different, check_writable, write_together
from ..cli.prompting import AXES
from ..evaluation.metrics import dice
from ..images import volumes
from ..images.volumes import ImageVolume
from ..prompts import SlicePrompt
from ..stack import Stack
from .orientation import SliceView
from .pictures import Scene, draw_prompted_slice, draw_strip
from .surface import draw_surface

PROMPTED, STRIP, SURFACE, REPORT = (
    "prompted-slice.png",
    "slices.png",
    "surface.png",
    "report.json",
)


def check_folder(folder: Path) -> None:
    """Raise InputError unless files can be written into `folder`, which need not exist yet."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    check_writable((folder if existing == folder else existing) / REPORT, "The demo's output")


def check_inputs(args: argparse.Namespace, name: str) -> None:
    """Raise InputError where the demo would write over a file that it reads."""
    names = (*_label_maps(name), PROMPTED, STRIP, SURFACE, REPORT)
    files = {f"the demo's {file}": args.output / file for file in names}
    read = {"--image": args.image, "--prompts": args.prompts}
    read["--model"] = Path(args.model).expanduser()
    check_different(files | {what: path for what, path in read.items() if path is not None})


def _label_maps(name: str) -> tuple[str, str]:
    return f"{name}.seg.nrrd", f"{name}.nii.gz"


def run(
    args: argparse.Namespace,
    image: ImageVolume,
    prompts: list[SlicePrompt],
    name: str,
    reference: np.ndarray | None = None,
) -> None:
    """Segment `image`, write everything into args.output and print what happened.

    name : of the segment and of the files.
    reference : known mask, bool (K, J, I), to compare the result with.
    """
    result = segment_command.segment_image(args, image, prompts)
    report = segment_command.make_report(args, image, prompts, result)
    if reference is not None:
        report["dice"] = round(dice(result.mask, reference), 6)
    files = _write_files(args, image, prompts, result, report, name, reference)
    missing = _write_surface(args.output, name) if result.mask.any() else "the mask is empty"
    if missing is None:
        files.append(args.output / SURFACE)
    for line in _describe(image, prompts, result, report):
        print(line)
    print("files    " + "\n         ".join(str(path) for path in files))
    if missing is not None:
        (args.output / SURFACE).unlink(missing_ok=True)  # it would show the run before
        print(f"note     no picture of the 3D surface: {missing}")


def _write_files(
    args: argparse.Namespace,
    image: ImageVolume,
    prompts: list[SlicePrompt],
    result: SlideResult,
    report: dict,
    name: str,
    reference: np.ndarray | None,
) -> list[Path]:
    """Write the label maps, the report and the two slice pictures; returns their paths."""
    axis = AXES[args.axis]
    stack = Stack(image.array, axis=axis, spacing=image.spacing, window=result.intensity)
    scene = Scene(
        stack=stack,
        view=SliceView.of(image.geometry, axis),
        axis=args.axis,
        masks=stack.from_volume(result.mask),
        confidence=result.confidence,
        prompts=tuple(prompts),
        reference=None if reference is None else stack.from_volume(reference),
    )
    text = json.dumps(report, indent=1) + "\n"
    label_map = partial(volumes.write_mask, result.mask, image.geometry, name=name)
    writers: dict[Path, Callable[[Path], object]] = {
        **{args.output / file: label_map for file in _label_maps(name)},
        args.output / REPORT: lambda path: path.write_text(text, encoding="utf-8"),
        args.output / PROMPTED: partial(draw_prompted_slice, scene),
        args.output / STRIP: partial(draw_strip, scene),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    write_together(writers)
    return list(writers)


def _write_surface(folder: Path, name: str) -> str | None:
    """Render the surface beside its place and move it there; returns why not, or None."""
    with tempfile.TemporaryDirectory(prefix=".slidesam-", dir=folder) as temporary:
        picture = Path(temporary) / SURFACE
        missing = draw_surface(folder / f"{name}.seg.nrrd", picture)
        if missing is None:
            picture.replace(folder / SURFACE)
    return missing


def _describe(
    image: ImageVolume, prompts: list[SlicePrompt], result: SlideResult, report: dict
) -> list[str]:
    """What the demo prints about its result, line by line."""
    size = " x ".join(str(n) for n in image.geometry.size)
    spacing = " x ".join(f"{s:.3g}" for s in image.geometry.spacing)
    filled = [index for index, voxels in result.voxels.items() if voxels]
    extent = f", {report['axis']} = {filled[0]} to {filled[-1]}" if filled else ""
    seconds = result.seconds
    each = seconds["total"] / max(len(result.confidence), 1)
    lines = [f"image    {image.path.name}: {size} voxels of {spacing} mm"]
    lines += [f"prompt   {_prompt_text(report['axis'], prompt)}" for prompt in prompts]
    lines += [
        f"model    {result.model} on {result.device} in {result.precision}",
        f"result   {report['voxels']} voxels on {len(filled)} slices{extent}",
        "stopped  " + "; ".join(f"{side}: {why}" for side, why in result.stops.items()),
        f"time     {each:.3f} s per slice, {seconds['total']:.1f} s in all "
        f"(encoding {seconds['encode']:.1f} s, predicting {seconds['predict']:.1f} s)",
    ]
    if "dice" in report:
        lines.append(f"Dice     {report['dice']:.3f} against the template's brain mask")
    return lines


def _prompt_text(axis: str, prompt: SlicePrompt) -> str:
    parts = [f"slice {axis} = {prompt.index}"]
    if prompt.box is not None:
        parts.append("box (" + ", ".join(f"{v:g}" for v in prompt.box) + ")")
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        parts.append(f"{'point' if label else 'negative point'} ({x:g}, {y:g})")
    return ", ".join(parts)
