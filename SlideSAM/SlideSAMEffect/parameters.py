"""The parameters of the effect, kept as text in the Segment Editor's node and saved with the scene.

From Python: `effect.setParameter("Direction", "forward")`; see the table in the README.
"""

from __future__ import annotations

from typing import Any

from SlideSAMBridge.effect.applying import MODES
from SlideSAMBridge.effect.options import Options
from SlideSAMBridge.setup import library, preferences
from SlideSAMBridge.tasks.shelf import ModelChoice

DIRECTIONS = ("both", "forward", "backward")
# As long as these are not set, the preferences count, whatever they are by then.
PREFERRED = ("Model", "Device", "Precision")
# Switches are 0 or 1: a bool would be stored as "True", which cannot be read as a number.
DEFAULTS: dict[str, str | int | float] = {
    "Direction": "both",
    "Mode": "add",
    "LimitSlices": 0,
    "FirstSlice": 0,
    "LastSlice": 0,
    "AutoApply": 1,
    "WeakBelow": 0.5,
}


def set_defaults(effect: Any) -> None:
    """Give every parameter that has no value its default. effect : the `scriptedEffect`."""
    for name, value in DEFAULTS.items():
        effect.setParameterDefault(name, value)


def read(effect: Any) -> Options:
    """The parameters as they are now; what cannot be used counts as the default.

    Model, device and precision are those of the SlideSAM module where none is set. What is missing
    gets its default: loading a scene replaces all that the node has, and Slicer does not ask then.
    """
    set_defaults(effect)
    limited = effect.integerParameter("LimitSlices") != 0
    direction, mode = effect.parameter("Direction"), effect.parameter("Mode")
    return Options(
        choice=_choice(effect),
        direction=direction if direction in DIRECTIONS else DIRECTIONS[0],
        first=effect.integerParameter("FirstSlice") if limited else None,
        last=effect.integerParameter("LastSlice") if limited else None,
        mode=mode if mode in MODES else MODES[0],
        auto_apply=effect.integerParameter("AutoApply") != 0,
        weak_below=min(1.0, max(0.0, effect.doubleParameter("WeakBelow"))),
    )


def _choice(effect: Any) -> ModelChoice:
    chosen = preferences.read()
    # Slicer logs an error where one that is not set is asked for.
    model, device, precision = (
        effect.parameter(name) if effect.parameterDefined(name) else "" for name in PREFERRED
    )
    # The scene may be from another computer, and the effect has no widgets for these two.
    if device and device != chosen.device and not library.has_device(device):
        device = ""
    if precision not in preferences.PRECISIONS:
        precision = ""
    return ModelChoice(
        model or chosen.model, device or chosen.device, precision or chosen.precision
    )
