"""Where training objects come from: shapes made here, label maps, real volumes, regions in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..evaluation.cases import Case, label_names, manifest_entries, verify_file
from ..images.volumes import read_image
from ..intensity import automatic_window
from . import shapes
from .generators import StateMismatch
from .slabs import Labelled, labelled

MOST_VALUES = np.iinfo(np.uint16).max  # the largest label value
PARTS_OF_ONE = ("hippocampus_", "glioma_")  # volumes whose labels are parts of one structure
FILLED = 0.4  # chance that a region of even intensity means what it encloses as well
STRIATUM = ("caudate", "putamen", "pallidum", "accumbens")


@dataclass
class Source:
    """A family of volumes, all in memory, and its share of the training windows."""

    name: str
    weight: float
    volumes: list[Labelled]

    def __post_init__(self) -> None:
        for place, volume in enumerate(self.volumes):
            volume.key = place

    @property
    def empty(self) -> bool:
        """Whether there is no volume to cut from."""
        return not self.volumes

    def volume(self, rng: np.random.Generator) -> Labelled:
        """A random one of its volumes."""
        return self.volumes[rng.integers(len(self.volumes))]

    def find(self, key: int) -> Labelled:
        """The volume with this key."""
        return self.volumes[key]

    def state(self) -> dict:
        """What must be the same where a run goes on."""
        return {"name": self.name, "volumes": len(self.volumes)}

    def check(self, state: dict) -> None:
        """Raise StateMismatch where the state is of other volumes."""
        if state != self.state():
            raise StateMismatch(f"the volumes of {self.name} are others")


class Shapes:
    """Label maps of invented shapes, known by their seeds; slabs of them are painted."""

    name = "shapes"
    empty = False

    def __init__(self, weight: float, seeds: Sequence[int]) -> None:
        self.weight = weight
        self._volumes = [invented(seed) for seed in seeds]

    def volume(self, rng: np.random.Generator) -> Labelled:
        """A random one of the label maps."""
        return self._volumes[rng.integers(len(self._volumes))]

    def find(self, key: int) -> Labelled:
        """The label map of a seed, made again where it has been replaced."""
        there = (volume for volume in self._volumes if volume.key == key)
        return next(there, None) or invented(key)

    def refresh(self, rng: np.random.Generator, seed: int) -> None:
        """Replace a random one by that of another seed."""
        self._volumes[rng.integers(len(self._volumes))] = invented(seed)

    def state(self) -> dict:
        """The seeds, of which all is made again."""
        return {"name": self.name, "seeds": [volume.key for volume in self._volumes]}

    def check(self, state: dict) -> None:
        """They are made from the state, so that it always fits."""


class Implants:
    """The same invented shapes, put into real volumes instead of being painted."""

    name = "implants"

    def __init__(
        self, weight: float, shapes: Shapes, canvases: Sequence[Sequence[Labelled]]
    ) -> None:
        self.weight, self._shapes, self._canvases = weight, shapes, canvases

    @property
    def empty(self) -> bool:
        """Whether there is no real volume to put them into."""
        return not self._canvases

    def volume(self, rng: np.random.Generator) -> Labelled:
        """A random one of the label maps; its slabs draw the real volume."""
        return replace(self._shapes.volume(rng), canvases=self._canvases)

    def find(self, key: int) -> Labelled:
        """The label map of a seed."""
        return replace(self._shapes.find(key), canvases=self._canvases)

    def state(self) -> dict:
        """How many real volumes there are of each kind; the shapes keep their own state."""
        return {"name": self.name, "volumes": [len(kind) for kind in self._canvases]}

    def check(self, state: dict) -> None:
        """Raise StateMismatch where the state is of other volumes."""
        if state != self.state():
            raise StateMismatch("the volumes of implants are others")


def first_seeds(count: int, seed: int) -> list[int]:
    """Of the label maps that a run starts with."""
    return [seed * 100_003 + n for n in range(count)]


def invented(seed: int) -> Labelled:
    """One label map of invented shapes."""
    labels, families, groups = shapes.label_map(seed)
    size = (1.0, 1.0, 1.0)
    kinds = {"families": families, "groups": groups}
    return labelled(labels, None, size, whole=0.2, key=seed, **kinds)


def read_manifest(path: Path) -> list[dict]:
    """The cases of a data manifest, with paths of those of `image` and `label` that they have.

    Raises InputError where `evaluation.cases.read_manifest` does, but no SHA-256 is looked at.
    """
    return [_case(path, entry) for entry in manifest_entries(path)]


def _case(manifest: Path, entry: dict) -> dict:
    case = {key: value for key, value in entry.items() if key not in ("image", "label")}
    case["id"] = str(entry["id"])
    names = label_names(manifest, entry)
    case["labels"] = [{"value": value, "name": name} for value, name in names.items()]
    for role in ("image", "label"):
        if entry.get(role):
            case[role] = manifest.parent / str(entry[role])
            verify_file(case["id"], case[role])
    return case


def _read(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    image = read_image(path, allow_labels=True)
    return image.array, image.spacing


def scaled(image: np.ndarray, case: str) -> np.ndarray:
    """The image as the models see it: its automatic intensity window as 0..1, float16.

    Raises InputError, which names the case, where the image cannot be learnt from.
    """
    if not np.isfinite(image).all():
        raise InputError(
            f"Case {case}: the image has voxels that are no finite numbers; replace them, or leave "
            "the case out."
        )
    low, high = automatic_window(image)
    if not low < high:
        raise InputError(f"Case {case}: all voxels of the image are alike; leave the case out.")
    return ((np.clip(image, low, high) - low) / (high - low)).astype(np.float16)


def label_values(labels: np.ndarray, case: str) -> np.ndarray:
    """Labels as uint16. Raises InputError, which names the case, where a value does not fit."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MOST_VALUES:
        raise InputError(
            f"Case {case}: its labels go from {low} to {high}, but label values must lie in 0 to "
            f"{MOST_VALUES}."
        )
    return labels.astype(np.uint16)


def label_maps(cases: list[dict]) -> list[Labelled]:
    """Label maps without images, to be painted; values are packed to 0..n."""
    out = []
    for case in cases:
        labels, spacing = _read(case["label"])
        values = np.union1d([0], labels)
        packed = np.searchsorted(values, labels).astype(np.min_scalar_type(len(values) - 1))
        there = (np.intersect1d(group, values) for group in head_groups(case))
        groups = [np.searchsorted(values, group).tolist() for group in there if len(group) > 1]
        out.append(labelled(packed, None, spacing, smallest=300, groups=groups))
    return out


def real(cases: list[dict]) -> list[Labelled]:
    """Real volumes with their labels."""
    out = []
    for case in cases:
        content = Case(case["id"], case["image"], case["label"]).load()
        labels = label_values(content.labels, case["id"])
        pixels, groups = scaled(content.volume, case["id"]), part_groups(case)
        volume = labelled(labels, pixels, content.spacing, smallest=60, groups=groups)
        if volume.targets:
            out.append(volume)
    return out


def head_groups(case: dict) -> list[list[int]]:
    """Values of a head's label map that are one object together, by the names of the labels."""
    names = {label["value"]: label["name"] for label in case.get("labels", [])}
    brain = {v: n for v, n in names.items() if "outside" not in n and n != "CSF"}
    groups = [list(brain), [v for v, n in brain.items() if "ventricle" in n]]
    for side in ("left", "right"):
        own = {v: n for v, n in brain.items() if n.startswith(side)}
        cerebellum = [v for v, n in own.items() if "cerebellum" in n]
        groups += [cerebellum, [v for v in own if v not in cerebellum]]
        groups.append([v for v, n in own.items() if n.split()[-1] in STRIATUM])
    return [group for group in groups if len(group) > 1]


def part_groups(case: dict) -> list[list[int]]:
    """Values of a real volume that are one object together: the parts of its one structure."""
    if not case["id"].startswith(PARTS_OF_ONE):
        return []
    names = {label["value"]: label["name"] for label in case.get("labels", [])}
    values = list(names)
    core = [value for value, name in names.items() if "oedema" not in name]
    return [values, core] if 1 < len(core) < len(values) else [values]


def is_large(case: dict) -> bool:
    """Whether a volume is large enough for `regions`, by its `shape` (i, j, k) or its file.

    Raises InputError where neither says how large it is.
    """
    shape = case.get("shape")
    try:
        if shape is None:
            header = sitk.ImageFileReader()
            header.SetFileName(str(case["image"]))
            header.ReadImageInformation()
            shape = header.GetSize()
        return bool(np.prod(shape) > 400_000 and shape[2] > 15)
    except RuntimeError:
        raise InputError(f"Case {case['id']}: {case['image']} is damaged or no image.") from None
    except (TypeError, ValueError, IndexError, KeyError):
        raise InputError(
            f"Case {case['id']}: its shape must be three numbers of voxels, not {shape!r}."
        ) from None


def regions(cases: list[dict], seed: int) -> list[Labelled]:
    """Real volumes with regions of even intensity as objects: edges of real images, no labels."""
    out = []
    for n, case in enumerate(cases):
        image, spacing = _read(case["image"])
        pixels = scaled(image, case["id"])
        rng = np.random.default_rng(seed + n)
        labels = even_regions(pixels.astype(np.float32), spacing, rng)
        volume = labelled(labels, pixels, spacing, smallest=300, whole=0.1, filled=FILLED)
        biggest = labels.size // 6
        counts = np.bincount(labels.ravel())
        volume.targets = [v for v in volume.targets if counts[v] < biggest]
        if volume.targets:
            out.append(volume)
    return out


def even_regions(image: np.ndarray, spacing, rng: np.random.Generator) -> np.ndarray:
    """Connected pieces of even intensity in a smoothed image, uint16 (K, J, I); 0 = none.

    Otsu's thresholds split the intensities into a few bands; an opening drops the thin shells
    that partial volume leaves between two tissues.
    """
    volume = sitk.GetImageFromArray(image)
    volume.SetSpacing([float(s) for s in reversed(spacing)])  # k, j, i -> ITK's i, j, k
    smooth = sitk.SmoothingRecursiveGaussian(volume, float(min(spacing) * rng.uniform(0.5, 1.0)))
    bands = sitk.OtsuMultipleThresholds(smooth, numberOfThresholds=int(rng.integers(2, 5)))
    labels = np.zeros(image.shape, np.uint16)
    flat = max(spacing) > 1.8 * min(spacing)
    radius = [1, 1, 0 if flat else 1]  # i, j, k: thick slices are not opened across
    for value in range(1, int(sitk.GetArrayViewFromImage(bands).max()) + 1):
        band = sitk.BinaryMorphologicalOpening(bands == value, radius)
        pieces = sitk.RelabelComponent(sitk.ConnectedComponent(band), 300)
        found = sitk.GetArrayFromImage(pieces).astype(np.int64)
        labels = np.where(found > 0, found + int(labels.max()), labels)
    return labels.astype(np.uint16)
