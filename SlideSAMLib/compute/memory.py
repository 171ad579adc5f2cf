"""Memory: how much there is, what share of it embeddings may take, and whether it has run out.

Torch is not imported here.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys

from ..errors import InputError

SHARE = 1 / 16
LEAST, MOST = 128 * 2**20, 1024 * 2**20  # a window of a SAM network takes 2 MiB
VARIABLE = "SLIDESAM_CACHE_MIB"
# What PyTorch, CUDA and its libraries, and Apple's GPUs say where their memory does not suffice
_SHORTAGE = re.compile("out[ _]of[ _]memory|STATUS_ALLOC_FAILED", re.IGNORECASE)

# What PyTorch's own allocator says of the computer's memory, and oneDNN's and C++'s whole messages.
# oneDNN finds out what it cannot do earlier, in other words; this is where it takes memory.
_HOST_SHORTAGE = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory"
    r"(?:: (you tried to allocate \d+ bytes))?"
    r"|^could not create a primitive$|^std::bad_alloc$"
)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether the memory of a GPU was too small, by the error or by what caused it."""
    while error is not None:
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's own
            return True
        if isinstance(error, RuntimeError) and _SHORTAGE.search(str(error)):
            return True
        error = error.__cause__
    return False


def host_shortage(error: BaseException) -> str | None:
    """What was asked for where the memory of the computer was too small, "" where nothing says it.

    None for any other error.
    """
    if isinstance(error, MemoryError):  # NumPy's, too
        return str(error)
    found = _HOST_SHORTAGE.search(str(error)) if isinstance(error, RuntimeError) else None
    return found and (found[1] or "")


def cache_bytes(device: str = "cpu") -> int:
    """The size in bytes of a cache of embeddings that a model on this device makes.

    It is what the environment variable SLIDESAM_CACHE_MIB says, else a sixteenth of the memory, at
    least 128 MiB and at most 1 GiB: of the computer's, or of the GPU's where that has less, since
    embeddings stay where their model is.

    Raises InputError where the variable is not a whole number of 0 or more.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if wanted:
        if not wanted.isdecimal():
            raise InputError(
                f"The environment variable {VARIABLE} must be a whole number of MiB, not "
                f"{wanted!r}."
            )
        return int(wanted) * 2**20
    totals = (physical_memory(), gpu_memory(device))
    total = min((each for each in totals if each is not None), default=0)
    return int(min(max(total * SHARE, LEAST), MOST))


def gpu_memory(device: str) -> int | None:
    """Bytes of memory of an NVIDIA GPU such as "cuda:0"; None where the device is no such GPU."""
    torch = sys.modules.get("torch")  # there is no model on a GPU without it
    if not device.startswith("cuda") or torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def physical_memory() -> int | None:
    """Bytes of memory of this computer, or None where the system does not say."""
    if sys.platform == "win32":
        status = _MemoryStatus()
        status.length = ctypes.sizeof(status)
        asked = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.total) if asked else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 6),
    )
