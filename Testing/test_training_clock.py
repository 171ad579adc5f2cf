"""The clock of a training: only its steps count, and all processes go by the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib.training import loop
from SlideSAMLib.training.builtin_task import BuiltinTask
from SlideSAMLib.training.config import read_config
from SlideSAMLib.training.loop import Training
from SlideSAMLib.training.selection import Selection
from Testing.evaluation_data import write_manifest
from Testing.training_data import tiny_run, write_balls
from Testing.training_processes import start_process

MINUTE = 60.0
# A process whose clock runs faster by `rank`, and what it has learnt in the end.
PROCESS = """
import sys, time
import torch
from pathlib import Path
from SlideSAMLib.training import loop
from SlideSAMLib.training.config import read_config

rank = int(sys.argv[2])

class Clock:
    @staticmethod
    def monotonic():
        return (1 + rank) * time.monotonic()

loop.time = Clock
training = loop.Training(read_config(Path(sys.argv[1])))
training.run()
found = {"seconds": training.seconds, "done": training.done}
torch.save({**found, "weights": loop.learnt(training.network.module)}, f"learnt-{rank}.pt")
"""


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return write_balls(tmp_path_factory.mktemp("data") / "Dataset001_Balls", 4)


def write(tmp_path: Path, values: dict) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Clock:
    """Stands for the module `time`: only what is told takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def taking(self, seconds: float, call):
        def slow(*given):
            found = call(*given)
            self.now += seconds
            return found

        return slow


@pytest.mark.parametrize("pieces", [None, 3.5])
def test_only_steps_count_as_minutes_of_training(tmp_path, balls, monkeypatch, pieces):
    """A step takes one minute, an evaluation five, a checkpoint two: 6 minutes are 6 steps.

    Evaluated every 2 minutes, in one go or in pieces.
    """
    clock, judged = Clock(), []
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(BuiltinTask, "loss", clock.taking(MINUTE, BuiltinTask.loss))
    monkeypatch.setattr(Training, "save", clock.taking(2 * MINUTE, Training.save))

    def evaluate(self, write):
        judged.append(training.done)
        return {"volume_dice": 0.5}

    monkeypatch.setattr(Selection, "evaluate", clock.taking(5 * MINUTE, evaluate))
    chosen = {"manifest": str(write_manifest(tmp_path)), "minutes": 2}
    more = {"minutes": 6, "accumulate": 1, "save_minutes": 0.0, "select": chosen}
    path = write(tmp_path, tiny_run(tmp_path / "run", balls, **more))
    training = Training(read_config(path))
    training.run(pieces)
    calls = 1
    while training.stopped:
        training = Training(read_config(path))
        assert training.resume()
        training.run(pieces)
        calls += 1
    assert (calls > 1) == (pieces is not None)
    assert training.done == 6
    assert training.seconds == pytest.approx(6 * MINUTE)
    assert judged == [2, 4, 6]


@pytest.mark.slow
def test_processes_whose_clocks_differ_learn_the_same(tmp_path, balls):
    """The learning rate follows the clock of the first one, so the weights stay alike."""
    values = tiny_run(tmp_path / "run", balls, minutes=0.1, warm_up=0, accumulate=1)
    words = ["-c", PROCESS, str(write(tmp_path, values))]
    both = [start_process([*words, str(n)], tmp_path, n, 2) for n in range(2)]
    for process in both:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error.decode()[-2000:]
    one, other = (torch.load(tmp_path / f"learnt-{n}.pt", weights_only=True) for n in range(2))
    assert one["done"] == other["done"] > 1
    for name, value in one["weights"].items():
        assert torch.equal(value, other["weights"][name]), name
    assert one["seconds"] == other["seconds"]
