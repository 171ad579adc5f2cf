"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout that is being tested."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the real volumes; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SLIDESAM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "manifest.json").is_file():
        pytest.skip("no real volumes: set SLIDESAM_TEST_DATA to the folder of manifest.json")
    return folder


@pytest.fixture(scope="session")
def mini_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the smallest network, with the weights of the reference; nobody writes it."""
    import torch

    from Testing.reference import named_weights, tensor_shapes

    path = tmp_path_factory.mktemp("models") / "mini.pth"
    torch.save(named_weights(tensor_shapes("mini")), path)
    return path


@pytest.fixture
def threshold_model(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a registered model that segments bright parts and needs no weights."""
    from SlideSAMLib import models
    from Testing.fakes import ThresholdModel

    # The registry is restored after the test.
    monkeypatch.setattr(models, "_LOADERS", dict(models._LOADERS))
    models.register_model("threshold", lambda device, precision: ThresholdModel(threshold=100))
    return "threshold"
