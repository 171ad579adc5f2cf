"""Errors that a user can meet. Each message is one sentence: what is wrong and what to do."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


class SlideSAMError(Exception):
    """Base class of every error that SlideSAM raises on purpose."""


class InputError(SlideSAMError, ValueError):
    """The caller's data or arguments cannot be used (bad prompt, bad volume, bad range)."""


class ModelError(SlideSAMError, RuntimeError):
    """A model, its checkpoint or its device cannot be used."""


class TorchError(ModelError):
    """PyTorch is not installed, or cannot be loaded."""


class Cancelled(SlideSAMError):
    """The work was cancelled on request; what was finished before stays valid."""


def shown(value: object) -> str:
    """A value as a message shows it: short, also where lists stand in lists without end."""
    return _SHORT.repr(value)
