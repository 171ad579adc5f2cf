"""Installing the Python packages that SlideSAM needs, on the user's request only. No Qt.

There are three ways, the best one first: the PyTorch extension, which finds the build that fits the
graphics card; `slicer.packaging` of Slicer 5.12 and newer; plain pip. The latter two install torch
alone. The extension adds torchvision by itself, which SlideSAM never uses.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

from ..text import tr as _
from .library import forget_torch, has_package, torch_in_part, torch_works

PACKAGES = {"torch": "torch", "segment_anything": "segment-anything"}  # import name: pip name


class Declined(RuntimeError):
    """The user does not want it, and nothing was installed."""


def missing() -> list[str]:
    """Names (for pip) of the packages that are not installed or do not load; imports none."""
    there = {"torch": torch_works(), "segment_anything": has_package("segment_anything")}
    return [PACKAGES[name] for name, found in there.items() if not found]


def install(ask: Callable[[str], bool]) -> list[str]:
    """Install what is missing; returns the names of what was installed.

    ask : called with a question where the way of installing does not ask by itself. Must be called
        on the main thread.

    Raises
    ------
    Declined
        The user said no to all of it.
    RuntimeError
        Slicer runs tests, or the installation failed; says what to do.
    """
    import slicer

    wanted = missing()
    if not wanted:
        return []
    if slicer.app.testingEnabled():
        raise RuntimeError(_("Slicer runs in testing mode, in which nothing is installed."))
    done: list[str] = []
    try:
        if "torch" in wanted and torch_in_part():
            _uninstall_torch(ask)
        if "torch" in wanted and _extension() is not None:
            _install_by_extension()
            done = ["torch"]
        rest = [name for name in wanted if name not in done]
        if rest:
            _install_by_pip(rest, ask)
        done = wanted
    except Declined:
        if not done:
            raise
    except Exception as error:
        logging.exception("SlideSAM: installing %s failed", ", ".join(wanted))
        raise RuntimeError(
            _(
                "The installation failed ({kind}; the Python console has the details): check the "
                "internet connection and the free disk space, restart Slicer and try again."
            ).format(kind=type(error).__name__)
        ) from error
    importlib.invalidate_caches()
    forget_torch()
    return done


def _uninstall_torch(ask: Callable[[str], bool]) -> None:
    """Otherwise each way of installing finds it there, and does nothing."""
    import slicer

    question = _("The PyTorch of this Slicer cannot be used. Remove it, and install it again?")
    if not ask(question):
        raise Declined(_("PyTorch was not installed."))
    slicer.util.pip_uninstall(["torch"])


def _extension():
    """The module PyTorchUtils of the PyTorch extension, or None."""
    try:
        import PyTorchUtils
    except ImportError:
        return None
    return PyTorchUtils


def _install_by_extension() -> None:
    """It asks, shows a wait cursor, and gives None where the user says no."""
    if _extension().PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
        raise Declined(_("PyTorch was not installed."))


def _install_by_pip(names: list[str], ask: Callable[[str], bool]) -> None:
    import slicer

    question = _(
        "SlideSAM needs the Python packages {names}. Download and install them into Slicer "
        "now? PyTorch can be several gigabytes large, and Slicer does not answer meanwhile."
    ).format(names=", ".join(names))
    if not ask(question):
        raise Declined(_("Nothing was installed."))
    try:
        from slicer import packaging
    except ImportError:  # Slicer 5.10
        slicer.util.pip_install(names)
        return
    # Asked by it, a no would be a RuntimeError like those of an installation that cannot start.
    packaging.pip_ensure(names, prompt_install=False, requester="SlideSAM")
