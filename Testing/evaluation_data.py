"""Small labelled volumes and manifests for the tests of the evaluation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from SlideSAMLib.evaluation.cases import Case, CaseVolume, slide_axis

FIRST, LAST = 5, 14
SLICES = 20


def column_case(leak: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(volume, labels), both (20, 32, 36): a bright block of 10 x 12 voxels on slices 5..14.

    With `leak` the bright block goes on through all slices while label 1 does not. Label 2 is a
    smaller bright block, apart from the first, on slices 8..11.
    """
    labels = np.zeros((SLICES, 32, 36), np.uint8)
    labels[FIRST : LAST + 1, 4:14, 5:17] = 1
    labels[8:12, 20:26, 22:30] = 2
    volume = np.where(labels > 0, 100, 0).astype(np.int16)
    if leak:
        volume[:, 4:14, 5:17] = 100
    return volume, labels


def memory_case(leak: bool = False, case_id: str = "block", axis: int | None = None) -> Case:
    """`column_case` as a case in memory, 1 mm isotropic."""
    volume, labels = column_case(leak)
    spacing = (1.0, 1.0, 1.0)
    chosen = slide_axis(spacing) if axis is None else axis
    return Case(
        case_id,
        names={1: "large block", 2: "small block"},
        content=CaseVolume(volume, labels, spacing, chosen),
    )


def write_manifest(folder: Path, **changes: Any) -> Path:
    """A manifest of two cases in a folder: "block" and "leaky"; `changes` alter every entry."""
    entries = []
    for name, leak in (("block", False), ("leaky", True)):
        volume, labels = column_case(leak)
        entry: dict[str, Any] = {
            "id": name,
            "image": f"{name}_image.nii.gz",
            "label": f"{name}_label.nii.gz",
            "modality": "made up",
            "labels": [{"value": 1, "name": "large block"}, {"value": 2, "name": "small block"}],
            "sha256": {},
        }
        for part, array in (("image", volume), ("label", labels)):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(folder / entry[part]))
            content = (folder / entry[part]).read_bytes()
            entry["sha256"][part] = hashlib.sha256(content).hexdigest()
        entries.append({**entry, **changes})
    path = folder / "manifest.json"
    path.write_text(json.dumps({"set": "test", "cases": entries}), encoding="utf-8")
    return path
