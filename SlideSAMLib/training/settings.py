"""What each setting of a training may be, before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import InputError, shown

# Not "bf16-true" and its like: windows and some parts of the networks stay float32 in any case.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
OLDER_PRECISIONS = ("32", "16", "bf16", 32, 16)  # other names of the same, which Fabric knows still
LARGEST_SEED = 2**32 - 1
LARGEST_SIZE = 4096  # of a network; more could fill the memory before anything is said
LARGEST = 1e30  # of any other number; far beyond what makes sense

Rule = tuple[Callable[[Any], bool], str]  # what is right, and how it is called


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _whole(least: int, most: float = math.inf) -> Rule:
    about = f"a whole number from {least} " + ("on" if most == math.inf else f"to {most}")
    return lambda value: _is_whole(value) and least <= value <= most, about


def _or_none(rule: Rule) -> Rule:
    return lambda v: v is None or rule[0](v), rule[1]


def _shares(value: Any) -> bool:
    return isinstance(value, dict) and all(map(LEAST_0[0], value.values()))


def _is_size(value: Any) -> bool:
    """Whether it can be a size of a network: true or false, a whole number, or some of them."""
    several = value if isinstance(value, list) else [value]
    return all(isinstance(one, int) and one <= LARGEST_SIZE for one in several)


ABOVE_0: Rule = (lambda v: _is_number(v) and 0 < v < LARGEST, "a number above 0")
LEAST_0: Rule = (lambda v: _is_number(v) and 0 <= v < LARGEST, "a number of 0 or more")
TEXT: Rule = (lambda v: isinstance(v, str) and bool(v.strip()), "a text")
RULES: dict[str, Rule] = {
    "output": TEXT,
    "data": _or_none(TEXT),
    "start_from": _or_none(TEXT),
    "seed": _whole(0, LARGEST_SEED),
    **{name: _whole(1) for name in ("steps", "batch", "accumulate", "log_every", "lora_rank")},
    **{name: _whole(1) for name in ("shapes", "slab_uses", "in_memory")},
    "data_processes": _whole(0),
    "minutes": _or_none(ABOVE_0),
    "learning_rate": ABOVE_0,
    "weight_decay": LEAST_0,
    "save_minutes": LEAST_0,
    "held_out": LEAST_0,
    # How large these may be is said where they are used.
    "warm_up": (_is_whole, "a whole number"),
    "threads": (_is_whole, "a whole number"),
    "average": (_is_number, "a number"),
    "precision": (
        lambda v: v in (*PRECISIONS, *OLDER_PRECISIONS),
        f"one of {', '.join(PRECISIONS)}",
    ),
    "tensorboard": (lambda v: isinstance(v, bool), "true or false"),
    "sources": (_shares, "names of sources with a share of 0 or more each"),
    "network": (
        lambda v: isinstance(v, dict) and all(map(_is_size, v.values())),
        f"names of sizes with whole numbers up to {LARGEST_SIZE}, or lists of them",
    ),
}
SELECT = {"steps": _or_none(_whole(1)), "minutes": _or_none(ABOVE_0)}


def check_names(names: Iterable[Any], known: Iterable[str], path: Path, part: str = "") -> None:
    """Raise InputError for settings that do not exist, with what may have been meant.

    part : of the configuration at `path` where they stand; empty for the outermost ones.
    """
    known = list(known)
    unknown = sorted(set(map(str, names)) - set(known))
    alike = [get_close_matches(name, known, 1) for name in unknown]
    if unknown:
        where = f"In {path}, {part}" if part else f"The configuration {path}"
        said = [
            name + (f" (did you mean {meant[0]}?)" if meant else "")
            for name, meant in zip(unknown, alike, strict=True)
        ]
        raise InputError(f"{where} has unknown settings: {', '.join(said)}.")


def check_settings(values: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for the first setting of another kind or size; `path` is named in it."""
    _check(values, RULES, path, "")
    select = values.get("select")
    _check(select if isinstance(select, dict) else {}, SELECT, path, " of select")
    output = Path(values["output"])
    taken = next((place for place in (output, *output.parents) if place.is_file()), None)
    if taken is not None:
        raise InputError(f"In {path}, output cannot be a folder: {taken} is a file.")


def _check(values: Mapping[str, Any], rules: Mapping[str, Rule], path: Path, where: str) -> None:
    for name, (good, about) in rules.items():
        if name in values and not good(values[name]):
            value = f"{shown(values[name])}{_hint(values[name])}"
            raise InputError(f"In {path}, {name}{where} must be {about}, not {value}.")


def _hint(value: Any) -> str:
    """YAML takes some numbers with an exponent, such as 2e-4, for texts."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    return f" as a text: write {number:f}" if math.isfinite(number) else ""
