"""The models that a person can choose: those that are on this computer."""

from __future__ import annotations

from typing import Any


def installed() -> list[str]:
    """Names of the models that are on this computer, the built-in one first. Imports no torch."""
    from SlideSAMLib.catalogue import CATALOGUE

    return ["builtin", *(n for n, info in CATALOGUE.items() if n != "builtin" and info.installed)]


def fill(box: Any, names: list[str]) -> None:
    """Offer these models in a combo box."""
    blocked = box.blockSignals(True)
    box.clear()
    for name in names:
        box.addItem(name, name)
    box.blockSignals(blocked)


def select(box: Any, name: str) -> None:
    """Choose a model; one that is not offered, such as a file, is added."""
    place = box.findData(name)
    if place < 0:
        box.addItem(name.replace("\\", "/").split("/")[-1], name)
        place = box.count - 1
    box.setCurrentIndex(place)
