"""Figures from a Python process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import ModelError


def figures(arguments: Sequence[str]) -> dict[str, Any]:
    """The JSON object that `python ARGUMENTS` prints.

    Raises ModelError where it fails. What it wrote to the standard error stream goes to ours then,
    and is the cause, by which too little memory can be told.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    print(done.stderr, file=sys.stderr, end="")
    last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
    raise ModelError(
        f"A process of the benchmark failed with exit code {done.returncode}: {last}"
    ) from RuntimeError(done.stderr)
