"""Would a simple map make the confidence of a slice a better forecast of its Dice?

    python Testing/Benchmarks/calibration.py TRAINING DEVELOPMENT [DEVELOPMENT ...]

Each argument is a folder that `slidesam evaluate` has written. A logistic and a power map from
confidence to Dice are fitted on the first folder, protocol "full", every structure with the same
weight, and judged on all of them. Prints a Markdown table: expected calibration error, mean
confidence minus mean Dice, mean squared distance, and the 95 % interval of its change by the map
(bootstrap over structures): a map helps where the whole interval is below 0 on data that it was
not fitted on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from SlideSAMLib.errors import InputError  # noqa: E402
from SlideSAMLib.evaluation.calibration import pooled, reliability  # noqa: E402
from SlideSAMLib.evaluation.command import RESULTS  # noqa: E402
from SlideSAMLib.evaluation.results import StructureResult, read_results  # noqa: E402
from SlideSAMLib.evaluation.tables import table  # noqa: E402

EDGE = 1e-3  # confidences are kept so far from 0 and 1 where their logit is taken
ROUNDS = 2000  # of the bootstrap
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]  # confidence, Dice, weight


def logistic(parameters: Sequence[float], confidence: np.ndarray) -> np.ndarray:
    """Slope and offset on the scale of the logit."""
    clipped = np.clip(confidence, EDGE, 1 - EDGE)
    logit = parameters[0] + parameters[1] * np.log(clipped / (1 - clipped))
    return 1 / (1 + np.exp(-logit))


def power(parameters: Sequence[float], confidence: np.ndarray) -> np.ndarray:
    """The confidence to the power of exp(parameter)."""
    return confidence ** np.exp(parameters[0])


MAPS: dict[str, tuple[Callable, list[float]]] = {
    "logistic": (logistic, [0.0, 1.0]),
    "power": (power, [0.0]),
}


def fitted(function: Callable, start: list[float], columns: Columns) -> np.ndarray:
    """The parameters with the least squared distance to the Dice."""
    from scipy.optimize import minimize

    confidence, dice, weight = columns
    found = minimize(
        lambda p: float(weight @ (function(p, confidence) - dice) ** 2), start, method="Nelder-Mead"
    )
    return found.x


def interval(results: Sequence[StructureResult], protocol: str, change: Callable) -> str:
    """95 % interval of the change of the mean squared distance, structures drawn anew."""
    gains = []
    for result in results:
        confidence, dice, _ = pooled([result], protocol)
        if len(confidence):
            raw, mapped = (confidence - dice) ** 2, (change(confidence) - dice) ** 2
            gains.append(float(np.mean(mapped - raw)))
    random = np.random.default_rng(0)
    drawn = random.choice(gains, (ROUNDS, len(gains))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{low:+.4f} to {high:+.4f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="the first one is fitted on")
    folders = parser.parse_args().folders
    try:
        runs = [read_results(folder / RESULTS) for folder in folders]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    training = pooled(runs[0], "full")
    if not len(training[0]):
        print(f"error: {folders[0]} has no slices of the protocol full.", file=sys.stderr)
        return 2
    maps: dict[str, Callable] = {"none": lambda confidence: confidence}
    for name, (function, start) in MAPS.items():
        found = fitted(function, start, training)
        label = f"{name} ({', '.join(f'{value:.3f}' for value in found)})"
        maps[label] = lambda confidence, f=function, p=found: f(p, confidence)
    rows = []
    for folder, results in zip(folders, runs, strict=True):
        for protocol in ("full", "extent"):
            confidence, dice, weight = pooled(results, protocol)
            if not len(confidence):
                continue
            for label, change in maps.items():
                mapped = change(confidence)
                judged = reliability(mapped, dice, weight)
                distance = weight @ (mapped - dice) ** 2 / weight.sum()
                gain = "-" if label == "none" else interval(results, protocol, change)
                row = (folder.name, protocol, judged.structures, label, f"{judged.error:.3f}")
                rows.append((*row, f"{judged.bias:+.3f}", f"{distance:.4f}", gain))
    header = ("results", "protocol", "structures", "map", "calibration error")
    print(table((*header, "confidence minus Dice", "squared distance", "its change"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
