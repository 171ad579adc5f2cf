"""A file that only one program at a time writes, by means of a lock file beside it.

The system's own lock on that file is what counts: it ends with its program, however that ends. The
file alone means nothing, so it may stay behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import ModelError

_TRIES = 100  # each other one fails only where somebody gave the lock back in that very moment
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}  # by another program or thread
_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def alone_with(target: Path, deed: str = "downloaded", needed: bool = True) -> Iterator[None]:
    """Keep others from writing `target`, be they threads of this program or other programs.

    deed : what is done to it, for the message.
    needed : where the file system has no locks, the lock file itself is one, which a killed program
        leaves behind; False does without a lock there.

    Raises
    ------
    ModelError
        Somebody is writing it.
    OSError
        The folder cannot be written.
    """
    lock = target.with_name(target.name + ".lock")
    handle = _taken(lock, f"'{target.name}' is being {deed} by another program", needed)
    try:
        yield
    finally:
        _give_back(handle, lock)


def _taken(lock: Path, busy: str, needed: bool) -> int:
    """The open lock file, locked; ModelError, which begins with `busy`, where another has it."""
    for _ in range(_TRIES):
        try:
            handle, made = _opened(lock)
        except FileNotFoundError:  # given back between our two looks at it
            continue
        try:
            _lock(handle)
            if _is_at(handle, lock):
                return handle
        except OSError as error:
            # Then to have made the file is the lock
            if error.errno in _NO_LOCKS and (made or not needed):
                return handle
            os.close(handle)
            if error.errno in _NO_LOCKS:
                raise _perhaps_left(lock, busy) from error
            if error.errno in _HELD:
                break
            raise
        os.close(handle)
    raise ModelError(f"{busy}, which holds '{lock}': wait until it is done.")


def _opened(lock: Path) -> tuple[int, bool]:
    """The lock file, open for writing, and whether it was made by this call."""
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(lock, os.O_RDWR), False


def _lock(handle: int) -> None:
    """Lock an open file until it is closed or its program ends; OSError where that cannot be."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(handle: int, lock: Path) -> bool:
    """Whether the open file still is the one at `lock`, which others will find."""
    if sys.platform == "win32":  # nothing that is open is deleted
        return True
    try:
        return os.path.samestat(os.fstat(handle), os.stat(lock))
    except FileNotFoundError:
        return False


def _give_back(handle: int, lock: Path) -> None:
    """Delete the lock file and end the lock, so that nobody deletes what the next one has locked.

    Where the file cannot be deleted, it stays.
    """
    if sys.platform == "win32":  # deletes no file that is open, be it here or with the next one
        os.close(handle)
        with contextlib.suppress(OSError):
            lock.unlink()
    else:  # whoever has opened it and gets the lock sees that it has gone
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(handle)


def _perhaps_left(lock: Path, busy: str) -> ModelError:
    return ModelError(
        f"{busy}, or was when a program ended, which the file system of this folder cannot tell: "
        f"wait until it is done, or delete '{lock}' where no program does that."
    )
