"""Evaluation: how good is a model, one prompt per structure, on volumes with known labels.

From the ground up:
- `cases`, `prompting`, `protocols`: volumes and structures, prompts made from labels, and
  what a run is told
- `surfaces`, `metrics`, `baselines`: what is measured, and answers without a network
- `subject`, `runs`, `clicks`: one structure, the model on it, and a simulated user who corrects
- `results`, `runner`: what came out, kept on the way, and everything over many structures
- `tables`, `report`, `click_report`, `calibration`, `overlays`, `gallery`: what a person reads
- `variants`, `ablation_report`: named changes of the settings, compared
- `command`, `ablate_command`: the command line
"""

from __future__ import annotations

from .cases import Case, read_manifest
from .metrics import register_metric
from .report import summarise
from .results import StructureResult
from .runner import ModelSource, evaluate

__all__ = [
    "Case",
    "ModelSource",
    "StructureResult",
    "evaluate",
    "read_manifest",
    "register_metric",
    "summarise",
]
