"""What the user chose for all scenes, kept in the application's settings.

They count for every Segment Editor node that has no choice of its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

PREFIX = "SlideSAM/"
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
MOST_CACHE = 65536  # MiB


@dataclass(frozen=True)
class Preferences:
    """model : a name or a file. cache_mib : size of the embedding cache in MiB; 0 chooses it."""

    model: str = "builtin"
    device: str = "auto"
    precision: str = "auto"
    cache_mib: int = 0


def read() -> Preferences:
    """The preferences; values that cannot be used count as the default."""
    import slicer

    settings, default = slicer.app.userSettings(), Preferences()
    found = {name: settings.value(PREFIX + name) for name in asdict(default)}
    return Preferences(
        model=str(found["model"] or default.model),
        device=found["device"] if found["device"] in DEVICES else default.device,
        precision=found["precision"] if found["precision"] in PRECISIONS else default.precision,
        cache_mib=_whole(found["cache_mib"], default.cache_mib),
    )


def cache_bytes() -> int | None:
    """The size of the embedding cache, as SlideSAMLib.EmbeddingCache takes it."""
    return read().cache_mib * 2**20 or None


def change(**values: Any) -> Preferences:
    """Keep these values; returns all preferences."""
    import slicer

    changed = replace(read(), **values)
    for name in values:
        slicer.app.userSettings().setValue(PREFIX + name, getattr(changed, name))
    return changed


def _whole(value: Any, default: int) -> int:
    try:  # settings files keep text
        return min(max(int(value), 0), MOST_CACHE)
    except (TypeError, ValueError):
        return default
