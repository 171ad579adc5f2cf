"""`qt` as Slicer's Python sees it: PySide6 classes that follow the rules of PythonQt.

Not a rename: what PythonQt refuses is refused here too, because that is what tests have to catch.
A Qt property is an attribute and hides its getter, keyword arguments and unknown attributes are
errors, a misspelt signal is a message and False. Needs QT_QPA_PLATFORM=offscreen without a display.
"""

from __future__ import annotations

import ctypes
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

# What PySide6 has and `qt` of Slicer has not: its classes are flat, its signals are text.
NOT_IN_SLICER = ("Signal", "Slot", "Property", "SIGNAL", "SLOT", "QtCore", "QtGui", "QtWidgets")

log: list[str] = []  # what Slicer only prints: signals that do not exist, exceptions in slots


def complain(text: str) -> None:
    """Print what Slicer would print, and keep it for tests to look at."""
    log.append(text)
    print(text, file=sys.stderr)


def complain_of(kind: type, error: BaseException, trace: Any) -> None:
    """The same for an exception, with the arguments of sys.excepthook."""
    complain("".join(traceback.format_exception(kind, error, trace)))


def _slot(function: Callable, name: str) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            raise ValueError(f"Called {name} with keyword arguments, which its slot does not take")
        return function(*args)

    call.__name__ = name
    return call


def _signature(signal: str) -> str:
    normal = QtCore.QMetaObject.normalizedSignature(signal)
    return normal.data().decode() if hasattr(normal, "data") else str(normal)


def _argument_limit(function: Callable) -> int | None:
    """How many arguments PythonQt passes: functions and methods get what they declare."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    takes_any = code is None or code.co_flags & 0x04  # *args
    if takes_any:
        return None
    return code.co_argcount - (1 if hasattr(function, "__self__") else 0)


def _defined_by_script(kind: type, name: str) -> bool:
    """Whether a Python subclass of a Qt class defines this name, not the Qt class."""
    for base in kind.__mro__:
        if base.__dict__.get("_pythonqt_base"):
            return False
        if name in base.__dict__:
            return True
    return False


class PythonQtRules:
    """Mixed into every QObject class that `qt` hands out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs:
            raise ValueError("PythonQt constructors take no keyword arguments")
        super().__init__(*args)
        super().__setattr__("_handlers", {})

    def _property(self, name: str) -> Any:
        meta = QtCore.QObject.metaObject(self)
        if meta.indexOfProperty(name) < 0 and name == "name":
            name = "objectName"  # PythonQt's alias
        if name == "singleShot" and isinstance(self, QtCore.QTimer):
            return None  # on a QTimer the static method wins
        index = meta.indexOfProperty(name)
        return meta.property(index) if index >= 0 else None

    def __getattribute__(self, name: str) -> Any:
        get = super().__getattribute__
        if not name.startswith("_") and not shiboken6.isValid(self):
            raise ValueError(f"Trying to call '{name}' on a destroyed {type(self).__name__} object")
        if name in ("connect", "disconnect", "className", "inherits"):
            return types.MethodType(getattr(PythonQtRules, name), self)
        if name.startswith("_"):
            return get(name)
        if _defined_by_script(type(self), name):
            return get(name)  # of a Python subclass; event filters are found this way
        found = get("_property")(name)
        if found is not None:
            if name == "text" and isinstance(self, QtWidgets.QProgressBar):
                return get(name)()  # virtual: it would be looked for in Python, without end
            return QtCore.QObject.property(self, found.name())
        value = get(name)
        if callable(value) and not isinstance(value, QtCore.SignalInstance):
            return _slot(value, name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
            return
        found = self._property(name)
        if found is not None:
            self._set_property(name, found, value)
            return
        if hasattr(type(self), name):
            raise AttributeError(f"Slot or signal '{name}' can not be overwritten")
        if type(self).__dict__.get("_pythonqt_base"):
            raise AttributeError(
                f"'{name}' does not exist on {type(self).__name__}, and creating new attributes on "
                "C++ objects is not allowed"
            )
        super().__setattr__(name, value)  # a Python subclass may add attributes

    def _set_property(self, name: str, found: Any, value: Any) -> None:
        if not found.isWritable():
            raise AttributeError(f"Property '{name}' is not writable")
        if found.typeName() == "int" and isinstance(value, float):
            value = int(value // 1)  # PythonQt floors
        if not QtCore.QObject.setProperty(self, found.name(), value):
            raise AttributeError(f"Property '{name}' does not accept {value!r}")

    def className(self) -> str:
        return type(self).__name__

    def inherits(self, name: str) -> bool:
        return QtCore.QObject.inherits(self, name)

    def connect(self, signal: str, *target: Any) -> bool:
        """connect("clicked(bool)", callable) or connect("clicked()", receiver, "slot()")."""
        meta = QtCore.QObject.metaObject(self)
        signature = _signature(signal)
        if meta.indexOfSignal(signature) < 0:  # a message and False, no exception
            complain(
                f"PythonQt: QObject::connect() signal '{signal}' does not exist on "
                f"{type(self).__name__}"
            )
            return False
        function = target[0] if len(target) == 1 else getattr(target[0], target[1].split("(")[0])
        limit = _argument_limit(function)

        def handler(*args: Any) -> None:
            try:
                function(*(args if limit is None else args[:limit]))
            except Exception:  # printed, and never seen by the emitter, as in Slicer
                complain(traceback.format_exc())

        self._handlers.setdefault(signature, []).append((function, handler))
        return bool(QtCore.QObject.connect(self, QtCore.SIGNAL(signature), handler))

    def disconnect(self, signal: str, function: Callable | None = None) -> bool:
        signature = _signature(signal)
        found = False
        for entry in list(self._handlers.get(signature, [])):
            if function is None or entry[0] == function:
                QtCore.QObject.disconnect(self, QtCore.SIGNAL(signature), entry[1])
                self._handlers[signature].remove(entry)
                found = True
        return found


class _QtModule(types.ModuleType):
    """`import qt`: wraps QObject classes on first use, hands value classes through."""

    def __getattr__(self, name: str) -> Any:
        if name in NOT_IN_SLICER:
            raise AttributeError(f"module 'qt' has no attribute '{name}'")
        for module in (QtWidgets, QtGui, QtCore):
            base = getattr(module, name, None)
            if base is None:
                continue
            wrapped = isinstance(base, type) and issubclass(base, QtCore.QObject)
            if wrapped and base is not QtWidgets.QApplication:
                base = type(name, (PythonQtRules, base), {"_pythonqt_base": True})
            setattr(self, name, base)
            return base
        raise AttributeError(name)


qt = _QtModule("qt")
_protected = False


def install() -> Any:
    """Put `qt` where `import qt` finds it; returns the QApplication, which the caller keeps."""
    _protect_none()
    app = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["test"])
    sys.modules["qt"] = qt
    return app


def _protect_none() -> None:
    """Keep None alive under PySide6 6.12, whose void methods each lose one reference to it.

    Since Python 3.12 None is immortal. Before, some thousand calls let the interpreter deallocate
    it, which ends the process with "none_dealloc".
    """
    global _protected
    if _protected or sys.version_info >= (3, 12) or sys.implementation.name != "cpython":
        return
    _protected = True
    # The reference count is the first field of every object.
    ctypes.c_ssize_t.from_address(id(None)).value += 2**40
