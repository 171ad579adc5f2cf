"""Which processes belong to a run, and what they say when one of them ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib.cli.main import main
from Testing.training_data import tiny_run, write_balls

JOB = {"SLURM_JOB_ID": "1234", "SLURM_NNODES": "1", "SLURM_NTASKS": "4"}  # sbatch --ntasks 4
JOB |= {"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "0"}


@pytest.fixture
def config(tmp_path) -> Path:
    balls = write_balls(tmp_path / "balls", 2)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run(tmp_path / "run", balls, steps=2, save_minutes=0.0)))
    return path


def test_tasks_of_a_slurm_job_are_no_processes_of_the_run(config, monkeypatch):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    assert main(["train", str(config)]) == 0
    written = {path.name for path in (config.parent / "run").iterdir()}
    assert {"checkpoint.pt", "weights.safetensors", "windows-2-0.pt"} <= written
