"""Encoding one window: ours by precision and batch, beside the original networks.

All networks have the same weights and see the same images, and take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..compute.cuda_graphs import PLAIN_RUNS, Graphed
from ..compute.devices import precision_name
from ..compute.memory import out_of_memory
from ..sam.cuda_encoder import quickest_encoder
from ..sam.model import fill_network
from ..sam.network import NetworkConfig, SlideSam
from . import subjects
from .clock import medians
from .peak import peak_beyond

ORIGINAL, THEIRS, OURS = "segment_anything", "transformers", "SlideSAM"


@dataclass(frozen=True, eq=False)
class _Encoder:
    """One way to encode: images (B, 3, S, S) -> embeddings (B, C, grid, grid)."""

    network: str
    dtype: torch.dtype
    batch: int
    encode: Callable[[Tensor], Tensor]


def measure(
    name: str,
    network: SlideSam,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    batches: Sequence[int],
    rounds: int,
    rates: dict[torch.dtype, float],
    originals: bool = True,
) -> list[dict[str, Any]]:
    """One row for each way to encode.

    network : the weights, float32 on the CPU. rates : measured matrix rates, GFLOP/s.

    Row: `model`, `network`, `precision`, `batch`; `seconds`, the median time per window, and
    `processor_s`, that of the processor's threads (see `clock.Taken`); `times_original`, how often
    `seconds` goes into the original's; `peak_mib` beyond the weights, and `memory_of_original`,
    its share of the original's; `gflops`, and `share_of_rate` of the measured matrix rate;
    `error`, the norm of the difference to the first row's embedding over its norm. A way that the
    GPU has no memory for has `out_of_memory` in place of its figures.
    """
    ways = _originals(network, device, max(batches)) if originals else []
    for dtype in dtypes:
        copy = fill_network(network.config, network.state_dict(), device, dtype)
        encode = _ours(copy, device)
        ways += [_Encoder(OURS, dtype, batch, encode) for batch in batches]
    size = network.config.image_size
    generator = torch.Generator().manual_seed(subjects.SEED)
    images = torch.randn(1, 3, size, size, generator=generator).to(device)
    with torch.inference_mode():
        reference = ways[0].encode(images).float()
        # Every kernel has run once after this, so that no memory is taken for good meanwhile.
        others = {n: partial(_error, ways[n], images, reference) for n in range(1, len(ways))}
        errors = {0: 0.0, **_that_fit(others)}
        works = {n: _work(ways[n], images) for n in errors}
        peaks = _that_fit({n: partial(peak_beyond, works[n], device) for n in works})
        # A graph comes after the plain runs, and holds its memory.
        again = PLAIN_RUNS if device.type == "cuda" else 0
        warm = _that_fit({n: partial(_repeat, works[n], again) for n in peaks})
        taken = medians({n: works[n] for n in warm}, device, rounds, warm=device.type != "cpu")
    rows = []
    for n, way in enumerate(ways):
        if n not in taken:
            rows.append({**_way(name, way), "out_of_memory": True})
            continue
        row = _row(name, way, taken[n].clock / way.batch, network.config, rates.get(way.dtype))
        row["processor_s"] = round(taken[n].processor / way.batch, 4)
        row["error"] = float(f"{errors[n]:.2g}")
        row["peak_mib"] = None if peaks[n] is None else round(peaks[n])
        if originals and 0 in taken:
            row["times_original"] = round(taken[0].clock / ways[0].batch / row["seconds"], 2)
            if peaks[0] and peaks[n] is not None:
                row["memory_of_original"] = round(peaks[n] / peaks[0], 3)
        rows.append(row)
    return rows


def _originals(network: SlideSam, device: torch.device, batch: int) -> list[_Encoder]:
    encoder = subjects.original_encoder(network, device)
    ways = [_Encoder(ORIGINAL, torch.float32, 1, encoder)]
    if device.type == "cuda":
        half = subjects.original_encoder(network, device).to(torch.bfloat16)
        ways.append(_Encoder(ORIGINAL, torch.bfloat16, batch, _casting(half, torch.bfloat16)))
    theirs = subjects.transformers_encoder(network, device)
    if theirs is not None:
        ways.append(_Encoder(THEIRS, torch.float32, 1, theirs))
    return ways


def _ours(network: SlideSam, device: torch.device) -> Callable[[Tensor], Tensor]:
    """As windows are encoded: on CUDA GPUs by graphs."""
    encode = quickest_encoder(network)
    if device.type != "cuda":
        return encode
    graphs = Graphed(lambda what, images: (encode(images),), device)
    return lambda images: graphs(None, images)[0]


def _casting(encode: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda images: encode(images.to(dtype))


def _work(way: _Encoder, images: Tensor) -> Callable[[], Tensor]:
    batch = images.expand(way.batch, -1, -1, -1).contiguous()
    return lambda: way.encode(batch)


def _repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def _that_fit(measures: dict[int, Callable[[], Any]]) -> dict[int, Any]:
    """What each of them finds, without those that the memory of the GPU is too small for."""
    found = {}
    for n, measure in measures.items():
        try:
            found[n] = measure()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            torch.cuda.empty_cache()
    return found


def _error(way: _Encoder, images: Tensor, reference: Tensor) -> float:
    """Norm of the difference to the reference over its norm."""
    found = _work(way, images)()[-1:].float()
    return float((found - reference).norm() / reference.norm())


def _way(name: str, way: _Encoder) -> dict[str, Any]:
    return {
        "model": name,
        "network": way.network,
        "precision": precision_name(way.dtype),
        "batch": way.batch,
    }


def _row(
    name: str, way: _Encoder, seconds: float, config: NetworkConfig, rate: float | None
) -> dict[str, Any]:
    gflops = subjects.encoder_flop(config) / seconds / 1e9
    return {
        **_way(name, way),
        "seconds": round(seconds, 6),
        "gflops": round(gflops),
        "share_of_rate": None if rate is None else round(gflops / rate, 3),
    }
