"""Labelled data of one's own: nnU-Net dataset folders and manifests, by weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..evaluation.cases import Case, read_manifest
from . import sources
from .config import DatasetConfig
from .generators import StateMismatch, generator_state, restored_generator
from .nnunet import read_nnunet, without_label
from .slabs import SMALLEST, Labelled, labelled, largest_section

MOST_NAMED = 10  # cases in a message
EXCHANGE = 40  # draws until one volume in memory is replaced by another of the data set


@dataclass(frozen=True)
class Dataset:
    """The cases of a source. labels : names of the structures that are learnt; empty for all.

    unlabelled : label value of the voxels that nobody has labelled, or None.
    """

    name: str
    weight: float
    cases: list[Case]
    labels: tuple[str, ...] = ()
    unlabelled: int | None = None


def read_dataset(config: DatasetConfig) -> Dataset:
    """Find the cases of a source; reads no volume.

    Raises InputError where the folder or the manifest cannot be used, a file is missing, or a
    label is not known.
    """
    path = Path(config.path).expanduser()
    if path.is_dir():
        cases = read_nnunet(path, config.channel)
    elif path.is_file():
        cases = read_manifest(path, verify=False)
    else:
        raise InputError(f"There is no data set {path}: give an nnU-Net folder or a manifest.json.")
    _check_labels(cases, config.labels, path)
    name = path.name if path.is_dir() else path.parent.name
    unlabelled = _unlabelled(cases, config.unlabelled, path)
    return Dataset(name, config.weight, cases, config.labels, unlabelled)


def _unlabelled(cases: Sequence[Case], wanted: int | None, path: Path) -> int | None:
    """The value that is given, or else the one that the data set names itself."""
    own = cases[0].unlabelled
    if wanted is not None and own is not None and wanted != own:
        raise InputError(
            f"The data set {path} has the label ignore, {own}, for what nobody has labelled: "
            f"leave out `unlabelled`, which says {wanted}."
        )
    return own if wanted is None else wanted


def _check_labels(cases: Sequence[Case], wanted: Sequence[str], path: Path) -> None:
    """Raise InputError where a wanted label is in no case, or two share a value in one."""
    known = {name for case in cases for name in (*case.names.values(), *case.regions)}
    known = {name for name in known if any(case.values(name) for case in cases)}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"The data set {path} has no label {', '.join(unknown)}; it has: "
            f"{', '.join(sorted(known))}."
        )
    for case in cases:
        owner: dict[int, str] = {}
        for name in wanted:
            for value in case.values(name):
                other = owner.setdefault(value, name)
                if other != name:
                    raise InputError(
                        f"The labels {other} and {name} of the data set {path} overlap: list it "
                        "twice in datasets, with one of them each."
                    )


def split(dataset: Dataset, held_out: float) -> tuple[Dataset, Dataset]:
    """The cases to train on and those held out, a share spread evenly over their order.

    At least one is held out where the share is above 0 and there are two; one is always left.
    """
    count = len(dataset.cases)
    wanted = min(max(round(held_out * count), 1), count - 1) if held_out > 0 else 0
    places = {int((n + 0.5) * count / wanted) for n in range(wanted)}
    kept = [case for n, case in enumerate(dataset.cases) if n not in places]
    out = [case for n, case in enumerate(dataset.cases) if n in places]
    return replace(dataset, cases=kept), replace(dataset, cases=out)


def described(config: DatasetConfig, held_out: float) -> str:
    """What a data set has to teach, as a sentence for the start of a run."""
    dataset, path = read_dataset(config), Path(config.path).expanduser()
    kept, out = split(dataset, held_out)
    said = f"{dataset.name}: {_counted(kept.cases, 'case')} to train on"
    if out.cases:
        said += f", {len(out.cases)} held out ({_named([case.id for case in out.cases])})"
    missing = without_label(path, dataset.cases) if path.is_dir() else []
    if missing:
        verb = "has" if len(missing) == 1 else "have"
        said += f", {_counted(missing, 'image')} left out that {verb} no label ({_named(missing)})"
    return said + "."


def _counted(things: Sequence, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _named(ids: Sequence[str]) -> str:
    return ", ".join([*ids[:MOST_NAMED], *(["..."] if len(ids) > MOST_NAMED else [])])


def held_out_cases(datasets: Sequence[Dataset], share: float, most: int = 0) -> list[Case]:
    """The first `most` cases (0: all) that are held out of each data set, to be measured.

    They keep the wanted labels only, by default all of them, and those of a case with regions by
    region; what nobody has labelled is not measured. Cases without any structure are left out. No
    id comes twice: those of several data sets begin with the place of the data set in the list,
    where they must.
    """
    cases = []
    for place, dataset in enumerate(datasets, 1):
        out = (_measured(dataset, case) for case in split(dataset, share)[1].cases)
        usable = (case for case in out if case.structures())
        cases += [(place, case) for case in islice(usable, most or None)]
    if len({case.id for _, case in cases}) == len(cases):
        return [case for _, case in cases]
    return [replace(case, id=f"{place}: {case.id}") for place, case in cases]


def _measured(dataset: Dataset, case: Case) -> Case:
    """A case with what is measured of it."""
    known = replace(case, unlabelled=dataset.unlabelled)
    return known.keeping(dataset.labels) if dataset.labels else known.by_region()


class Shelf:
    """Some volumes of a data set in memory, exchanged one by one: data sets may be large.

    `volume` gives a random one. Volumes without a usable structure are passed over.
    smallest : voxels of a usable structure on the slice that shows most of it.
    state : of an earlier shelf with the same cases; this one goes on where that one stood.
    Raises StateMismatch where the cases are others.
    """

    def __init__(
        self,
        dataset: Dataset,
        most: int,
        rng: np.random.Generator,
        state: dict | None = None,
        smallest: int = SMALLEST,
    ) -> None:
        self.name, self.weight = dataset.name, dataset.weight
        self._dataset, self._most, self._rng, self._smallest = dataset, most, rng, smallest
        self._waiting: list[int] = []  # places among the cases
        self._volumes: list[Labelled] = []
        self._drawn = 0
        if state is not None:
            self._restore(state)
            return
        for _ in dataset.cases:
            if len(self._volumes) < most:
                self._read_next()
        if not self._volumes:
            raise InputError(
                f"The data set {dataset.name} has no structure that is large enough "
                "to be learnt: see which label values its files hold."
            )

    def state(self) -> dict:
        """Which volumes are in memory and which come next, without their voxels."""
        return {
            "name": self.name,
            "cases": [case.id for case in self._dataset.cases],
            "waiting": list(self._waiting),
            "volumes": [volume.key for volume in self._volumes],
            "drawn": self._drawn,
            "rng": generator_state(self._rng),
        }

    def _restore(self, state: dict) -> None:
        if state.get("cases") != [case.id for case in self._dataset.cases]:
            raise StateMismatch(f"the cases of {self.name} are others")
        self._volumes = [self.find(key) for key in state["volumes"]]
        self._waiting, self._drawn = list(state["waiting"]), state["drawn"]
        self._rng = restored_generator(state["rng"])

    def check(self, state: dict) -> None:
        """It was made from the state, and has checked it then."""

    def find(self, key: int) -> Labelled:
        """The volume of a case, read again where it has been replaced."""
        there = next((volume for volume in self._volumes if volume.key == key), None)
        volume = there or self._read(key)
        if volume is None:
            raise StateMismatch(f"the labels of {self._dataset.cases[key].id} have changed")
        return volume

    def volume(self, rng: np.random.Generator) -> Labelled:
        """A random volume; now and then one that was not in memory before."""
        self._drawn += 1
        if self._drawn % EXCHANGE == 0 and len(self._dataset.cases) > self._most:
            before = len(self._volumes)
            self._read_next()
            if len(self._volumes) > before:
                self._volumes.pop(0)
        return self._volumes[rng.integers(len(self._volumes))]

    def _read_next(self) -> None:
        if not self._waiting:
            self._waiting = self._rng.permutation(len(self._dataset.cases)).tolist()
        volume = self._read(self._waiting.pop())
        if volume is not None:
            self._volumes.append(volume)

    def _read(self, key: int) -> Labelled | None:
        volume = labelled_case(self._dataset.cases[key], self._dataset, self._smallest)
        if volume is not None:
            volume.key = key
        return volume


def labelled_case(case: Case, dataset: Dataset, smallest: int = SMALLEST) -> Labelled | None:
    """Read a case for training; None where it has no structure that is large enough.

    smallest : voxels of a structure on the slice that shows most of it.
    """
    case = replace(case, unlabelled=dataset.unlabelled)
    content = case.load()
    kept = case.keeping(dataset.labels)
    labels = content.labels
    if dataset.labels:  # the others stay beside them
        wanted = replace(kept, content=content).load_labels()
        labels = np.where(wanted > 0, wanted, labels)
    labels = sources.label_values(labels, case.id)
    unlabelled = None
    if dataset.unlabelled is not None:  # it gets a value that no label has
        unlabelled = int(labels.max()) + 1
        if content.known is not None:
            labels = np.where(content.known, labels.astype(np.int32), unlabelled)
            labels = sources.label_values(labels, case.id)
    volume = labelled(labels, sources.scaled(content.volume, case.id), content.spacing, smallest=60)
    volume.unlabelled = unlabelled
    if not dataset.labels and case.regions:
        volume.groups, volume.grouped = list(case.by_region().parts.values()), True
    volume.targets = [
        value
        for value in volume.targets
        if value != unlabelled
        and (not dataset.labels or value in kept.names)
        and largest_section(volume, value) >= smallest
    ]
    return volume if volume.targets else None
