"""`slidesam evaluate`: measure a model on the labelled volumes of a manifest."""

from __future__ import annotations

import argparse
import glob
import importlib.util
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .prompting import PROMPTS

if TYPE_CHECKING:
    from .cases import Case

RESULTS = "results.jsonl"
REFERENCE = "reference"  # the published scheme, which refuses some structures
HEADERS = (".mhd", ".nhdr", ".hdr", ".img")  # files whose voxels, or header, lie beside them
UNREPEATED = ("command", "version", "manifest", "resume")  # not options of the same evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    add_shared_arguments(
        parser,
        ("clicks", "all"),
        "clicks: a simulated user corrects up to Dice 0.9, at most 20 clicks; all: these three",
    )
    parser.add_argument(
        "--baselines", action="store_true", help="measure the baselines without a network, too"
    )
    parser.add_argument(
        "--baselines-only", action="store_true", help="measure nothing but the baselines"
    )
    parser.add_argument(
        "--scheme",
        choices=("default", REFERENCE),
        default="default",
        help="how the window slides; reference: as published, without structures that it refuses",
    )
    parser.add_argument("--no-overlays", action="store_true", help="draw no pictures")
    parser.add_argument(
        "--gallery",
        type=_positive_number,
        metavar="N",
        help="draw gallery.png, too: the N structures with the lowest Dice and some typical ones",
    )
    parser.add_argument(
        "--no-surfaces",
        action="store_true",
        help="leave out surface Dice and Hausdorff distance, which take a second a structure",
    )


def add_shared_arguments(
    parser: argparse.ArgumentParser, protocols: tuple[str, ...] = (), about: str = ""
) -> None:
    """Declare what every command that measures a model on a manifest is told.

    protocols : choices beside full, extent and both; about : what they mean.
    """
    from ..cli.segment import add_model_arguments

    parser.add_argument("manifest", type=Path, help="JSON list of cases with images and labels")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--prompt",
        choices=PROMPTS,
        default="box",
        help="true box with up to 5 %% of hand jitter per side, the innermost point, or three "
        "points",
    )
    parser.add_argument(
        "--protocol",
        choices=("full", "extent", "both", *protocols),
        default="both",
        help="full: Dice over the whole volume, no limits given; extent: the structure's ends "
        "are given, Dice over its own slices; both (default): one after the other"
        f"{about and '; '}{about}",
    )
    parser.add_argument(
        "--limit",
        type=_whole_number,
        default=3,
        metavar="N",
        help="largest structures used of each case, 0 for all (default: 3)",
    )
    parser.add_argument(
        "--min-voxels",
        type=_whole_number,
        default=0,
        metavar="N",
        help="leave out smaller structures",
    )
    parser.add_argument("--cases", nargs="+", metavar="ID", help="only these cases")
    add_model_arguments(parser)
    parser.add_argument(
        "--workers",
        type=_positive_number,
        default=1,
        metavar="N",
        help="processes with one thread each (default: this one alone)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the boxes' jitter (default: 0)")
    parser.add_argument(
        "--resume", action="store_true", help="keep the results that --output already has"
    )


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises InputError or ModelError before anything is written."""
    from ..files.locks import alone_with
    from ..files.whole_files import make_folder
    from .cases import check_structures, read_manifest
    from .results import check_new

    pictures = not (args.no_overlays or args.baselines_only)
    _check_packages(args, pictures)
    results = args.output / RESULTS
    if not args.resume:
        check_new([results])
    cases = read_manifest(args.manifest, args.cases)
    count = check_structures(cases, args.limit, args.min_voxels)
    model, described = (None, {}) if args.baselines_only else load_described(args)
    shared = shared_settings(args)
    shared |= {"scheme": args.scheme, "surfaces": not args.no_surfaces, **described}
    overlays = args.output / "overlays"
    make_folder(overlays if pictures else args.output)
    with alone_with(results, "written", needed=False):
        if not args.resume:
            check_new([results])  # another run may have begun meanwhile
        found = _measure(args, cases, model, shared, overlays if pictures else None)
        chosen = {"limit": args.limit or "all", "min voxels": args.min_voxels}
        settings = {**shared, "protocol": args.protocol, **chosen, "workers": args.workers}
        settings |= _refused(found, count)
        settings["command line"] = command_line(args)
        _write(args.output, found, settings, overlays if pictures else None)
        if args.gallery and not args.baselines_only:
            _draw_gallery(args, cases, model, found, args.gallery)
    return 0


def _check_packages(args: argparse.Namespace, pictures: bool) -> None:
    """Raise InputError where a package is missing that this evaluation needs."""
    drawn = pictures or (args.gallery and not args.baselines_only)
    if drawn and importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            'The pictures need matplotlib: pip install "SlideSAM[evaluate]", or give --no-overlays '
            "and no --gallery."
        )
    if not args.no_surfaces and importlib.util.find_spec("monai") is None:
        raise InputError(
            'The surfaces need MONAI: pip install "SlideSAM[evaluate]", or give --no-surfaces.'
        )


def _measure(
    args: argparse.Namespace, cases: list, model: Any, shared: dict, overlays: Path | None
) -> list:
    """The results, kept in a file as they come; those of an earlier run that goes on are in it."""
    from .results import DATA, ResultFile
    from .runner import evaluate

    file = ResultFile(args.output / RESULTS, {**shared, DATA: data_hashes(cases)})
    done = file.resume() if args.resume else file.start()
    with bar("evaluating") as progress:
        return evaluate(
            cases,
            model,
            args.prompt,
            args.protocol,
            args.limit,
            args.min_voxels,
            args.baselines or args.baselines_only,
            args.seed,
            _slide_settings(args),
            args.workers,
            overlays,
            not args.no_surfaces,
            done,
            file.append,
            progress,
            skip_refused=args.scheme == REFERENCE,
        )


def _refused(results: Sequence, count: int) -> dict[str, int]:
    """What the report says, of so many structures, about those that the published scheme refuses.

    Raises InputError where it refuses all.
    """
    if not results:
        raise InputError(
            "The published scheme refuses every structure: it needs three slices, and cannot start "
            "on the first or last one of a volume."
        )
    refused = count - len({(result.case, result.value) for result in results})
    if not refused:
        return {}
    print(f"Left out: {refused} of {count} structures, which the published scheme refuses.")
    return {"structures refused": refused}


def _draw_gallery(
    args: argparse.Namespace, cases: list, model: Any, results: list, worst: int
) -> None:
    from . import protocols
    from .gallery import NAME, draw_gallery
    from .runner import Plan

    chosen = protocols.chosen(args.protocol)
    plan = Plan(model, args.prompt, chosen, seed=args.seed, settings=_slide_settings(args))
    draw_gallery(results, cases, plan, worst, args.output / NAME)
    print(f"Written to {args.output}: {NAME}.")


def shared_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What all results of one file have in common; a resumed run must agree with it."""
    import hashlib

    from .. import __version__

    return {
        "manifest": args.manifest.name,
        "manifest sha256": hashlib.sha256(args.manifest.read_bytes()).hexdigest(),
        "prompt": args.prompt,
        "seed": args.seed,
        "version": __version__,
        "code sha256": code_hash(),
    }


def data_hashes(cases: Sequence[Case]) -> dict[str, str]:
    """SHA-256 of the image and label of each case, by id; a resumed run must agree with it.

    Not their size and time, which copies do not keep and edited files may: hashing the bytes takes
    a small part of the time of unpacking the volumes, and each run does that in any case.
    """
    from ..files.whole_files import file_sha256

    return {
        case.id: " ".join(file_sha256(f) for p in (case.image, case.label) for f in _files(p))
        for case in cases
    }


def _files(path: Path) -> list[Path]:
    """A volume's file, with those of the same name beside it where it needs them."""
    if path.suffix.lower() not in HEADERS:
        return [path]
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))


def code_hash() -> str:
    """SHA-256 of the code that results depend on: all of this library but what only trains."""
    import hashlib

    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] != "training":
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def load_described(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The model for `evaluate`, and what the report says about it."""
    from .runner import ModelSource
    from .variants import settings_of

    source = ModelSource(args.model, args.device, args.precision)
    model = source.load()
    described = {
        "model": model.traits.name,
        "model sha256": _weights_hash(args.model),
        "device": model.device,
        "precision": model.precision,
    }
    if own := settings_of(model):
        described["model settings"] = own
    # Several processes load it by themselves: a name travels better than gigabytes.
    return (model if args.workers == 1 else source), described


def _weights_hash(name: str) -> str | None:
    """SHA-256 of the model's file; None where it has none (a model registered by a program)."""
    from ..catalogue import CATALOGUE
    from ..files.whole_files import file_sha256

    path = CATALOGUE[name].path if name in CATALOGUE else Path(name).expanduser()
    return file_sha256(path) if path.is_file() else None


def _slide_settings(args: argparse.Namespace) -> Any:
    from ..sliding.slide_types import SlideSettings

    return SlideSettings(scheme=args.scheme)


def command_line(args: argparse.Namespace) -> str:
    """A command that repeats this evaluation, with every option that is not off."""
    words = ["slidesam", args.command, str(args.manifest)]
    for name, value in vars(args).items():
        if name in UNREPEATED or value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return shlex.join(words)


def _write(folder: Path, results: list, settings: dict[str, Any], pictures: Path | None) -> None:
    from . import click_report, report

    texts = {
        "results.csv": report.as_csv(results),
        "results.json": report.as_json(results, settings),
        "report.md": report.as_markdown(results, settings, pictures),
    }
    clicks = click_report.summarise_clicks(results)
    if clicks is not None:
        texts["clicks.csv"] = click_report.clicks_as_csv(results)
    write_texts(folder, texts)
    for summary in report.summarise(results):
        print(report.summary_line(summary))
    if clicks is not None:
        print(click_report.summary_line(clicks))
    print(f"Written to {folder}: {', '.join(texts)}.")


def write_texts(folder: Path, texts: dict[str, str]) -> None:
    """Write some files of text (name -> content), all or none."""
    from ..cli.outputs import write_together

    def writer(text: str) -> Callable[[Path], object]:
        return lambda path: path.write_text(text, encoding="utf-8")

    write_together({folder / name: writer(text) for name, text in texts.items()})


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of finished structures, shown on a terminal only."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="structure", disable=None) as shown:

        def show(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield show


def _whole_number(text: str) -> int:
    return _number(text, 0)


def _positive_number(text: str) -> int:
    return _number(text, 1)


def _number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return int(text)
