"""The files that a killed run goes on from.

`checkpoint.pt` is the state of the training, the same for all processes; `windows-STEP-RANK.pt` is
what one process knows of its windows at that step. The latter are written first and older ones
removed last, so that there are files of one and the same step whenever the run is killed.
"""

from __future__ import annotations

import json
import os
import pickle
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from ..errors import InputError
from ..files.locks import alone_with
from .config import TrainConfig, left_out

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError)
# Settings without which saved windows would mean something else.
WINDOWS = ("seed", "batch", "data", "shapes", "sources", "datasets", "in_memory", "held_out")
WINDOWS += ("data_processes", "slab_uses")


class Checkpoints:
    """Writes and reads them in a folder, which all processes share."""

    def __init__(self, folder: Path, fabric: Fabric) -> None:
        self._folder, self._fabric = folder, fabric
        self.path = folder / "checkpoint.pt"

    def alone(self) -> AbstractContextManager[None]:
        """Keep other runs out of the folder; ModelError where there is one. On rank 0, for all."""
        if self._fabric.global_rank:
            return nullcontext()
        return alone_with(self.path, "written", needed=False)

    def save(self, step: int, training: dict[str, Any], windows: dict[str, Any]) -> None:
        """Write both states of this step; every process must call it."""
        _write(self._windows_path(step), windows)
        self._fabric.barrier()
        if self._fabric.global_rank == 0:
            _write(self.path, training)
            for old in self._folder.glob("windows-*-*.pt"):
                if old.name.split("-")[1] != str(step):
                    old.unlink()
        self._fabric.barrier()

    def training(self) -> dict[str, Any] | None:
        """The state of the training; None where there is none. Raises InputError."""
        if not self.path.exists():
            return None
        try:
            return _read(self.path)
        except UNREADABLE as error:
            raise InputError(f"The checkpoint {self.path} cannot be read: {error}") from None

    def windows(self, step: int) -> dict[str, Any] | None:
        """What this process knew of its windows at a step; None where that cannot be read."""
        try:
            return _read(self._windows_path(step))
        except UNREADABLE:
            return None

    def _windows_path(self, step: int) -> Path:
        return self._folder / f"windows-{step}-{self._fabric.global_rank}.pt"


def depends(config: TrainConfig, processes: int) -> dict[str, str]:
    """What saved windows depend on, as JSON by name."""
    values = {name: value for name, value in asdict(config).items() if name in WINDOWS}
    values |= {"left out": left_out(config), "number of processes": processes}
    return {name: json.dumps(value, sort_keys=True) for name, value in values.items()}


def mismatch(windows: dict[str, Any] | None, today: dict[str, str]) -> str:
    """Why a run cannot go on with saved windows, in words; empty where it can."""
    if windows is None:
        return "what it knew of its windows at this step is not there or cannot be read"
    earlier = windows.get("depends", {})
    changed = [name for name in today if earlier.get(name) != today[name]]
    return f"the settings have another {', '.join(changed)}" if changed else ""


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: the file is there as a whole or not at all.

    Raises InputError where the disk does not take it.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        # On a full disk torch complains of the places in its archive, because of an OSError.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        reason = cause.strerror or cause
        raise InputError(f"The checkpoint {path} cannot be written: {reason}.") from None
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)
