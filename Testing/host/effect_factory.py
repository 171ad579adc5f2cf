"""Loading, cloning and registering effects, by the rules of setPythonSource and the factory."""

from __future__ import annotations

import importlib.util
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import slicer


def load_effect(effect: Any, path: str | Path) -> Any:
    """Make the Python object of an effect's C++ object from a file.

    Module name = folder name, class name = file name; a class that is already in sys.modules
    wins, otherwise the file (not a package) becomes that module.
    """
    path = Path(path).resolve()
    class_name = path.stem if path.stem.endswith("Effect") else path.stem + "Effect"
    module = sys.modules.get(path.parent.name)
    if module is None or not hasattr(module, class_name):
        spec = importlib.util.spec_from_file_location(path.parent.name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.parent.name] = module
        spec.loader.exec_module(module)
    effect.__dict__["_self"] = getattr(module, class_name)(effect)
    setattr(slicer, path.parent.name, effect._self)
    return effect


class EffectFactory:
    """slicer.qSlicerSegmentEditorEffectFactory: keeps the prototypes."""

    _instance: EffectFactory | None = None

    def __init__(self) -> None:
        self.prototypes: dict[str, Any] = {}

    @classmethod
    def instance(cls) -> EffectFactory:
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def registerEffect(self, effect: Any) -> bool:
        if not effect.name or effect.name in self.prototypes:
            print(f"registerEffect: '{effect.name}' is empty or already registered")
            return False
        self.prototypes[effect.name] = effect
        return True


def install(effect_class: type) -> None:
    """Put the factory and the module that makes C++ effect objects where scripts find them."""

    class Adaptor(effect_class):
        """An effect object as a script makes it: of no editor until a widget takes it."""

        def __init__(self, parent: Any) -> None:
            super().__init__(None)

        def setPythonSource(self, path: str) -> bool:
            try:
                load_effect(self, path)
            except Exception:  # printed, and told by the result, as in Slicer
                traceback.print_exc()
                return False
            return True

    module = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    module.qSlicerSegmentEditorScriptedEffect = Adaptor
    sys.modules[module.__name__] = module
    slicer.qSlicerSegmentEditorEffectFactory = EffectFactory
