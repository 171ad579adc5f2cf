"""Variants for an ablation: the default with a few named settings changed, read from one file.

The file is YAML or JSON: `{"variants": [{"name": ..., "slide": {setting: value}, "model":
{setting: value}}]}`. `slide` changes `slide_types.SlideSettings`, `model` the settings that the
model itself has (the built-in one: `builtin.requests.BuiltinSettings`); either may be missing.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError, shown
from ..sliding.slide_types import SlideSettings

if TYPE_CHECKING:
    from ..protocol import SliceModel

DEFAULT = "default"
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Variant:
    """A name, and the settings that differ from the default."""

    name: str
    slide: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as a file name: small letters, digits and hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def slide_settings(self) -> SlideSettings:
        """The sliding settings of the variant; raises InputError."""
        return changed(SlideSettings(), self.slide, "sliding")


def read_variants(path: Path) -> list[Variant]:
    """The default and the variants of a file, the default first.

    Raises InputError: the file cannot be read or is not such a file, two names are alike, or a
    sliding setting does not exist or cannot have its value.
    """
    content = _read(path)
    entries = content.get("variants") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} must be an object with a list `variants`.")
    found = [Variant(DEFAULT), *(_variant(path, entry) for entry in entries)]
    slugs = [variant.slug for variant in found]
    twice = next((v.name for v in found if slugs.count(v.slug) > 1), None)
    if twice is not None:
        raise InputError(f"{path} names {twice!r} twice, or names too much like each other.")
    return found


def changed_model(model: SliceModel, changes: Mapping[str, Any]) -> SliceModel:
    """The model with some of its own settings changed.

    Raises InputError where it has no such settings.
    """
    if not changes:
        return model
    settings = getattr(model, "settings", None)
    if settings is None or not hasattr(model, "with_settings"):
        raise InputError(
            f"The model {model.traits.name} has no settings of its own to change: leave out the "
            f"variants with `model` ({', '.join(changes)})."
        )
    return model.with_settings(changed(settings, changes, "model's"))


def settings_of(model: SliceModel) -> dict[str, Any]:
    """The settings that the model itself has, by name; empty where it has none."""
    settings = getattr(model, "settings", None)
    return {} if settings is None else asdict(settings)


def changed(settings: Settings, changes: Mapping[str, Any], what: str) -> Settings:
    """A frozen dataclass with some fields changed; raises InputError for wrong names and kinds."""
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    for name, value in changes.items():
        if name not in known:
            raise InputError(f"There is no {what} setting {name!r}; there are: {', '.join(known)}.")
        kind = type(known[name])
        wanted = (int, float) if kind is float else (kind,)
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            raise InputError(
                f"The {what} setting {name} must be a {_KINDS[kind]} such as {known[name]!r}, not "
                f"{shown(value)}."
            )
    return replace(settings, **changes)


_KINDS = {bool: "truth value", int: "whole number", float: "number", str: "word"}


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"The variants {path} cannot be read: {reason}.") from None
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"The variants {path} are not JSON: {error}.") from None
    if importlib.util.find_spec("yaml") is None:
        raise InputError(
            'Variants in YAML need PyYAML: pip install "SlideSAM[evaluate]", or write JSON.'
        )
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"The variants {path} are not YAML: {error}.") from None


def _variant(path: Path, entry: Any) -> Variant:
    parts = {f.name for f in fields(Variant)}
    good = isinstance(entry, dict) and set(entry) <= parts and isinstance(entry.get("name"), str)
    changes = [entry.get(part, {}) for part in ("slide", "model")] if good else []
    if not good or not all(isinstance(part, dict) for part in changes) or not any(changes):
        raise InputError(
            f"Every variant of {path} needs a `name` and settings under `slide` or `model`, not "
            f"{shown(entry)}."
        )
    variant = Variant(entry["name"].strip(), *changes)
    if not variant.slug:
        raise InputError(f"The name {entry['name']!r} in {path} has no letter and no digit.")
    try:
        variant.slide_settings()
    except InputError as error:
        raise InputError(f"Variant {variant.name!r} of {path}: {error}") from None
    return variant
