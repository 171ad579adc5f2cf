"""The models that a person can choose: those that are on this computer."""

from __future__ import annotations

from typing import Any

from SlideSAMBridge.setup import preferences


def installed() -> list[str]:
    """Names of the models that are on this computer, the built-in one first. Imports no torch."""
    from SlideSAMLib.catalogue import CATALOGUE

    return ["builtin", *(n for n, info in CATALOGUE.items() if n != "builtin" and info.installed)]


def offered() -> list[str]:
    """Those, and the one of the SlideSAM module, which may be a file of the user's own."""
    names, chosen = installed(), preferences.read().model
    return names if chosen in names else [*names, chosen]


def fill(box: Any, names: list[str]) -> None:
    """Offer these models in a combo box."""
    blocked = box.blockSignals(True)
    box.clear()
    for name in names:
        box.addItem(_shown(name), name)
    box.blockSignals(blocked)


def select(box: Any, name: str) -> None:
    """Choose a model; one that is not offered, such as a file, is added."""
    place = box.findData(name)
    if place < 0:
        box.addItem(_shown(name), name)
        place = box.count - 1
    box.setCurrentIndex(place)


def _shown(name: str) -> str:
    """A name, or the last part of a file's path, which may be that of another system."""
    return name.replace("\\", "/").split("/")[-1]
