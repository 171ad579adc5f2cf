"""The translation of sentences for the user; English where Slicer's translator is not there."""

from __future__ import annotations


def tr(text: str) -> str:
    """The sentence in the language of the application. On the main thread only."""
    try:
        from slicer.i18n import tr as translate
    except ImportError:  # outside Slicer, as in a script with slicer-core
        return text
    return translate(text)
