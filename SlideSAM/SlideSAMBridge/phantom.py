"""A made-up CT-like volume to try SlideSAM on without any download. No Qt."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

NAME = "SlideSAMPhantom"
SHAPE = (60, 128, 128)  # (K, J, I)
SPACING = (2.5, 1.5, 1.5)  # mm, (K, J, I)
# Centre and radii as shares of the volume (K, J, I), and HU: body, liver, spine, two kidneys, a
# vessel. Later ones lie on top of earlier ones.
BODIES = (
    ((0.5, 0.5, 0.5), (9.0, 0.38, 0.45), 20),
    ((0.55, 0.42, 0.32), (0.34, 0.2, 0.2), 110),
    ((0.5, 0.74, 0.5), (9.0, 0.09, 0.08), 420),
    ((0.42, 0.64, 0.3), (0.2, 0.09, 0.07), 190),
    ((0.46, 0.64, 0.7), (0.2, 0.09, 0.07), 190),
    ((0.5, 0.57, 0.55), (9.0, 0.035, 0.035), 260),
)


def voxels() -> np.ndarray:
    """Int16 (K, J, I) in HU, the same every time."""
    places = np.meshgrid(*((np.arange(n) + 0.5) / n for n in SHAPE), indexing="ij")
    image = np.full(SHAPE, -1000.0)
    for centre, radii, value in BODIES:
        parts = zip(places, centre, radii, strict=True)
        image[sum(((p - c) / r) ** 2 for p, c, r in parts) < 1] = value
    noise = np.random.default_rng(1).normal(0, 12, SHAPE)
    return np.clip(image + noise, -1024, 3071).astype(np.int16)


def add_volume() -> Any:
    """Add the phantom to the scene and show it in the slice views; returns the volume node."""
    import slicer

    matrix = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])  # I to the left, J to the back
    matrix[:3, 3] = [96.0, 96.0, -75.0]
    node = slicer.util.addVolumeFromArray(voxels(), ijkToRAS=matrix, name=NAME)
    node.CreateDefaultDisplayNodes()
    display = node.GetScalarVolumeDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(600, 100)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def register(thumbnail: str) -> None:
    """Offer the phantom as a button in the Sample Data module. thumbnail : file of its picture.

    Only the button makes the phantom: SampleData.downloadSample and its like ask for the address
    and never for the maker. A script calls `add_volume`.
    """
    try:
        import SampleData
    except ImportError:  # a Slicer without that module
        logging.info("SlideSAM: there is no Sample Data module to register a volume in.")
        return
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SlideSAM",
        sampleName=NAME,
        # Required, though nothing is fetched: Slicer counts them before the button is made.
        uris="phantom:",
        fileNames=f"{NAME}.nrrd",
        nodeNames=NAME,
        thumbnailFileName=thumbnail,
        customDownloader=lambda source: [add_volume()],
    )
