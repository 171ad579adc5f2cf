"""Work on a GPU as CUDA graphs: some hundred small kernels become one launch.

A graph replays kernels on fixed addresses, so there is one for each combination of the inputs'
shapes: of windows that are encoded together, of prompts with so many points, a box or none. What
comes only now and then is not worth the capture; a slide asks for the same again and again.

A graph keeps what it reads and writes: 80 MiB for eight windows of 512 x 512 that are decoded
together, 230 MiB at twice the width. So the graphs are bounded in bytes, whatever the
slices are. Rounding the number of windows up to 1, 2, 4 or 8 would save graphs, but compute up to
1.6 times as much, and bound nothing.

No graph is used before its answer has been compared with that of the plain work, and whatever goes
wrong before that leads back to the plain work, for good.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from .devices import free_memory

PLAIN_RUNS = 2  # of a kind, before it is captured
MOST_GRAPHS = 8  # the one that rested longest goes for a new one
SHARE = 1 / 8  # of the free memory, for what the graphs of one kind of work read and write
TOLERANCE = 1e-2  # of the first answer of a graph, relative to the largest number in it

Answer = tuple[Tensor, ...]
# Runs the work, and returns what it answered and how to run it again into the same tensors.
Capture = Callable[[Callable[[], Answer]], tuple[Answer, Callable[[], None]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Graph:
    """One captured call; `inputs` are what it reads, `answer` is what it writes."""

    inputs: list[Tensor | None]
    answer: Answer
    replay: Callable[[], None]

    def __call__(self, given: tuple[Tensor | None, ...]) -> Answer:
        for own, tensor in zip(self.inputs, given, strict=True):
            if own is not None:
                own.copy_(tensor)
        self.replay()
        return tuple(part.clone() for part in self.answer)  # the next replay overwrites them


class Graphed:
    """Some work, replayed from graphs where these are worth it and work. Thread-safe.

    To be called with inference tensors, on one CUDA stream.

    Parameters
    ----------
    plain : plain(what, *parts) -> tensors; parts are tensors or None, `what` is all else that it
        depends on. It must ask the host nothing.
    device : where it works.
    capture : None captures CUDA graphs.
    """

    def __init__(
        self, plain: Callable[..., Answer], device: torch.device, capture: Capture | None = None
    ) -> None:
        # Weakly: a model that has a Graphed of its own method must not hold itself, or its memory
        # on the GPU would be free only once Python collects its garbage.
        self._work = weakref.WeakMethod(plain) if inspect.ismethod(plain) else lambda: plain
        self._device = device
        self._capture = capture or CudaCapture(device)
        self._lock = threading.Lock()
        self._runs: Counter[tuple] = Counter()
        self._sizes: dict[tuple, int] = {}  # bytes that a call reads and writes
        self._graphs: OrderedDict[tuple, _Graph] = OrderedDict()
        self._usable = True

    def __call__(self, what: Hashable, *parts: Tensor | None) -> Answer:
        """What the plain work answers."""
        kind = (what, *(None if part is None else tuple(part.shape) for part in parts))
        with self._lock:
            graph = self._graphs.get(kind)
            if graph is None and self._is_worth_it(kind):
                graph = self._captured(kind, parts)
            if graph is not None:
                self._graphs.move_to_end(kind)
                return graph(parts)
        answer = self._work()(what, *parts)
        self._sizes[kind] = _nbytes(parts) + _nbytes(answer)
        return answer

    def give_up(self) -> bool:
        """Let go of all graphs and of what they hold, for good; whether there were any."""
        with self._lock:
            held, self._usable = bool(self._graphs), False
            self._graphs.clear()
        return held

    def _is_worth_it(self, kind: tuple) -> bool:
        self._runs[kind] += 1
        known = self._usable and self._runs[kind] > PLAIN_RUNS and kind in self._sizes
        return known and self._has_room(self._sizes[kind])

    def _has_room(self, size: int) -> bool:
        """Whether a graph of `size` bytes may be kept: those that rested longest go for it."""
        held = sum(self._sizes[kind] for kind in self._graphs)
        free = free_memory(self._device)
        most = math.inf if free is None else SHARE * (free + held)
        if size > most:
            return False
        while self._graphs and (len(self._graphs) >= MOST_GRAPHS or held + size > most):
            rested, _ = self._graphs.popitem(last=False)
            held -= self._sizes[rested]
            del self._runs[rested]
        return True

    def _captured(self, kind: tuple, given: tuple[Tensor | None, ...]) -> _Graph | None:
        """A graph of this kind that has proved itself on these inputs; None where there is none."""
        inputs = [None if part is None else part.clone() for part in given]
        try:
            graph = _Graph(inputs, *self._capture(lambda: self._work()(kind[0], *inputs)))
            for found, wanted in zip(graph(given), self._work()(kind[0], *given), strict=True):
                # Not places in what has been compared: a rounding may move them far. Nor nothing.
                if not wanted.is_floating_point() or not wanted.numel():
                    continue
                difference = float((found - wanted).abs().max())
                if not difference <= TOLERANCE * float(wanted.abs().max()):
                    raise RuntimeError(f"the graph's answer is wrong by {difference:.3g}")
        except RuntimeError as error:  # of CUDA, too, and where the memory does not suffice
            _log.warning("SlideSAM does without CUDA graphs from now on, slower: %s", error)
            self._usable = False
            self._graphs.clear()
            return None
        self._graphs[kind] = graph
        return graph


def _nbytes(tensors: Sequence[Tensor | None]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors if each is not None)


class CudaCapture:
    """Captures CUDA graphs of one device; they share the memory of their inner results.

    That is safe as long as they run one after another and their answers are copied in between.
    All are captured on one stream: PyTorch gives memory that was made on one stream to no other,
    not even when its graph is gone, and keeps what cuBLAS works in for each.

    priority : of their kernels, as `torch.cuda.Stream` counts it: -1 goes before 0.
    """

    def __init__(self, device: torch.device, priority: int = 0) -> None:
        self._device = device
        self._priority = priority
        self._pool: tuple[int, int] | None = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, work: Callable[[], Answer]) -> tuple[Answer, Callable[[], None]]:
        """See `Capture`. Raises RuntimeError where CUDA cannot capture the work."""
        with torch.cuda.device(self._device):
            if self._pool is None or self._stream is None:
                self._pool = torch.cuda.graph_pool_handle()
                self._stream = torch.cuda.Stream(priority=self._priority)
            stream, current = self._stream, torch.cuda.current_stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                work()  # libraries set themselves up on a stream's first use: not to be captured
            current.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # As `torch.cuda.graph` does. Up to PyTorch 2.8 that collects Python's garbage, too, on
            # this thread; but what Slicer has of it may be deleted on the main thread only.
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            try:
                with torch.cuda.stream(stream):
                    # Other threads may use the GPU meanwhile. PyTorch gives no memory back to it
                    # until the capture is over; some versions raise an error where a thread asks.
                    graph.capture_begin(self._pool, capture_error_mode="thread_local")
                    try:
                        answer = work()
                    finally:
                        graph.capture_end()
            except BaseException:
                _end_allocation(self._pool)
                raise
            return answer, graph.replay


def _end_allocation(pool: tuple[int, int]) -> None:
    """Tell PyTorch's allocator that a capture which failed is over.

    Not every version does so itself where CUDA cannot end the capture, and memory could never be
    given back again. The allocator refuses where it knows of no such capture; nothing changes then.
    """
    # The same function; the second name is that of versions before 2.8.
    for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
        end = getattr(torch._C, name, None)
        if end is not None:
            with suppress(RuntimeError, TypeError):  # it refuses; it is private, and may change
                end(torch.cuda.current_device(), pool)
            return
