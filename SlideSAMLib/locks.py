"""A file that only one program at a time writes, by means of a lock file beside it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import ModelError

_PATIENCE = 10.0  # seconds in which a program has written its number into its lock
_held: set[Path] = set()  # by this program
_guard = threading.Lock()


@contextlib.contextmanager
def alone_with(target: Path) -> Iterator[None]:
    """Keep others from downloading `target`; the lock of a program that is gone counts for nothing.

    Raises
    ------
    ModelError
        Somebody is downloading it.
    OSError
        The folder cannot be written.
    """
    lock = target.with_name(target.name + ".lock")
    with _guard:
        handle = _taken(lock)
    if handle is None:
        raise ModelError(
            f"'{target.name}' is being downloaded by another program: wait until it is done."
        )
    try:
        yield
    finally:
        with _guard:
            os.close(handle)  # first: Windows deletes nothing that is open
            _held.discard(lock)
            with contextlib.suppress(OSError):  # then it is taken over by the next one
                lock.unlink()


def _taken(lock: Path) -> int | None:
    """The open lock file, or None where somebody else has it."""
    for _ in range(2):
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            if not _is_left_over(lock):
                return None
            continue
        os.write(handle, str(os.getpid()).encode())
        _held.add(lock)
        return handle
    return None


def _is_left_over(lock: Path) -> bool:
    """Whether the program that made the lock is gone; the lock is deleted then."""
    try:
        text, age = lock.read_text(), time.time() - lock.stat().st_mtime
        if _is_alive(int(text), lock) if text.isdigit() else age < _PATIENCE:
            return False
        lock.unlink()
    except FileNotFoundError:  # given back meanwhile
        return True
    except OSError:  # on Windows: it is open, so its program is there
        return False
    return True


def _is_alive(pid: int, lock: Path) -> bool:
    if pid == os.getpid():  # numbers are used again
        return lock in _held
    if sys.platform == "win32":
        return False  # os.kill would end it; deleting the lock tells
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no such program, no such number
        return False
    except PermissionError:  # somebody else's
        return True
    return True
