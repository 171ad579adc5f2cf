"""`slidesam ablate`: what is each part of the slide worth? Named variants beside the default."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import command

FOLDER = "variants"  # in --output: the results of each variant, to resume from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the sub-command."""
    command.add_shared_arguments(parser)
    parser.add_argument(
        "--variants",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML or JSON: the changed settings of every variant, such as "
        "Testing/Benchmarks/ablations.yaml",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these variants, and the default"
    )


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; raises InputError or ModelError before anything is written."""
    from ..files.locks import alone_with
    from ..files.whole_files import make_folder
    from . import ablation_report
    from .cases import check_structures, read_manifest
    from .results import DATA, check_new
    from .variants import read_variants

    variants = _chosen(read_variants(args.variants), args.only)
    paths = {v.name: args.output / FOLDER / f"{v.slug}.jsonl" for v in variants}
    if not args.resume:
        check_new(paths.values())
    cases = read_manifest(args.manifest, args.cases)
    check_structures(cases, args.limit, args.min_voxels)
    model, described = command.load_described(args)
    models = {variant.name: _with_changes(model, variant) for variant in variants}
    shared = {**command.shared_settings(args), **described}
    make_folder(args.output / FOLDER)
    watched = {**shared, DATA: command.data_hashes(cases)}
    with alone_with(args.output / "ablation.json", "written", needed=False):
        if not args.resume:
            check_new(paths.values())  # another run may have begun meanwhile
        files = {v.name: _result_file(paths[v.name], v, watched) for v in variants}
        earlier = {n: file.resume() if args.resume else file.start() for n, file in files.items()}
        results = {
            v.name: _evaluate(args, cases, models[v.name], v, files[v.name], earlier[v.name])
            for v in variants
        }
        chosen = {"limit": args.limit or "all", "min voxels": args.min_voxels}
        settings = {**shared, **chosen, "command line": command.command_line(args)}
        comparisons = ablation_report.compare_all(results)
        texts = {
            "ablation.md": ablation_report.as_markdown(comparisons, settings),
            "ablation.csv": ablation_report.as_csv(comparisons),
            "ablation.json": ablation_report.as_json(variants, results, settings),
        }
        command.write_texts(args.output, texts)
    for line in comparisons:
        print(ablation_report.summary_line(line))
    print(f"Written to {args.output}: {', '.join(texts)}.")
    return 0


def _chosen(variants: list, names: list[str] | None) -> list:
    """The default and the variants of these names, all where none are given."""
    if not names:
        return variants
    unknown = [name for name in names if name not in {variant.name for variant in variants}]
    if unknown:
        # In quotes: names may have commas in them.
        raise InputError(
            f"There is no variant {', '.join(map(repr, unknown))}; there are: "
            f"{', '.join(repr(variant.name) for variant in variants)}."
        )
    return [variants[0], *(v for v in variants[1:] if v.name in names)]


def _with_changes(model: Any, variant: Any) -> Any:
    """A model, or the source of one, with the variant's changes."""
    from .runner import ModelSource
    from .variants import changed_model

    try:
        if isinstance(model, ModelSource):
            changed_model(model.load(), variant.model)  # finds out what is wrong before it starts
            return replace(model, changes=variant.model)
        return changed_model(model, variant.model)
    except InputError as error:
        raise InputError(f"Variant {variant.name!r}: {error}") from None


def _result_file(path: Path, variant: Any, shared: Mapping[str, Any]) -> Any:
    """The file of one variant's results."""
    from .results import ResultFile

    settings = variant.slide_settings()
    own = {"slide": asdict(settings), "changes of the model": dict(variant.model)}
    return ResultFile(path, {**shared, **own})


def _evaluate(
    args: argparse.Namespace, cases: list, model: Any, variant: Any, file: Any, done: list
) -> list:
    """The results of one variant, kept in a file of its own; `done` are those that it has."""
    from .runner import evaluate

    with command.bar(variant.name) as progress:
        return evaluate(
            cases,
            model,
            args.prompt,
            args.protocol,
            args.limit,
            args.min_voxels,
            seed=args.seed,
            settings=variant.slide_settings(),
            workers=args.workers,
            done=done,
            store=file.append,
            progress=progress,
            skip_refused=True,
        )
