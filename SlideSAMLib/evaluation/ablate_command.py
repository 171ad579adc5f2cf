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
    from . import ablation_report
    from .cases import check_structures, read_manifest
    from .variants import read_variants

    variants = _chosen(read_variants(args.variants), args.only)
    cases = read_manifest(args.manifest, args.cases)
    check_structures(cases, args.limit, args.min_voxels)
    model, described = command.load_described(args)
    models = {variant.name: _with_changes(model, variant) for variant in variants}
    shared = {**command.shared_settings(args), **described}
    command.make_folder(args.output / FOLDER)
    results = {
        variant.name: _evaluate(args, cases, models[variant.name], variant, shared)
        for variant in variants
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
        raise InputError(
            f"There is no variant {', '.join(unknown)}; there are: "
            f"{', '.join(variant.name for variant in variants)}."
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


def _evaluate(
    args: argparse.Namespace, cases: list, model: Any, variant: Any, shared: Mapping[str, Any]
) -> list:
    """The results of one variant, kept in a file of its own."""
    from .results import ResultFile
    from .runner import evaluate

    settings = variant.slide_settings()
    own = {"slide": asdict(settings), "changes of the model": dict(variant.model)}
    file = ResultFile(args.output / FOLDER / f"{variant.slug}.jsonl", {**shared, **own})
    done = file.resume() if args.resume else file.start()
    with command.bar(variant.name) as progress:
        return evaluate(
            cases,
            model,
            args.prompt,
            args.protocol,
            args.limit,
            args.min_voxels,
            seed=args.seed,
            settings=settings,
            workers=args.workers,
            done=done,
            store=file.append,
            progress=progress,
            skip_refused=True,
        )
