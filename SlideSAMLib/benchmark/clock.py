"""Seconds on any device: the work has to be finished, not only sent off."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import torch


def finish(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Taken(NamedTuple):
    """Seconds of one call: on the clock, and of the processor in this process, all its threads.

    Other work on the machine lengthens the first. The second hardly notices, as long as there is
    one thread: several of them wait for each other in a loop.
    """

    clock: float
    processor: float


def seconds(work: Callable[[], object], device: torch.device) -> Taken:
    """The time that one call takes, from an idle device to an idle device."""
    finish(device)
    start = time.perf_counter(), time.process_time()
    work()
    finish(device)
    return Taken(time.perf_counter() - start[0], time.process_time() - start[1])


def medians(
    works: Mapping[Hashable, Callable[[], object]],
    device: torch.device,
    rounds: int,
    warm: bool = True,
) -> dict[Hashable, Taken]:
    """The median times of each work, over so many rounds.

    In each round all works take their turn, so that a machine that slows down meanwhile slows all
    of them. warm : one call of each comes first and does not count.
    """
    if warm:
        for work in works.values():
            seconds(work, device)
    taken: dict[Hashable, list[Taken]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work, device))
    return {
        name: Taken(*(statistics.median(column) for column in zip(*times, strict=True)))
        for name, times in taken.items()
    }
