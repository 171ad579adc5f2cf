"""Which processes belong to a run, and what they say when one of them ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib.cli.main import main
from Testing.training_data import tiny_run, write_balls
from Testing.training_processes import start_process

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


@pytest.mark.slow
def test_a_process_that_fails_is_the_one_that_says_why(config):
    """The other one ends as well, without pages about a connection that hide the reason."""
    (config.parent / "run" / "windows-1-1.pt" / "in the way").mkdir(parents=True)
    words = ["-m", "SlideSAMLib", "train", str(config)]
    both = [start_process(words, config.parent, rank, 2) for rank in range(2)]
    said = [process.communicate(timeout=240)[1].decode() for process in both]
    assert [process.returncode for process in both] == [2, 2], said
    assert "windows-1-1.pt cannot be written" in said[1]
    assert "error: Another process of this run has ended" in said[0]
    assert "Traceback" not in said[0] + said[1]
