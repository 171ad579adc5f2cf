"""The translation of sentences for the user; English where Slicer's translator is not there.

Slicer looks a sentence up by the file that calls its `tr`, so that very function is handed on: with
a function around it, every sentence would be looked up as one of this file. Its script finds a
sentence only where it is written inside the call: `_("...")`. On the main thread only; what the
worker may have to say is a constant, translated when its module is loaded.
"""

from __future__ import annotations

try:
    from slicer.i18n import tr
except ImportError:  # outside Slicer, as in a script with slicer-core

    def tr(text: str) -> str:
        """The sentence as it is."""
        return text


__all__ = ["tr"]
