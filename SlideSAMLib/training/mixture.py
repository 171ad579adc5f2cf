"""The mixture of sources that slabs are drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from . import datasets, sources
from .config import TrainConfig
from .slabs import Slab, cut
from .sources import Source

REFRESH = 1500  # slabs until one invented label map is replaced by a new one

# Families of real volumes, so that many small volumes do not outweigh few large ones.
FAMILIES = {
    "heart": ("card_", 0.8),
    "sarcoma_mr": ("sarcoma_mr_", 1.0),
    "sarcoma_ct": ("sarcoma_ct_", 0.6),
    "hippocampus": ("hippocampus_", 0.6),
    "lung": ("ct_lung", 0.5),
    "brain": (("ms_", "brain_", "glioma_"), 1.0),
}


class Mixture:
    """Draws slabs from the configured sources; the same sequence for the same seed."""

    def __init__(self, config: TrainConfig, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.seed, self.drawn = seed, 0
        self.sources = [*_load(config, seed), *own_shelves(config, seed)]
        if not self.sources:
            raise InputError("The configuration gives no share to any source of windows.")
        weights = np.array([s.weight for s in self.sources])
        self.shares = weights / weights.sum()

    def draw(self) -> Slab:
        """A slab of a random source; sources that give none are passed over."""
        self.drawn += 1
        if self.drawn % REFRESH == 0:
            self._refresh()
        while True:
            source = self.sources[self.rng.choice(len(self.sources), p=self.shares)]
            slab = cut(source.volume(self.rng), self.rng)
            if slab is not None:
                return slab

    def _refresh(self) -> None:
        for source in self.sources:
            if source.name == "shapes":
                place = self.rng.integers(len(source.volumes))
                source.volumes[place] = sources.invented(self.seed * 7919 + self.drawn)


def own_shelves(config: TrainConfig, seed: int) -> list[datasets.Shelf]:
    """The data sets of one's own, without the cases that are held out."""
    shelves = []
    for n, described in enumerate(config.datasets):
        training, _ = datasets.split(datasets.read_dataset(described), config.held_out)
        rng = np.random.default_rng(seed + 31 * n)
        shelves.append(datasets.Shelf(training, config.in_memory, rng))
    return shelves


def _load(config: TrainConfig, seed: int) -> list[Source]:
    share = config.sources
    loaded = []
    if share.get("shapes"):
        loaded.append(Source("shapes", share["shapes"], sources.synthetic(config.shapes, seed)))
    if not config.data:
        return loaded
    cases = sources.read_manifest(Path(config.data) / "manifest.json")
    if share.get("label_maps"):
        maps = sources.label_maps([c for c in cases if "image" not in c])
        loaded.append(Source("label_maps", share["label_maps"], maps))
    with_image = [c for c in cases if "image" in c]
    if share.get("regions"):
        large = [c for c in with_image if np.prod(c["shape"]) > 400_000 and c["shape"][2] > 15]
        loaded.append(Source("regions", share["regions"], sources.regions(large, seed)))
    if share.get("real"):
        total = sum(weight for _, weight in FAMILIES.values())
        for name, (prefix, weight) in FAMILIES.items():
            volumes = sources.real([c for c in with_image if c["id"].startswith(prefix)])
            if volumes:
                loaded.append(Source(name, share["real"] * weight / total, volumes))
    return loaded
