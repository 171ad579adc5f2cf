"""Seconds on any device: the work has to be finished, not only sent off."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping

import torch


def finish(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The time that one call takes, from an idle device to an idle device."""
    finish(device)
    start = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - start


def medians(
    works: Mapping[Hashable, Callable[[], object]],
    device: torch.device,
    rounds: int,
    warm: bool = True,
) -> dict[Hashable, float]:
    """The median time of each work, over so many rounds.

    In each round all works take their turn, so that a machine that slows down meanwhile slows all
    of them. warm : one call of each comes first and does not count.
    """
    if warm:
        for work in works.values():
            seconds(work, device)
    taken: dict[Hashable, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work, device))
    return {name: statistics.median(times) for name, times in taken.items()}
