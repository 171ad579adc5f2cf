"""Where the computer's memory is too small: what to tell the user. No Qt, no MRML, no torch.

GPUs are another matter, see `retreat`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..text import tr as _


def shortage(error: BaseException) -> str | None:
    """One sentence where memory was too small; None for any other error."""
    library = sys.modules.get(
        "SlideSAMLib.compute.memory"
    )  # not imported: then no library has failed
    if library is not None:
        asked = library.host_shortage(error)
    else:
        asked = str(error) if isinstance(error, MemoryError) else None
    if asked is None:
        return None
    return _(
        "The memory of this computer is too small{detail}: close other data or programs, or crop "
        "the volume to the object."
    ).format(detail=f" ({asked})" if asked else "")


@contextmanager
def shortages_in_words() -> Iterator[None]:
    """Raises RuntimeError with that sentence in the place of what NumPy and others raise."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = shortage(error)
        if text is None:
            raise
        raise RuntimeError(text) from error
