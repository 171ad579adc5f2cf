"""How long the threads of PyTorch's CPU work wait for each other before they sleep. No torch here.

OpenMP's threads wait for the next piece of work in a loop. On a machine with something else to do,
such as drawing the slices, one of them loses its core, and the others keep theirs busy with waiting
for it: with one of two cores taken, the built-in model slides at a third of its speed. With short
waits it takes half of that time, for 7 % more where the machine is idle
(`Testing/Benchmarks/busy_machine.py`, with GNU's OpenMP).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

POLICY = "OMP_WAIT_POLICY"  # a user who says how to wait in general is obeyed
SHORT = {
    "GOMP_SPINCOUNT": "1000",  # turns; GNU's OpenMP, of PyTorch on Linux, takes 300 000
    "KMP_BLOCKTIME": "1",  # ms; those of Intel and LLVM, on Windows and macOS, take 200
}


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads wait briefly, where the environment does not say how long.

    OpenMP reads the environment when PyTorch is loaded; later changes have no effect.
    """
    if POLICY not in environment:
        for name, value in SHORT.items():
            environment.setdefault(name, value)
