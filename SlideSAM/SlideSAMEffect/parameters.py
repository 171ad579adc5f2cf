"""The parameters of the effect, kept as text in the Segment Editor's node and saved with the scene.

From Python: `effect.setParameter("Direction", "forward")`; see the table in the README.
"""

from __future__ import annotations

from typing import Any

from SlideSAMBridge import preferences
from SlideSAMBridge.applying import MODES
from SlideSAMBridge.interaction import Options
from SlideSAMBridge.work import ModelChoice

DIRECTIONS = ("both", "forward", "backward")
# Switches are 0 or 1: a bool would be stored as "True", which cannot be read as a number.
DEFAULTS: dict[str, str | int | float] = {
    "Model": "builtin",
    "Device": "auto",
    "Precision": "auto",
    "Direction": "both",
    "Mode": "add",
    "LimitSlices": 0,
    "FirstSlice": 0,
    "LastSlice": 0,
    "AutoApply": 1,
    "WeakBelow": 0.5,
}


def set_defaults(effect: Any) -> None:
    """Give every parameter that has no value its default. effect : the `scriptedEffect`.

    Model, device and precision start as chosen in the SlideSAM module.
    """
    chosen = preferences.read()
    ours = {"Model": chosen.model, "Device": chosen.device, "Precision": chosen.precision}
    for name, value in {**DEFAULTS, **ours}.items():
        effect.setParameterDefault(name, value)


def read(effect: Any) -> Options:
    """The parameters as they are now; what cannot be used counts as the default."""
    limited = effect.integerParameter("LimitSlices") != 0
    direction, mode = effect.parameter("Direction"), effect.parameter("Mode")
    return Options(
        choice=ModelChoice(
            effect.parameter("Model") or str(DEFAULTS["Model"]),
            effect.parameter("Device") or str(DEFAULTS["Device"]),
            effect.parameter("Precision") or str(DEFAULTS["Precision"]),
        ),
        direction=direction if direction in DIRECTIONS else DIRECTIONS[0],
        first=effect.integerParameter("FirstSlice") if limited else None,
        last=effect.integerParameter("LastSlice") if limited else None,
        mode=mode if mode in MODES else MODES[0],
        auto_apply=effect.integerParameter("AutoApply") != 0,
        weak_below=min(1.0, max(0.0, effect.doubleParameter("WeakBelow"))),
    )
