"""Evaluation: how good is a model, one prompt per structure, on volumes with known labels.

The rooms, from the ground up: `cases` (manifests, volumes, structures), `prompting` (prompts made
from labels), `protocols` (what the run is told and where the Dice is taken), `metrics`,
`baselines` (answers without a network), `runner` (everything over many structures), `report`,
`calibration`, `overlays` and `gallery` (what a person reads), `variants` and `ablation_report`
(named changes of the settings, compared), `command` and `ablate_command` (the command line).
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
