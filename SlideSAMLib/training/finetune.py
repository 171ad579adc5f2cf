"""Fine-tuning a model on data of one's own: "my liver model", with a small card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalogue import CATALOGUE
from ..errors import InputError
from ..evaluation.cases import Case, check_structures
from ..files.safetensors_files import write_safetensors
from ..files.tensor_files import is_builtin, read_tensor_file
from ..files.whole_files import file_sha256
from ..sam.adapters import BASE
from ..sam.checkpoints import load_checkpoint
from .config import TrainConfig, read_settings, train_config
from .datasets import Dataset, held_out_cases, read_dataset, split
from .selection import measure

if TYPE_CHECKING:
    from ..evaluation.report import Summary

# What differs from a training from scratch; everything can be set in the configuration.
DEFAULTS = {
    "steps": 1000,
    "learning_rate": 2e-4,
    "warm_up": 50,
    "average": 0.99,
    "shapes": 20,
    "held_out": 0.2,
    "sources": {"shapes": 0.2},
}
# Of the SAM networks: they see images only, and their encoders are better left alone.
SAM_DEFAULTS = DEFAULTS | {
    "learning_rate": 1e-4,
    "batch": 2,
    "accumulate": 4,
    "sources": {},
    "trainable": "lora",
}
OWN = ("name", "licence")  # settings that training from scratch does not have
MOST_HELD_OUT = 5  # cases of each data set that are measured before and after
LARGEST = 3  # structures of each of them


@dataclass(frozen=True)
class FinetuneConfig:
    """name : of the new model, for people; licence : of its weights; train : everything else."""

    name: str
    licence: str
    train: TrainConfig

    @property
    def weights_path(self) -> Path:
        """Where the new model goes."""
        return Path(self.train.output) / f"{slug(self.name)}.safetensors"

    @property
    def card_path(self) -> Path:
        return Path(self.train.output) / f"{slug(self.name)}.md"


def slug(name: str) -> str:
    """A file name for the name of a model."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def read_finetune_config(path: Path) -> FinetuneConfig:
    """Read a YAML file: the settings of a training, and the `name` and `licence` of the model.

    `datasets` must be given; `start_from`, a name of the catalogue or a file, is the built-in model
    by default. Relative paths are relative to the working folder. Raises InputError or ModelError.
    """
    values = read_settings(path)
    name = values.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"The configuration {path} must give the new model a `name`.")
    if not values.get("datasets"):
        raise InputError(
            f"The configuration {path} must list `datasets`: nnU-Net folders or manifests."
        )
    settings = {key: value for key, value in values.items() if key not in OWN}
    # A name without a value is as good as none.
    settings["start_from"] = str(_base(str(settings.get("start_from") or "builtin")))
    sam = not is_builtin(read_tensor_file(settings["start_from"]))
    train = train_config((SAM_DEFAULTS if sam else DEFAULTS) | settings, path)
    if sam and any(train.sources.values()):
        load_checkpoint(settings["start_from"])  # says what it is where it is none of these either
        raise InputError(f"In {path}, sources is for the built-in model: leave it out.")
    return FinetuneConfig(name.strip(), str(values.get("licence") or "not stated"), train)


def _base(name: str) -> Path:
    """The file of the model to start from: a name of the catalogue, or a path."""
    path = CATALOGUE[name].path if name in CATALOGUE else Path(name).expanduser()
    if not path.is_file():
        way = "give a name of 'slidesam models list', or a file"
        if name in CATALOGUE:
            way = f"download it with 'slidesam models download {name}'"
        raise InputError(f"The model to start from, {name}, is not there: {way}.")
    return path


def check_measured(config: TrainConfig) -> None:
    """Raise InputError where a data set, or a case of it that `export` measures, cannot be used.

    At the start, and not after hours of training.
    """
    cases = _measured_cases([read_dataset(described) for described in config.datasets], config)
    if cases:
        check_structures(cases, LARGEST, 0)


def _measured_cases(datasets: Sequence[Dataset], config: TrainConfig) -> list[Case]:
    return held_out_cases(datasets, config.held_out, MOST_HELD_OUT)


def export(config: FinetuneConfig, trained: Path) -> tuple[Summary | None, Summary | None]:
    """Write the model file and its card; returns what was measured before and after."""
    note = {
        "name": config.name,
        "licence": config.licence,
        "started_from": file_sha256(Path(config.train.start_from)),
    }
    file = read_tensor_file(trained)
    write_safetensors(file.tensors, config.weights_path, {**file.metadata, **note})
    datasets = [read_dataset(described) for described in config.train.datasets]
    cases = _measured_cases(datasets, config.train)
    before = after = None
    if cases:
        before, after = (
            measure(cases, weights, limit=LARGEST)
            for weights in (Path(config.train.start_from), config.weights_path)
        )
    config.card_path.write_text(card(config, datasets, before, after), encoding="utf-8")
    return before, after


def card(
    config: FinetuneConfig,
    datasets: Sequence[Dataset],
    before: Summary | None,
    after: Summary | None,
) -> str:
    """The model card, Markdown."""
    train = config.train
    length = f"{train.minutes:g} minutes" if train.minutes else f"{train.steps} steps"
    lines = [
        f"# {config.name}",
        "",
        f"Made from `{Path(train.start_from).name}` (SHA-256 "
        f"`{file_sha256(Path(train.start_from))}`) by `slidesam finetune`. Licence: "
        f"{config.licence}. Research only: **not a medical device, not for clinical use**.",
        "",
        f"File `{config.weights_path.name}`, SHA-256 `{file_sha256(config.weights_path)}`. "
        + _needs(config),
        "",
        "| Data set | Weight | Cases trained on | Cases held out | Structures |",
        "|---|---|---|---|---|",
    ]
    for dataset in datasets:
        kept, out = split(dataset, train.held_out)
        chosen = ", ".join(dataset.labels) or "all"
        lines.append(
            f"| {dataset.name} | {dataset.weight:g} | {len(kept.cases)} | {len(out.cases)} | "
            f"{chosen} |"
        )
    for dataset in datasets:
        if ids := ", ".join(case.id for case in split(dataset, train.held_out)[1].cases):
            lines += ["", f"Held out of {dataset.name}: {ids}."]
    others = ", ".join(f"{name} {share:g}" for name, share in train.sources.items() if share)
    lines += [
        "",
        f"Other sources by weight: {others or 'none'}. Trained: {train.trainable}, {length}, "
        f"steps of {train.batch * train.accumulate} windows a process, learning rate "
        f"{train.learning_rate:g}, seed {train.seed}.",
        "",
        *_measured(before, after, train, datasets),
    ]
    return "\n".join(lines) + "\n"


def _needs(config: FinetuneConfig) -> str:
    base = read_tensor_file(config.weights_path).metadata.get(BASE)
    return f"It holds what was changed and needs the model `{base}` to be there." if base else ""


def unmeasured(train: TrainConfig, datasets: Sequence[Dataset]) -> str:
    """Why nothing was measured."""
    if any(split(dataset, train.held_out)[1].cases for dataset in datasets):
        return (
            "None of the held-out cases has a structure that was learnt, so nothing was measured."
        )
    return "No case was held out, so nothing was measured."


def _measured(
    before: Summary | None,
    after: Summary | None,
    train: TrainConfig,
    datasets: Sequence[Dataset],
) -> list[str]:
    if before is None or after is None:
        return [unmeasured(train, datasets)]
    partly = any(dataset.unlabelled is not None for dataset in datasets)
    where = "all labelled voxels" if partly else "the whole volume"
    chosen = train.select is not None and train.select.manifest is None
    doubt = ["", "The held-out cases have chosen the weights, too: the Dice after is too good."]
    return [
        f"Measured on {after.structures} structures of {after.cases} cases that were held out, one "
        f"box each, Dice over {where} (the {LARGEST} largest structures of a case, at "
        f"most {MOST_HELD_OUT} cases of a data set):",
        "",
        "| | Mean over cases | Lower quartile of structures |",
        "|---|---|---|",
        f"| before | {before.mean:.3f} | {before.lower_structures:.3f} |",
        f"| after | {after.mean:.3f} | {after.lower_structures:.3f} |",
        *(doubt if chosen else []),
    ]
