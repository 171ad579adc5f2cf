"""The training's settings, read from one YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path

import yaml

from ..errors import InputError
from ..evaluation.prompting import PROMPTS
from ..evaluation.protocols import EXTENT, FULL
from .settings import check_names, check_settings

PARTS = ("all", "decoder", "lora")
SOURCES = ("shapes", "implants", "label_maps", "regions", "real")
OPTIMISERS = ("adamw", "muon")


@dataclass(frozen=True)
class DatasetConfig:
    """One source of labelled volumes of one's own.

    path : an nnU-Net dataset folder (dataset.json, imagesTr, labelsTr), or a manifest.json.
    weight : its share of the windows, relative to the other sources.
    labels : names of the structures to learn; empty for all.
    channel : number of the image channel that is used (nnU-Net only).
    unlabelled : label value of voxels that nobody has labelled; they teach nothing and are not
        measured. None is for nnU-Net's label `ignore`, where there is one.
    """

    path: str
    weight: float = 1.0
    labels: tuple[str, ...] = ()
    channel: int = 0
    unlabelled: int | None = None


@dataclass(frozen=True)
class SelectConfig:
    """How the best weights of a run are found: by Dice over volumes that are slid over.

    steps : between two evaluations; or minutes of training, which no resumed run can repeat
        exactly. The last weights are always among those that are compared.
    manifest : the volumes; None for the cases of `datasets` that are held out.
    prompts, protocol : as in `evaluation.runner.evaluate`; several prompts count alike.
    limit : the largest structures of each case, 0 for all; min_voxels : the least of them.
    ids : the cases of the manifest that are used; empty for all. Where it is the manifest of
        `data`, they are not trained on; list all cases of the same patient.
    cases : the first ones, of these or of each data set, that are used; 0 for all.

    The Dice of cases that have chosen the weights is too good: report others.
    """

    steps: int | None = None
    minutes: float | None = None
    manifest: str | None = None
    ids: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("box",)
    protocol: str = FULL
    limit: int = 3
    min_voxels: int = 0
    cases: int = 0


@dataclass
class TrainConfig:
    """Everything a training run depends on.

    output : folder of the run (checkpoint, curve, final weights).
    data : folder of the training manifest, or None for invented shapes only.
    seed : of all that is drawn by chance.
    steps : optimiser steps; with `minutes`, of steps alone, the schedule follows the clock instead.
    batch : windows per batch and process; accumulate : batches per step of the optimiser.
    optimiser : "adamw", or "muon" for orthogonalised steps of the built-in network's inner
        matrices (`optimiser.MatrixAdamW`), which learn more per window.
    learning_rate : at its highest, which it reaches after `warm_up` steps; from there it falls
        along a cosine to 2 % of it.
    weight_decay : of the optimiser, for matrices only.
    average : share of the former average that each step leaves in the averaged weights, which are
        what is written; 0 writes the last weights themselves.
    shapes : how many label maps of invented shapes there are at a time.
    slab_uses : how many slides each cut piece of a volume is used for, mirrored or turned and in
        other greys from the second on: cutting and painting it takes most of a window's time. The
        built-in network only.
    precision : of the computation, as Lightning Fabric names it: "bf16-mixed", "16-mixed" or
        "32-true"; the weights themselves are float32 in any case.
    threads : of each training process, on the processor.
    log_every : steps between two rows of the curve; tensorboard : write it for TensorBoard, too.
    save_minutes : between two checkpoints.
    start_from : file of the model to go on from, for `finetune` also its name; None begins anew.
    sources : share of each family of volumes: shapes, implants, label_maps, regions, real.
    datasets : labelled data of one's own, see `datasets.DatasetConfig`; in_memory : volumes of each
        that are kept; held_out : share of their cases that is not trained on.
    trainable : "all"; "decoder" for everything behind the encoder; or "lora", the decoder and
        low-rank adapters of the encoder's attention (SAM networks only), of rank `lora_rank`.
    network : sizes of the built-in network; with `start_from` only deeper ones, see
        `builtin.weights.deepened`.
    data_processes : that make windows for each training process, ahead of it, with a batch each;
        0 makes them in between. For machines with idle cores; the built-in network only.
    select : keep the best weights by volume Dice, see `SelectConfig`; None keeps the last only.
    """

    output: str
    data: str | None = None
    seed: int = 1
    steps: int = 10_000
    minutes: float | None = None
    batch: int = 8
    accumulate: int = 1
    optimiser: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warm_up: int = 200
    average: float = 0.998
    shapes: int = 100
    slab_uses: int = 1
    precision: str = "bf16-mixed"
    threads: int = 1
    log_every: int = 50
    save_minutes: float = 5.0
    tensorboard: bool = False
    start_from: str | None = None
    sources: dict[str, float] = field(
        default_factory=lambda: {"shapes": 0.35, "label_maps": 0.15, "regions": 0.2, "real": 0.3}
    )
    network: dict = field(default_factory=dict)
    datasets: list[DatasetConfig] = field(default_factory=list)
    in_memory: int = 24
    held_out: float = 0.0
    trainable: str = "all"
    lora_rank: int = 8
    data_processes: int = 0
    select: SelectConfig | None = None


def read_config(path: Path) -> TrainConfig:
    """Read a YAML file; relative paths in it are relative to the working folder.

    Raises InputError for a missing or broken file and for settings that do not exist.
    """
    return train_config(read_settings(path), path)


def read_settings(path: Path) -> dict:
    """The settings of a YAML file, unchecked but for `output`; raises InputError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"The configuration {path} cannot be read: {reason}.") from None
    if not isinstance(values, dict) or "output" not in values:
        raise InputError(f"The configuration {path} must name at least the folder `output`.")
    return values


def train_config(values: dict, path: Path) -> TrainConfig:
    """Settings checked and made a TrainConfig; `path` is named in errors."""
    check_names(values, _names(TrainConfig), path)
    check_settings(values, path)
    try:
        described = [_dataset(entry, path) for entry in values.get("datasets") or []]
    except InputError:  # which is a ValueError, too
        raise
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"In {path}, datasets must be a list of entries with `path` and, if wanted, "
            "`weight`, `labels`, `channel` and `unlabelled`."
        ) from None
    chosen = _select(values.get("select"), path)
    config = TrainConfig(**{**values, "datasets": described, "select": chosen})
    _check(config, path)
    return config


def _names(settings: type) -> list[str]:
    return [one.name for one in fields(settings)]


def _dataset(entry: dict, path: Path) -> DatasetConfig:
    if isinstance(entry, dict):
        check_names(entry, _names(DatasetConfig), path, "an entry of datasets")
    described = DatasetConfig(**entry)
    whole = [described.channel, 0 if described.unlabelled is None else described.unlabelled]
    if not isfinite(float(described.weight)) or any(int(n) != float(n) for n in whole):
        raise ValueError
    labels = _texts(described.labels)
    return replace(
        described,
        path=_text(described.path),
        weight=float(described.weight),
        channel=int(described.channel),
        unlabelled=None if described.unlabelled is None else int(described.unlabelled),
        labels=labels,
    )


def _text(value: object) -> str:
    """A setting as text; TypeError for lists and tables.

    A few lines of YAML, whose lists stand in each other, make a text that fills the memory.
    """
    if isinstance(value, list | dict | set):
        raise TypeError("a text is needed, not a list")
    return str(value)


def _texts(values: Iterable | str) -> tuple[str, ...]:
    """One or several of them."""
    return tuple(_text(value) for value in ([values] if isinstance(values, str) else values))


def _select(entry: object, path: Path) -> SelectConfig | None:
    if entry is None:
        return None
    if isinstance(entry, dict):
        check_names(entry, _names(SelectConfig), path, "select")
    try:
        chosen = SelectConfig(**entry)
        prompts, ids = _texts(chosen.prompts), _texts(chosen.ids)
        manifest = None if chosen.manifest is None else _text(chosen.manifest)
        every = [value for value in (chosen.steps, chosen.minutes) if value is not None]
        good = len(every) == 1 and every[0] > 0
        counts = [chosen.limit, chosen.min_voxels, chosen.cases]
        good = good and all(isinstance(n, int) and n >= 0 for n in counts)
    except TypeError as error:
        raise InputError(f"In {path}, select cannot be used: {error}.") from None
    if not good:
        raise InputError(
            f"In {path}, select needs either `steps` or `minutes`, above 0, and limit, min_voxels "
            "and cases must be whole numbers from 0 on."
        )
    if not prompts or not set(prompts) <= set(PROMPTS) or chosen.protocol not in (FULL, EXTENT):
        raise InputError(
            f"In {path}, the prompts of select must be of {', '.join(PROMPTS)}, its protocol "
            f"{FULL} or {EXTENT}."
        )
    return replace(chosen, prompts=prompts, manifest=manifest, ids=ids)


def left_out(config: TrainConfig) -> tuple[str, ...]:
    """The cases of `data` that choose the weights, and are not trained on. Raises InputError."""
    chosen = config.select
    if chosen is None or chosen.manifest is None or not config.data:
        return ()
    manifest = Path(config.data) / "manifest.json"
    if Path(chosen.manifest).resolve() != manifest.resolve():
        return ()
    if not chosen.ids:
        raise InputError(f"{manifest} is trained on: name the cases that select uses as its `ids`.")
    return chosen.ids


def _check(config: TrainConfig, path: Path) -> None:
    """What `settings.check_settings` leaves: sizes, and what fits together."""
    if config.threads < 1:
        raise InputError(f"In {path}, threads must be positive.")
    if config.warm_up < 0 or not 0 <= config.average < 1:
        raise InputError(f"In {path}, warm_up must be 0 or more, average 0 or more and below 1.")
    if config.held_out >= 1:
        raise InputError(f"In {path}, held_out must be 0 or more and below 1.")
    weights = [*config.sources.values(), *(d.weight for d in config.datasets)]
    if min(weights, default=0) < 0 or sum(weights) <= 0:
        raise InputError(f"In {path}, weights must not be negative, and one must be positive.")
    unknown = sorted(set(config.sources) - set(SOURCES))
    if unknown:
        raise InputError(
            f"In {path}, sources has {', '.join(unknown)}; it knows {', '.join(SOURCES)}."
        )
    own = bool(config.datasets) and config.held_out > 0
    if config.select is not None and config.select.manifest is None and not own:
        raise InputError(
            f"In {path}, select needs a manifest, or datasets of which cases are held out."
        )
    left_out(config)
    if config.optimiser not in OPTIMISERS:
        raise InputError(f"In {path}, optimiser must be one of {', '.join(OPTIMISERS)}.")
    if config.trainable not in PARTS:
        raise InputError(f"In {path}, trainable must be one of {', '.join(PARTS)}.")
