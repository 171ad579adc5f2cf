"""Everything over many structures: one prompt each, the slide, the metrics, the baselines.

Tasks are single structures, so that several processes can share them evenly. The order of the
results is the same for any number of processes. So is every number but the seconds where each of
them computes with as many threads: several take one each, a single one what PyTorch is set to, and
sums in another order may move a Dice a little, most of all after many clicks.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ModelError
from ..protocol import SliceModel
from . import metrics, protocols
from .baselines import BASELINES
from .cases import Case, CaseVolume, Structure
from .prompting import PROMPTS
from .results import Key, StructureResult
from .subject import Subject

if TYPE_CHECKING:
    from ..stack import Stack
    from .runs import Run

MODEL = "model"
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class ModelSource:
    """A model that each process loads by itself, see `SlideSAMLib.load_model`."""

    name: str
    device: str = "auto"
    precision: str = "auto"
    changes: Mapping[str, Any] = field(default_factory=dict)  # of its settings, see `variants`

    def load(self) -> SliceModel:
        """The loaded model; raises ModelError or InputError."""
        from ..models import load_model
        from .variants import changed_model

        return changed_model(load_model(self.name, self.device, self.precision), self.changes)


@dataclass(frozen=True)
class Plan:
    """What is run on every structure; picklable, for several processes. See `evaluate`."""

    model: SliceModel | ModelSource | None
    prompt: str
    protocols: tuple[str, ...]
    baselines: bool = False
    seed: int = 0
    settings: Any = None
    overlays: Path | None = None
    metrics: dict[str, metrics.Metric] = field(default_factory=lambda: dict(metrics.METRICS))
    skip_refused: bool = False

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise InputError(
                f"The prompt must be one of {', '.join(PROMPTS)}, not {self.prompt!r}."
            )
        if not self.methods():
            raise InputError("There is nothing to evaluate: give a model, baselines or both.")

    def methods(self) -> list[tuple[str, str]]:
        """(method, protocol) of every result that a structure gets."""
        wanted = [] if self.model is None else [(MODEL, p) for p in self.protocols]
        if self.baselines:
            wanted += [(name, protocols.EXTENT) for name in BASELINES]
        return wanted


@dataclass(frozen=True)
class Task:
    """One structure of one case, and what is to be run on it."""

    case: Case
    structure: Structure
    methods: tuple[tuple[str, str], ...]


def evaluate(
    cases: Sequence[Case],
    model: SliceModel | ModelSource | str | None = "builtin",
    prompt: str = "box",
    protocol: str = "both",
    limit: int = 3,
    min_voxels: int = 0,
    baselines: bool = False,
    seed: int = 0,
    settings: Any = None,
    workers: int = 1,
    overlays: Path | None = None,
    surfaces: bool = False,
    done: Iterable[StructureResult] = (),
    store: Callable[[StructureResult], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    skip_refused: bool = False,
) -> list[StructureResult]:
    """Segment the structures of the cases from one prompt each and measure the results.

    cases : from `read_manifest`, or made in memory.
    model : a loaded one, a `ModelSource`, a name or a file; None for the baselines alone.
    prompt : "box" (true box with up to 5 % of hand jitter), "point" (the innermost one) or
        "points" (three of them).
    protocol : "full", "extent", "clicks", "both" (the first two) or "all", see `protocols`.
    limit : the largest structures of each case that are used, 0 for all; min_voxels : the least.
    baselines : measure these, too. seed : of the jitter. settings : SlideSettings or None.
    workers : processes; more than one get one thread each, and a loaded model is sent to them.
    overlays : existing folder for the pictures, or None.
    surfaces : measure the distance of the surfaces, too (needs MONAI, a second or so a structure).
    done : earlier results that need no second run.
    store : called with every new result at once. progress : with finished and all structures.
    skip_refused : leave out structures that a run refuses (the published scheme cannot start on
        the first or last slice of a volume) instead of raising.

    Returns all results, earlier ones included, by case, size of the structure and method.
    Raises InputError or ModelError where an argument, a case or the model cannot be used.
    """
    if limit < 0 or min_voxels < 0 or workers < 1:
        raise InputError("Limits must be 0 or more, and there must be at least one worker.")
    source = ModelSource(model) if isinstance(model, str) else model
    _check_ids(cases)
    chosen = protocols.chosen(protocol)
    measured = {**metrics.METRICS, **(metrics.SURFACE_METRICS if surfaces else {})}
    plan = Plan(source, prompt, chosen, baselines, seed, settings, overlays, measured, skip_refused)
    results = {result.key: result for result in done}
    wanted, tasks = _tasks(cases, plan, limit, min_voxels, results)
    for count, batch in enumerate(_run(tasks, plan, workers), 1):
        for result in batch:
            results[result.key] = result
            if store is not None:
                store(result)
        if progress is not None:
            progress(count, len(tasks))
    return [results[key] for key in wanted if key in results]


def _check_ids(cases: Sequence[Case]) -> None:
    """Results are told apart by the ids of their cases. Raises InputError."""
    ids = [case.id for case in cases]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise InputError(
            f"Several cases have the id {', '.join(twice[:3])}: give each an id of its own."
        )


def _tasks(
    cases: Sequence[Case], plan: Plan, limit: int, min_voxels: int, earlier: Collection[Key]
) -> tuple[list[Key], list[Task]]:
    """The keys of all results in their order, and the tasks that are still to be done."""
    wanted: list[Key] = []
    tasks: list[Task] = []
    for case in cases:
        for structure in case.structures(limit, min_voxels):
            keys = [(case.id, structure.value, *pair) for pair in plan.methods()]
            missing = tuple(key[2:] for key in keys if key not in earlier)
            wanted += keys
            if missing:
                tasks.append(Task(case, structure, missing))
    if not wanted:
        raise InputError(f"No case has a structure of {min_voxels} voxels or more.")
    return wanted, tasks


def _run(tasks: list[Task], plan: Plan, workers: int) -> Iterator[list[StructureResult]]:
    if not tasks:
        return
    if workers == 1 or len(tasks) == 1:
        yield from map(Worker(plan).run, tasks)
        return
    # Spawned, since a forked process cannot use a GPU and may hang in threads of its parent.
    context = multiprocessing.get_context("spawn")
    leaving = context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), context, initializer=_start_process, initargs=(plan, leaving)
    )
    try:
        for future in as_completed([pool.submit(_run_in_process, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        raise ModelError(
            "A process was ended from outside, mostly since the memory ran short: take fewer "
            "--workers and go on with --resume."
        ) from None
    finally:
        leaving.set()  # after an error or Ctrl-C the processes stop at their next slice
        pool.shutdown(cancel_futures=True)


class Worker:
    """Runs tasks one after another, with one model, and keeps the case it read last."""

    def __init__(self, plan: Plan, cancelled: Callable[[], bool] | None = None) -> None:
        from ..window import EmbeddingCache

        self._plan = plan
        self._cancelled = cancelled
        source = plan.model
        self._model = source.load() if isinstance(source, ModelSource) else source
        self._cache = EmbeddingCache(CACHE_BYTES)
        self._read: tuple[Case, CaseVolume, Stack] | None = None

    def run(self, task: Task) -> list[StructureResult]:
        """The results of one structure, one per method of the task.

        No result where one of them refuses it and that is allowed, so that all methods are
        compared on the same structures.
        """
        plan = self._plan
        subject = self.subject(task.case, task.structure)
        results = []
        for method, protocol in task.methods:
            try:
                results.append(
                    self._measure(subject, protocol)
                    if method == MODEL
                    else _baseline(subject, method, plan)
                )
            except InputError:
                if not plan.skip_refused:
                    raise
                return []
        return results

    def subject(self, case: Case, structure: Structure) -> Subject:
        """A structure made ready, with the plan's prompt."""
        return Subject(case, structure, self._load(case), self._plan.prompt, self._plan.seed)

    def segment(self, subject: Subject, protocol: str) -> Run:
        """What the model says; the subject must be the one made last."""
        from .runs import Means, run

        stack = self._read[2]
        means = Means(stack, self._model, self._plan.settings, self._cache, self._cancelled)
        return run(subject, protocol, means)

    def _load(self, case: Case) -> CaseVolume:
        """Read the case, unless it is the one read last, and make its stack."""
        from ..stack import Stack

        if self._read is None or self._read[0] != case:
            self._cache.clear()
            content = case.load()
            try:
                stack = Stack(content.volume, content.axis, content.spacing)
            except InputError as error:
                raise InputError(f"Case {case.id}: {error}") from None
            self._read = (case, content, stack)
        return self._read[1]

    def _measure(self, subject: Subject, protocol: str) -> StructureResult:
        plan = self._plan
        done = self.segment(subject, protocol)
        result = subject.result(
            MODEL,
            protocol,
            done.mask,
            done.seconds,
            done.confidence,
            done.stops,
            plan.metrics,
            done.clicks,
        )
        if plan.overlays is not None:
            from .overlays import draw

            draw(subject, done.mask, done.confidence, result, plan.overlays)
        return result


def _baseline(subject: Subject, name: str, plan: Plan) -> StructureResult:
    start = time.perf_counter()
    mask = BASELINES[name](subject.image, subject.truth, subject.prompt)
    seconds = time.perf_counter() - start
    return subject.result(name, protocols.EXTENT, mask, seconds, chosen=plan.metrics)


_worker: Worker | Exception | None = None


def _start_process(plan: Plan, leaving: Any) -> None:
    """Prepare a worker process: Ctrl-C is the parent's business, and one thread is enough."""
    import torch

    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        _worker = Worker(plan, leaving.is_set)
    except Exception as error:  # handed to the parent with the first task: it can explain it
        _worker = error


def _run_in_process(task: Task) -> list[StructureResult]:
    if isinstance(_worker, Worker):
        return _worker.run(task)
    raise _worker or RuntimeError("the worker process was not prepared")
