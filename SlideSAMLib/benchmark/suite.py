"""The whole benchmark: which parts run on which models, and the report they make up."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..compute.devices import choose_device, choose_precision, precision_name
from ..compute.memory import out_of_memory
from ..errors import InputError
from ..models import load_model
from ..sam.network import SlideSam
from . import agreement, encoding, large, machine, phantom, profiling, runs, startup, subjects

PARTS = ("encode", "runs", "startup", "memory", "agreement")
BUILTIN = "builtin"
# What is slid through where nothing else is asked for: slices of the volume, and of the object.
DEPTHS = {BUILTIN: (120, 100), "cpu": (150, 30), "gpu": (220, 200)}


@dataclass(frozen=True)
class Plan:
    """What to measure.

    precisions, batches : None takes those that suit the device.
    shape, slices : of the volume (K, J, I) and the object that are slid through; None: `DEPTHS`.
    manifest : volumes for the masks in half precision; checkpoint : a model for them, besides.
    """

    parts: Sequence[str] = PARTS
    models: Sequence[str] = (BUILTIN, "vit-b")
    device: str = "auto"
    precisions: Sequence[str] | None = None
    batches: Sequence[int] | None = None
    rounds: int = 3
    shape: tuple[int, int, int] | None = None
    slices: int | None = None
    manifest: Path | None = None
    cases: Sequence[str] | None = None
    limit: int = 1
    checkpoint: str | None = None
    profile: bool = False


class Suite:
    """Runs a plan; `report` grows part by part, and `profile` is text where it is asked for.

    say : told what is measured now. keep : called whenever there are new figures.

    Where the memory of a GPU does not suffice, a row says so, and the rest is measured.
    """

    def __init__(
        self, plan: Plan, say: Callable[[str], None], keep: Callable[[], None] = lambda: None
    ) -> None:
        self.plan = plan
        self.say = say
        self.keep = keep
        self.device = choose_device(plan.device)
        self.half = choose_precision("auto", self.device)
        names = plan.precisions or dict.fromkeys(["float32", precision_name(self.half)])
        self.dtypes = [choose_precision(name, self.device) for name in names]
        self.halves = [dtype for dtype in self.dtypes if dtype != torch.float32]
        self.sizes = [name for name in plan.models if name in subjects.SIZES]
        self.profile = ""
        self.report: dict[str, Any] = {"machine": machine.describe(self.device)}

    def run(self) -> dict[str, Any]:
        """Measure everything. Raises InputError or ModelError, and then before it measures."""
        self._check()
        if "startup" in self.plan.parts:
            self.say("start-up")
            self.report["startup"] = startup.measure(self.plan.device)
            self.keep()
        self._rates()
        if "runs" in self.plan.parts and BUILTIN in self.plan.models:
            self._try("runs", BUILTIN, self._builtin_runs)
        for name in self.sizes:
            self._network(name)
        if "agreement" in self.plan.parts:
            self._masks()
        return self.report

    def _check(self) -> None:
        """Read what the parts need, so that nothing wrong is found after an hour."""
        plan = self.plan
        if "runs" in plan.parts:
            ours = [BUILTIN] if BUILTIN in plan.models else []
            for what in ours + [self.device.type] * bool(self.sizes):
                shape, slices = self._size(what)
                if slices > shape[0]:
                    raise InputError(
                        f"An object of {slices} slices does not fit into a volume of {shape[0]}: "
                        "give fewer --slices or a larger --shape."
                    )
        if "agreement" in plan.parts and plan.manifest is not None:
            from ..evaluation.cases import check_structures, read_manifest

            check_structures(read_manifest(plan.manifest, plan.cases), plan.limit, 0)
            if plan.checkpoint is not None:
                load_model(plan.checkpoint, plan.device, "float32")

    def _rates(self) -> None:
        self.rates: dict[torch.dtype, float] = {}
        if "encode" in self.plan.parts and self.sizes:
            self.say("matrix products")
            self.rates = {dtype: machine.matrix_rate(self.device, dtype) for dtype in self.dtypes}
            rounded = {precision_name(dtype): round(rate, 1) for dtype, rate in self.rates.items()}
            self.report["matrix_gflops"] = rounded
            self.keep()

    def _network(self, name: str) -> None:
        parts = self.plan.parts
        network = subjects.random_network(subjects.SIZES[name])
        if "encode" in parts:
            self._try("encode", name, lambda: self._encode(name, network))
        if "runs" in parts:
            self._try("runs", name, lambda: self._runs(name, network))
        for dtype in self.halves if "agreement" in parts else ():
            self._try("agreement", name, partial(self._logits, name, network, dtype))
        if self.plan.profile:
            self._try("profile", name, lambda: self._profile(name, network))
        if "memory" in parts:
            self._try("memory", name, lambda: self._memory(name))

    def _try(self, part: str, name: str, measure: Callable[[], None]) -> None:
        """Measure; where the memory of the GPU is too small, that is what the report says.

        Whatever the part had on the GPU is given back, to other processes, too.
        """
        try:
            measure()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self._add(part, {"model": name, "out_of_memory": True})
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _builtin_runs(self) -> None:
        self.say("builtin: runs")
        model = load_model(BUILTIN, self.plan.device)
        # Its masks are real, but it never saw a column: it is told where that ends.
        made = phantom.column(*self._size(BUILTIN))
        row = runs.measure(model, made, self.device, self.plan.rounds, limited=True)
        self._add("runs", row)

    def _encode(self, name: str, network: SlideSam) -> None:
        self.say(f"{name}: encoding")
        batches = self.plan.batches or ([1, 2, 4, 8] if self.device.type == "cuda" else [1])
        rows = encoding.measure(
            name, network, self.device, self.dtypes, batches, self.plan.rounds, self.rates
        )
        self._add("encode", *rows)

    def _runs(self, name: str, network: SlideSam) -> None:
        self.say(f"{name}: runs")
        made = phantom.column(*self._size(self.device.type))
        model = subjects.as_model(network, name, self.device, self.half)
        row = runs.measure(phantom.LedModel(model, made), made, self.device, self.plan.rounds)
        self._add("runs", row)
        self._published(row)

    def _logits(self, name: str, network: SlideSam, dtype: torch.dtype) -> None:
        self.say(f"{name}: logits in {precision_name(dtype)}")
        made = phantom.column((3, 512, 512), 3)
        self._add("agreement", agreement.on_logits(name, network, self.device, dtype, made))

    def _profile(self, name: str, network: SlideSam) -> None:
        self.say(f"{name}: profile")
        batch = max(self.plan.batches or [1])
        text = profiling.table(network, self.device, self.half, batch)
        self.profile += f"{name}, {precision_name(self.half)}, batch {batch}\n{text}\n"
        self.keep()

    def _memory(self, name: str) -> None:
        self.say(f"{name}: memory on a large volume")
        self._add("memory", {"model": name, **large.measure(name, self.plan.device)})

    def _published(self, run: dict[str, Any]) -> None:
        """The same object by the published predictor, which encodes the whole volume first."""
        rows = [r for r in self.report.get("encode", []) if r["model"] == run["model"]]
        original = next((r for r in rows if r.get("network") == encoding.ORIGINAL), None)
        if original is None or "seconds" not in original:
            return
        # The first and the last slice are never the middle of a window there.
        before = (run["shape"][0] - 2) * original["seconds"]
        whole = before + run["slices"] * run["decode_s"]
        comparison = {
            "model": run["model"],
            "windows": run["shape"][0] - 2,
            "first_mask_s": round(before + run["decode_s"], 1),
            "run_s": round(whole, 1),
            "first_mask_ratio": round((before + run["decode_s"]) / run["first_mask_s"], 1),
            "run_ratio": round(whole / run["run_s"], 1),
            "extrapolated_from": "seconds per window of the original encoder, float32, measured "
            "in the same run; decoding as here",
        }
        self._add("published", comparison)

    def _masks(self) -> None:
        plan = self.plan
        if plan.manifest is None:
            return
        names = [BUILTIN, plan.checkpoint] if plan.checkpoint else [BUILTIN]
        for name, half in itertools.product(names, map(precision_name, self.halves)):
            self._try("agreement", Path(name).name, partial(self._volumes, name, half))

    def _volumes(self, name: str, half: str) -> None:
        plan = self.plan
        self.say(f"{Path(name).name}: masks in {half}")
        both = [load_model(name, plan.device, each) for each in ("float32", half)]
        self._add("agreement", agreement.on_volumes(both, plan.manifest, plan.cases, plan.limit))

    def _size(self, what: str) -> tuple[tuple[int, int, int], int]:
        depth, slices = DEPTHS.get(what, DEPTHS["gpu"])
        slices = self.plan.slices or slices
        return self.plan.shape or (max(depth, slices + 20), 512, 512), slices

    def _add(self, part: str, *rows: dict[str, Any]) -> None:
        self.report.setdefault(part, []).extend(rows)
        self.keep()
