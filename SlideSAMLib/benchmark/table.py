"""The report of a benchmark as one table for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Line = tuple[str, str, str, str, str]

HEAD: Line = ("what", "model", "precision", "value", "")


def text(report: dict[str, Any]) -> str:
    """The machine in one line, and the table in aligned columns."""
    lines = [HEAD, *_lines(report)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEAD))]
    rows = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([_machine(report["machine"]), "", *(row.rstrip() for row in rows)])


def _machine(found: dict[str, Any]) -> str:
    parts = [
        found.get("gpu") or found["processor"],
        f"{found['cores']} cores",
        f"PyTorch {found['torch']}",
        f"device {found['device']}",
        f"load {found['load']}",
    ]
    return ", ".join(parts)


def _lines(report: dict[str, Any]) -> Iterator[Line]:
    for part, lines in _PARTS.items():
        for row in report.get(part, []):
            yield from (_too_large(part, row) if row.get("out_of_memory") else lines(row))
    for row in report.get("profile", []):  # its figures are in a file of their own
        yield from _too_large("profile", row)
    if "startup" in report:
        yield from _startup(report["startup"])


def _too_large(part: str, row: dict[str, Any]) -> Iterator[Line]:
    what = _encoder(row) if "batch" in row else part
    yield what, row["model"], row.get("precision", ""), "-", "the memory of the GPU is too small"


def _encoder(row: dict[str, Any]) -> str:
    return f"encode a window, {row['network']}, batch {row['batch']}"


def _encoding(row: dict[str, Any]) -> Iterator[Line]:
    what = _encoder(row)
    notes = []
    if "times_original" in row:
        notes.append(f"{row['times_original']:.1f} x the original")
    if row["share_of_rate"] is not None:
        notes.append(f"{row['share_of_rate']:.0%} of the matrix rate")
    if row["peak_mib"] is not None:
        notes.append(f"{row['peak_mib']} MiB beyond the weights")
    notes.append(f"error {row['error']:.1e}")
    yield what, row["model"], row["precision"], _seconds(row["seconds"]), ", ".join(notes)


def _run(row: dict[str, Any]) -> Iterator[Line]:
    model, precision = row["model"], row["precision"]
    cold = f"the very first {_seconds(row['first_mask_cold_s'])}"
    yield "first mask", model, precision, _seconds(row["first_mask_s"]), cold
    yield "refine a cached slice", model, precision, _seconds(row["refine_s"]), ""
    together = f"{_seconds(row['decode_two_s'])} where two are one call"
    yield "decode a slice", model, precision, _seconds(row["decode_s"]), together
    peak = "" if row["peak_mib"] is None else f", {row['peak_mib']} MiB beyond what was there"
    note = f"{_seconds(row['slice_s'])} per slice{peak}"
    yield f"{row['slices']} slices from one box", model, precision, _seconds(row["run_s"]), note


def _published(row: dict[str, Any]) -> Iterator[Line]:
    what = f"encode all {row['windows']} windows first"
    note = f"first mask {row['first_mask_ratio']:.0f} x, last {row['run_ratio']:.0f} x later"
    yield what, row["model"], "float32", _seconds(row["run_s"]), f"{note}; extrapolated"


def _memory(row: dict[str, Any]) -> Iterator[Line]:
    what = f"memory on {' x '.join(map(str, row['shape']))}"
    host = "unknown" if row["host_peak_mib"] is None else f"{row['host_peak_mib']} MiB"
    cache = f"a full cache takes {row['cache_limit_mib']} MiB more"
    note = f"{row['volume_mib']} MiB of them the volume; {cache}"
    if row["gpu_peak_mib"] is not None:
        note += f", GPU {row['gpu_peak_mib']} MiB"
    yield what, row["model"], row["precision"], host, note


def _agreement(row: dict[str, Any]) -> Iterator[Line]:
    precision = row["precisions"][1]
    if "mean_dice" in row:
        note = f"mean over {row['structures']} structures"
        if row["mean_dice"] is not None:
            note += f", least {row['least_dice']:.4f}"
        value = "-" if row["mean_dice"] is None else f"{row['mean_dice']:.4f}"
        yield "Dice with the float32 masks", row["model"], precision, value, note
    else:
        note = f"{row['same_sign']:.2%} of the voxels in the same mask"
        value = f"{row['error']:.1e}"
        yield "error of the logits to float32", row["model"], precision, value, note


def _startup(row: dict[str, Any]) -> Iterator[Line]:
    torch = "with PyTorch" if row["imports_torch"] else "without PyTorch"
    yield "import SlideSAMLib", "", "", _seconds(row["import_slidesamlib_s"]), torch
    yield "import PyTorch", "", "", _seconds(row["import_torch_s"]), ""
    yield "load the model", "builtin", "", _seconds(row["load_builtin_s"]), "PyTorch is there"


_PARTS = {
    "encode": _encoding,
    "runs": _run,
    "published": _published,
    "memory": _memory,
    "agreement": _agreement,
}


def _seconds(value: float) -> str:
    return f"{1000 * value:.1f} ms" if value < 1 else f"{value:.2f} s"
