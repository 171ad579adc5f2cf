"""slicer.i18n: a sentence is looked up by the file whose code asks for it, and by its text."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import slicer

translations: dict[tuple[str, str], str] = {}  # what a test has translated: (context, text)


def get_context(source_file: str) -> str:
    """The name of the file without its ending; of a package, with the package before it."""
    path = Path(source_file)
    if not path.is_file():
        return path.name
    package = f"{path.parent.name}." if (path.parent / "__init__.py").is_file() else ""
    return package + path.stem


def translate(context: str, text: str) -> str:
    return translations.get((context, text), text)


def tr(text: str) -> str:
    """The context is that of the direct caller, whatever was called before that.

    A translation with other placeholders than the text is not taken.
    """
    found = translate(get_context(sys._getframe(1).f_code.co_filename), text)
    return found if _placeholders(found) == _placeholders(text) else text


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"(?<!\{)\{([^{}]+)\}(?!\})", text))


def install() -> None:
    """Put slicer.i18n where `import` finds it; before modules that take `tr` from it."""
    module = types.ModuleType("slicer.i18n")
    module.tr, module.translate, module.getContext = tr, translate, get_context
    sys.modules["slicer.i18n"] = slicer.i18n = module
