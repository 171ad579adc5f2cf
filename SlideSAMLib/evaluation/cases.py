"""Cases with known labels: reading a manifest, its files, and ranking the structures.

The manifest is JSON: `{"cases": [{"id", "image", "label", "labels": [{"value", "name"}],
"sha256": {"image", "label"}, "modality", ...}]}`, paths relative to the manifest's folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..stack import Stack

if TYPE_CHECKING:
    from ..images.volumes import Geometry

# A volume counts as anisotropic when its coarsest axis is this much coarser than axis k.
ANISOTROPIC = 1.1


@dataclass(frozen=True)
class Structure:
    """One label value of a case: its value, name, and voxel count in the label volume.

    Of a case with regions: its number, see `Case.by_region`.
    """

    value: int
    name: str
    voxels: int


@dataclass(frozen=True, eq=False)
class CaseVolume:
    """A case in memory.

    volume, labels : (K, J, I) arrays on the same lattice, labels of an integer type.
    spacing : (sk, sj, si) in mm.
    axis : the axis along which the window slides.
    known : bool, of the same shape, False where nobody has labelled the voxel; None where all are
        labelled. The labels are 0 there.
    """

    volume: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]
    axis: int
    known: np.ndarray | None = None


@dataclass(frozen=True)
class Case:
    """One entry of a manifest, or a case that is in memory already (`content`).

    The files are read by `load`, not before. `names` says what each label value means, `regions`
    which values have a further name together. See `keeping` for `only`, `by_region` for `parts`.
    unlabelled : label value of the voxels that nobody has labelled, or None.
    spacing : (sk, sj, si) in mm where the files do not say it themselves.
    """

    id: str
    image: Path | None = None
    label: Path | None = None
    names: dict[int, str] = field(default_factory=dict)
    modality: str = ""
    content: CaseVolume | None = field(default=None, repr=False, compare=False)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    parts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    unlabelled: int | None = None
    spacing: tuple[float, float, float] | None = None

    def values(self, name: str) -> list[int]:
        """The label values of what has this name, in order; empty where there is no such thing."""
        own = [value for value, own in self.names.items() if own == name]
        return sorted(value for value in self.regions.get(name, own) if value > 0)

    def keeping(self, names: Sequence[str]) -> Case:
        """This case with the structures of these names alone, each with one label value.

        The case itself where no name is given.
        """
        if not names:
            return self
        kept = {name: tuple(values) for name in names if (values := self.values(name))}
        values = {values[0]: name for name, values in kept.items()}
        return replace(self, names=values, regions=kept, only=tuple(names))

    def by_region(self) -> Case:
        """This case with its regions as structures, beside the labels that have their own name.

        Regions may share voxels, so structures have numbers of their own then (`parts`: number ->
        label values). The case itself where it has no regions.
        """
        if not self.regions:
            return self
        known = dict.fromkeys([*self.names.values(), *self.regions])
        names = dict(enumerate((name for name in known if self.values(name)), 1))
        parts = {number: tuple(self.values(name)) for number, name in names.items()}
        return replace(self, names=names, parts=parts)

    def structures(self, limit: int = 3, min_voxels: int = 0) -> list[Structure]:
        """Its structures, see the function `structures`; reads the labels."""
        return structures(self.load_labels(), self.names, limit, min_voxels, self.parts)

    def truth(self, labels: np.ndarray, structure: Structure) -> np.ndarray:
        """The mask of one of its structures in its labels, bool."""
        if self.parts:
            return np.isin(labels, self.parts[structure.value])
        return labels == structure.value

    def load(self) -> CaseVolume:
        """Read both volumes; raises InputError where they cannot be used together."""
        if self.content is not None:
            labels = self.content.labels
            return replace(self.content, labels=self._chosen(labels), known=self._known(labels))
        from ..images.volumes import read_image

        # The manifest says which file is the image, so it may even be a label map.
        image = read_image(self.image, allow_labels=True, spacing=self.spacing)
        label = read_image(self.label, allow_labels=True, spacing=self.spacing)
        self._check_lattices(image.geometry, label.geometry)
        spacing = tuple(float(s) for s in image.spacing)
        labels = self._whole(label.array)
        return CaseVolume(
            image.array, self._chosen(labels), spacing, slide_axis(spacing), self._known(labels)
        )

    def check(self) -> None:
        """Raise InputError where the headers of its files say that `load` would do so."""
        if self.content is None:
            from ..images.volumes import read_geometry

            image, label = read_geometry(self.image), read_geometry(self.label)
            if self.spacing is not None:
                own = self.spacing[::-1]  # k, j, i -> ITK's i, j, k
                image, label = replace(image, spacing=own), replace(label, spacing=own)
            self._check_lattices(image, label)

    def _check_lattices(self, image: Geometry, label: Geometry) -> None:
        shape, other = image.size[::-1], label.size[::-1]  # i, j, k -> k, j, i
        if shape != other:
            raise InputError(
                f"Case {self.id}: the image has the shape {shape}, its labels have {other}; they "
                "must lie on the same lattice."
            )
        if not image.alike(label):
            raise InputError(
                f"Case {self.id}: spacing, origin or direction of {self.label} are not those of "
                "its image; resample the labels onto the lattice of the image."
            )

    def load_labels(self) -> np.ndarray:
        """Read the labels alone: integers (K, J, I)."""
        if self.content is not None:
            return self._chosen(self.content.labels)
        from ..images.volumes import read_image

        return self._chosen(self._whole(read_image(self.label, allow_labels=True).array))

    def _whole(self, labels: np.ndarray) -> np.ndarray:
        """The labels of a file as integers."""
        if labels.dtype.kind == "f":
            whole = np.rint(labels)
            if not np.array_equal(whole, labels):
                raise InputError(f"Case {self.id}: {self.label} holds fractions, not labels.")
            labels = whole.astype(np.int32)
        return labels

    def _known(self, labels: np.ndarray) -> np.ndarray | None:
        """Where the labels say something, see `CaseVolume.known`."""
        if self.unlabelled is None:
            return None if self.content is None else self.content.known
        known = labels != self.unlabelled
        return None if known.all() else known

    def _chosen(self, labels: np.ndarray) -> np.ndarray:
        """Of the labels those that are kept; 0 where nobody has labelled."""
        if self.unlabelled is not None:
            labels = np.where(labels == self.unlabelled, 0, labels)
        if not self.only:
            return labels
        kept = np.zeros_like(labels)
        for values in self.regions.values():
            kept[np.isin(labels, values)] = values[0]
        return kept


def slide_axis(spacing: Sequence[float]) -> int:
    """The axis to slide along, given (sk, sj, si): the coarsest one, otherwise k.

    The coarsest axis is that of the acquisition. Where no axis is more than 10 % coarser than k,
    the slices are those of the file as stored, whatever anatomical plane that is.
    """
    coarsest = int(np.argmax(spacing))
    return coarsest if spacing[coarsest] > ANISOTROPIC * spacing[0] else 0


def structures(
    labels: np.ndarray,
    names: dict[int, str],
    limit: int = 3,
    min_voxels: int = 0,
    parts: Mapping[int, Sequence[int]] | None = None,
) -> list[Structure]:
    """The structures of a label volume, largest first (equal ones by value).

    A structure is one label value as it stands in the file, in one piece or several.
    `limit` keeps that many of the largest (0: all); smaller ones than `min_voxels` are left out.
    parts : the structures are these numbers instead, of several label values each.
    """
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    sizes = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if parts:
        sizes = {n: sum(sizes.get(value, 0) for value in own) for n, own in parts.items()}
    found = [
        Structure(value, names.get(value, f"label {value}"), size)
        for value, size in sizes.items()
        if size >= max(min_voxels, 1)
    ]
    found.sort(key=lambda s: (-s.voxels, s.value))
    return found[:limit] if limit else found


def check_structures(cases: Sequence[Case], limit: int, min_voxels: int) -> int:
    """The number of structures that `structures` names; raises InputError where there is none.

    All of these cases are read, so that a damaged one is found now and not hours later.
    """
    counts = [len(case.structures(limit, min_voxels)) for case in cases]
    used = [case for case, count in zip(cases, counts, strict=True) if count]
    if not used and min_voxels <= 1:
        raise InputError("No case has a structure: the labels of all are 0 everywhere.")
    if not used:
        raise InputError(
            f"No case has a structure of {min_voxels} voxels or more: ask for fewer voxels."
        )
    for case in used:
        content = case.load()
        try:
            Stack(content.volume, content.axis, content.spacing)
        except InputError as error:
            raise InputError(f"Case {case.id}: {error}") from None
    return sum(counts)


def read_manifest(
    path: str | Path, ids: Sequence[str] | None = None, verify: bool = True
) -> list[Case]:
    """The cases of a manifest that have an image and labels, in the manifest's order.

    ids : only these cases.
    verify : every file must be there and, where the manifest states a SHA-256, match it.

    Raises InputError: no such file, not such a manifest, unknown case, missing or changed file.
    """
    path = Path(path)
    entries = manifest_entries(path)
    if ids:
        known = {str(entry.get("id")) for entry in entries}
        unknown = [i for i in ids if i not in known]
        if unknown:
            raise InputError(
                f"There is no case {', '.join(unknown)} in {path}; it has: "
                f"{', '.join(sorted(known))}."
            )
        entries = [entry for entry in entries if str(entry.get("id")) in ids]
    cases = []
    for entry in entries:
        if not entry.get("image") or not entry.get("label"):
            if ids:
                raise InputError(f"The case {entry.get('id')} of {path} has no image and label.")
            continue
        cases.append(_case(path, entry, verify))
    if not cases:
        raise InputError(f"The manifest {path} has no case with an image and a label.")
    return cases


def manifest_entries(path: Path) -> list[dict]:
    """The entries of a manifest as they stand, each with an id of its own. Raises InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"The manifest {path} cannot be read: {reason}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"The manifest {path} is not JSON: {error}.") from None
    entries = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InputError(f'The manifest {path} must be an object with a list "cases" of objects.')
    ids = [str(entry.get("id") or "") for entry in entries]
    if "" in ids or len(set(ids)) != len(ids):
        raise InputError(f'Every case of the manifest {path} needs an "id" of its own.')
    return entries


def label_names(manifest: Path, entry: dict) -> dict[int, str]:
    """What each label value of an entry means. Raises InputError."""
    try:
        return {int(item["value"]): str(item["name"]) for item in entry.get("labels") or []}
    except (TypeError, ValueError, KeyError, OverflowError):
        raise InputError(
            f'Case {entry["id"]} of {manifest}: "labels" must list objects with "value" and "name".'
        ) from None


def _case(manifest: Path, entry: dict, verify: bool) -> Case:
    paths = {part: manifest.parent / str(entry[part]) for part in ("image", "label")}
    names = label_names(manifest, entry)
    hashes = entry.get("sha256") or {}
    if not isinstance(hashes, dict):
        raise InputError(f'Case {entry["id"]} of {manifest}: "sha256" must be an object.')
    if verify:
        for part, file in paths.items():
            verify_file(str(entry["id"]), file, hashes.get(part))
    modality = str(entry.get("modality") or "")
    return Case(str(entry["id"]), paths["image"], paths["label"], names, modality)


def verify_file(case: str, file: Path, expected: str | None = None) -> None:
    """Raise InputError where a file is missing or has not the expected SHA-256, if one is given."""
    if not file.is_file():
        raise InputError(f"Case {case}: the file {file} is missing.")
    if expected is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise InputError(
            f"Case {case}: {file} is not the file of the manifest (SHA-256 {found[:12]}... instead "
            f"of {str(expected)[:12]}...); fetch it again."
        )
