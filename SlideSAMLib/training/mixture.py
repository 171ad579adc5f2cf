"""The mixture of sources that slabs are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import datasets, sources
from .config import TrainConfig, left_out
from .fields import Device
from .generators import StateMismatch, generator_state, restored_generator
from .slabs import SMALLEST, Labelled, Slab, cut
from .sources import Implants, Shapes, Source

TRIES = 300  # in a row without a slab before the search is given up
REFRESH = 1500  # slabs until one invented label map is replaced by a new one
SHELF = 24  # pieces whose slabs wait for their next slides, so that those are no neighbours

# Families of real volumes, so that many small volumes do not outweigh few large ones: how their
# ids begin, and their weights. All others are one family more, with the weight 1.
FAMILIES = {
    "heart": (("card_",), 0.8),
    "sarcoma_mr": (("sarcoma_mr_",), 1.0),
    "sarcoma_ct": (("sarcoma_ct_",), 0.6),
    "hippocampus": (("hippocampus_",), 0.6),
    "lung": (("ct_lung",), 0.5),
    "brain": (("ms_", "brain_", "glioma_"), 1.0),
}


class Mixture:
    """Draws slabs from the configured sources; the same sequence for the same seed.

    state : of an earlier mixture with the same configuration and seed; this one goes on where that
    one stood. device : where the slabs are made.

    Raises InputError, and StateMismatch where the volumes are others.
    """

    def __init__(
        self, config: TrainConfig, seed: int, state: dict | None = None, device: Device = "cpu"
    ) -> None:
        self._device = device
        self.rng = np.random.default_rng(seed)
        self.seed, self.drawn = seed, 0
        self._uses, self._shelf = config.slab_uses, []
        kept = state["sources"] if state else []
        shelves = kept[len(kept) - len(config.datasets) :]
        seeds = next((s["seeds"] for s in kept if "seeds" in s), None)
        self.sources = [*_load(config, seed, seeds), *own_shelves(config, seed, shelves)]
        weights = np.array([s.weight for s in self.sources])
        if not weights.sum() > 0:
            raise InputError("The configuration gives no share to any source that holds something.")
        self.shares = weights / weights.sum()
        if state is not None:
            self._restore(state)

    def state(self) -> dict:
        """Everything that the next slabs depend on, without voxels."""
        return {
            "rng": generator_state(self.rng),
            "drawn": self.drawn,
            "shelf": [slab.recipe for slab in self._shelf],
            "sources": [source.state() for source in self.sources],
        }

    def _restore(self, state: dict) -> None:
        if len(state["sources"]) != len(self.sources):
            raise StateMismatch("the sources are others")
        for source, kept in zip(self.sources, state["sources"], strict=True):
            source.check(kept)
        self.rng, self.drawn = restored_generator(state["rng"]), state["drawn"]
        self._shelf = [self.again(recipe) for recipe in state.get("shelf", ())]

    def draw(self) -> Slab:
        """A slab of a random source, or one drawn before in another guise, see `slab_uses`.

        Volumes that give no slab are passed over. Raises InputError where none is found.
        """
        older = len(self._shelf) - (self._uses - 1)  # than those of the newest piece
        if older > SHELF * (self._uses - 1):
            return self._shelf.pop(int(self.rng.integers(older)))
        slab = self._drawn()
        for _ in range(self._uses - 1):
            seed = int(self.rng.integers(1 << 62))
            again = slab.another(np.random.default_rng(seed))
            again.recipe = (*slab.recipe, seed)
            self._shelf.append(again)
        return slab

    def _drawn(self) -> Slab:
        self.drawn += 1
        if self.drawn % REFRESH == 0:
            self._refresh()
        for _ in range(TRIES):
            place = int(self.rng.choice(len(self.sources), p=self.shares))
            volume = self.sources[place].volume(self.rng)
            seed = int(self.rng.integers(1 << 62))
            slab = cut(volume, np.random.default_rng(seed), self._device)
            if slab is not None:
                slab.recipe = (place, volume.key, seed)
                return slab
        raise nothing_to_cut(self.sources[place].name)

    def again(self, recipe: Sequence[int]) -> Slab:
        """A slab that was drawn before: place of its source, key of its volume, seed of its cut.

        And the seed of its other guise where it has one. Raises StateMismatch where the volume
        gives no slab any more.
        """
        place, key, seed, *guise = recipe
        volume = self.sources[place].find(key)
        slab = cut(volume, np.random.default_rng(seed), self._device)
        if slab is None:
            raise StateMismatch(f"a volume of {self.sources[place].name} has changed")
        if guise:
            slab = slab.another(np.random.default_rng(guise[0]))
        slab.recipe = tuple(recipe)
        return slab

    def _refresh(self) -> None:
        for source in self.sources:
            if isinstance(source, Shapes):
                source.refresh(self.rng, self.seed * 7919 + self.drawn)


def check_data(config: TrainConfig) -> None:
    """Raise InputError where the data cannot be found, or two files of a case used together.

    By their headers: most volumes of a large data set are read long after the start.
    """
    for described in config.datasets:
        for case in datasets.read_dataset(described).cases:
            case.check()
    if config.data:
        sources.read_manifest(Path(config.data) / "manifest.json")


def own_shelves(
    config: TrainConfig, seed: int, states: Sequence[dict] = (), smallest: int = SMALLEST
) -> list[datasets.Shelf]:
    """The data sets of one's own, without the cases that are held out; as they were, by states.

    smallest : see `datasets.Shelf`.
    """
    shelves = []
    for n, described in enumerate(config.datasets):
        training, _ = datasets.split(datasets.read_dataset(described), config.held_out)
        rng = np.random.default_rng(seed + 31 * n)
        state = states[n] if states else None
        shelves.append(datasets.Shelf(training, config.in_memory, rng, state, smallest))
    return shelves


def nothing_to_cut(source: str) -> InputError:
    """What is raised after `TRIES` volumes in a row, the last of this source."""
    return InputError(
        f"No structure of {source} could be cut from its volume in {TRIES} tries: they are too "
        "small or too thin; leave the data set out, or name larger `labels`."
    )


def _load(
    config: TrainConfig, seed: int, seeds: Sequence[int] | None
) -> list[Shapes | Implants | Source]:
    share = config.sources
    loaded: list[Shapes | Implants | Source] = []
    if share.get("shapes") or share.get("implants"):
        seeds = sources.first_seeds(config.shapes, seed) if seeds is None else seeds
        loaded.append(Shapes(share.get("shapes", 0.0), seeds))
    if not config.data:
        return loaded
    cases = sources.read_manifest(Path(config.data) / "manifest.json")
    cases = [case for case in cases if case["id"] not in left_out(config)]
    if share.get("label_maps"):
        maps = sources.label_maps([c for c in cases if "label" in c and "image" not in c])
        loaded.append(Source("label_maps", share["label_maps"], maps))
    with_image = [c for c in cases if "image" in c]
    if share.get("regions"):
        large = [c for c in with_image if sources.is_large(c)]
        loaded.append(Source("regions", share["regions"], sources.regions(large, seed)))
    both = [c for c in with_image if "label" in c]
    families = _families(both) if share.get("real") or share.get("implants") else {}
    if share.get("implants"):
        loaded.append(Implants(share["implants"], loaded[0], list(families.values())))
    if share.get("real"):
        weights = {name: FAMILIES[name][1] if name in FAMILIES else 1.0 for name in families}
        total = sum(weights.values())
        for name, volumes in families.items():
            loaded.append(Source(name, share["real"] * weights[name] / total, volumes))
        if not families:
            loaded.append(Source("real", share["real"], []))
    return _without_empty(loaded, config.data)


def _without_empty(
    loaded: list[Shapes | Implants | Source], folder: str
) -> list[Shapes | Implants | Source]:
    empty = [source.name for source in loaded if source.empty]
    if empty:
        print(f"{folder} has nothing for the sources {', '.join(empty)}: left out.", flush=True)
    return [source for source in loaded if not source.empty]


def _families(cases: list[dict]) -> dict[str, list[Labelled]]:
    """The real volumes by family, those of no known family last; without empty families."""
    found = {
        name: sources.real([c for c in cases if c["id"].startswith(prefixes)])
        for name, (prefixes, _) in FAMILIES.items()
    }
    known = sum((prefixes for prefixes, _ in FAMILIES.values()), ())
    found["others"] = sources.real([c for c in cases if not c["id"].startswith(known)])
    return {name: volumes for name, volumes in found.items() if volumes}
