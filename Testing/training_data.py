"""Small data sets and settings for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from SlideSAMLib.training.sam_windows import (
    Frame,
    SamSlab,
    WindowSample,
    cut_slab,
    user_prompt,
    window,
)
from SlideSAMLib.training.slabs import Labelled, labelled
from Testing.cli_tools import noisy_ball, write_image

FRAME = Frame(size=128, raster=32, resize="antialias", scaling="sam")
SMALL = {"widths": [8, 16, 16, 32], "depths": [0, 1, 1, 1], "blocks": 1, "heads": 4}


def write_balls(root: Path, count: int = 4) -> Path:
    """An nnU-Net data set of noisy balls, one label."""
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "ball": 1}}
    (root / "dataset.json").write_text(json.dumps(content | {"file_ending": ".nii.gz"}))
    for n in range(count):
        volume, mask = noisy_ball(n)
        write_image(root / "imagesTr" / f"ball_{n}_0000.nii.gz", volume)
        write_image(root / "labelsTr" / f"ball_{n}.nii.gz", mask.astype(np.uint8))
    return root


def tiny_run(output: Path, balls: Path, **others: object) -> dict:
    """Settings of a run on such a data set that takes a second or two."""
    return {
        "output": str(output),
        "steps": 10,
        "batch": 2,
        "accumulate": 2,
        "warm_up": 2,
        "log_every": 3,
        "precision": "32-true",
        "sources": {},
        "datasets": [{"path": str(balls)}],
        "in_memory": 2,
        "network": SMALL,
        **others,
    }


def small_map(seed: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """In place of invented shapes, which take a second: three blocks that depend on the seed."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 60, 60), np.uint8)
    for value in (1, 2, 3):
        k, j, i = rng.integers(2, 18), *rng.integers(2, 36, 2)
        labels[k : k + 16, j : j + 20, i : i + 20] = value
    return labels, np.array([0, 1, 2, 3]), [(1, 2)]


def blocks(unlabelled: int | None = None) -> Labelled:
    """A bright block of label 1 on slices 4 to 9 of 12."""
    labels = np.zeros((12, 40, 50), np.uint16)
    labels[4:10, 10:26, 12:34] = 1
    image = np.where(labels > 0, 0.9, 0.1).astype(np.float16)
    source = labelled(labels, image, (3.0, 1.0, 1.0))
    source.unlabelled = unlabelled
    return source


def samples_of(source: Labelled, count: int) -> list[WindowSample]:
    rng = np.random.default_rng(0)
    return [
        WindowSample(*window(slab, 1, FRAME), *user_prompt(slab.mask[1], FRAME, rng))
        for slab in draw(source, count)
    ]


def draw(source: Labelled, count: int = 60, seed: int = 0) -> list[SamSlab]:
    rng = np.random.default_rng(seed)
    return [cut_slab(source, rng) for _ in range(count)]
