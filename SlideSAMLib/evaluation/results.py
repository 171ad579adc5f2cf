"""The result of one structure, and the file of results that an interrupted run resumes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.whole_files import replacing

Key = tuple[str, int, str, str]
DATA = "data sha256"  # among the settings: of each case's files, by id


@dataclass(frozen=True)
class Click:
    """One click of the simulated user, and what came of it.

    index, x, y : slice and place in voxels of the stack; x and y are None for the first prompt.
    label : 1 positive, 0 negative. dice : over the whole volume, afterwards.
    slices : finished slices that the click brought. seconds : of the slide that followed.
    """

    index: int
    x: float | None
    y: float | None
    label: int
    dice: float
    slices: int
    seconds: float


@dataclass(frozen=True)
class StructureResult:
    """What one method did with one structure.

    method : "model", or the name of a baseline. protocol : "full", "extent" or "clicks".
    prompt : see `prompting.PROMPTS`; index, box, points : where it was, in voxels of the stack.
    axis : slide axis, 0..2; slices : length of the stack; voxels, pieces, first, last : of the
    true structure. metrics : "dice" (0..1) and whatever else was registered.
    leaked_before, leaked_after, missed : slices, see `metrics.SliceCounts`.
    predicted : slices with a mask; confidence : mean over them, None for baselines.
    seconds : the whole call. stops : why each direction ended, empty for baselines.
    clicks : of the simulated user, under the protocol "clicks" only; the first is the prompt.
    scores : (slice, confidence, Dice of this slice alone) of every slice that has a mask and a
    confidence; where the structure is absent a mask has the Dice 0.
    """

    case: str
    value: int
    structure: str
    method: str
    protocol: str
    prompt: str
    axis: int
    slices: int
    index: int
    box: tuple[float, float, float, float] | None
    points: tuple[tuple[float, float], ...]
    voxels: int
    pieces: int
    first: int
    last: int
    metrics: dict[str, float]
    leaked_before: int
    leaked_after: int
    missed: int
    predicted: int
    confidence: float | None
    seconds: float
    stops: dict[str, str] = field(default_factory=dict)
    clicks: tuple[Click, ...] = ()
    scores: tuple[tuple[int, float, float], ...] = ()

    @property
    def dice(self) -> float:
        """Dice coefficient over the slices that the protocol judges."""
        return self.metrics["dice"]

    @property
    def key(self) -> Key:
        """What tells this result from the others of an evaluation."""
        return (self.case, self.value, self.method, self.protocol)


class ResultFile:
    """Results line by line (JSONL), written as they come, so that nothing finished is lost.

    The first line holds the settings that all results of the file share. Those under `DATA` are of
    single cases: a resumed run may have more or fewer of these.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))  # as they will be read back

    def start(self) -> list[StructureResult]:
        """Begin an empty file, in place of an older one, and return its results: none."""
        return self._replace([])

    def _replace(self, results: list[StructureResult]) -> list[StructureResult]:
        """Write the file anew with these results, completely or not at all, and return them."""
        lines = [{"settings": self.settings}, *(asdict(result) for result in results)]
        with replacing(self.path) as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return results

    def append(self, result: StructureResult) -> None:
        """Write one result at once. Raises InputError where the disk does not take it."""
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(result)) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}; make room and go on with "
                "--resume."
            ) from None

    def resume(self) -> list[StructureResult]:
        """The results of an earlier run with the same settings; begins the file if there is none.

        A last line that was cut off is dropped from the file; one that lacks only its end is kept.
        Raises InputError where the file was made with other settings or is not such a file.
        """
        if not self.path.exists():
            return self.start()
        records, whole = _records(self.path)
        earlier = records[0]["settings"]
        before, now = earlier.get(DATA, {}), self.settings.get(DATA, {})
        if not isinstance(before, dict):
            raise InputError(f"{self.path} is not a result file: give another --output.")
        changed = _changed({**earlier, DATA: None}, {**self.settings, DATA: None})
        if changed:
            raise InputError(
                f"{self.path} was made with another {', '.join(changed)}: give the same settings, "
                "or another --output."
            )
        changed = [case for case in _changed(before, now) if case in before and case in now]
        if changed:
            raise InputError(
                f"{self.path} was made with another image or label of {', '.join(changed)}: give "
                "the same files, or another --output."
            )
        if not now.keys() <= before.keys():
            self.settings[DATA], whole = {**before, **now}, False
        results = _restored(self.path, records)
        return results if whole else self._replace(results)


def _changed(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the values that differ, or that only one of them has."""
    return [key for key in sorted({*earlier, *now}) if earlier.get(key) != now.get(key)]


def check_new(paths: Iterable[Path]) -> None:
    """Raise InputError where there is a result file already, which `start` would replace."""
    there = next((path for path in paths if path.exists()), None)
    if there is not None:
        raise InputError(
            f"{there} has the results of an earlier run: give --resume to go on with them, or "
            "another --output."
        )


def read_results(path: Path) -> list[StructureResult]:
    """The results of a result file; raises InputError where it is none."""
    if not path.is_file():
        raise InputError(f"There is no result file {path}.")
    return _restored(path, _records(path)[0])


def _records(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a result file, settings first, and whether the last one was whole."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = ""  # no text at all
    lines = text.splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError):
            if number < len(lines):
                raise InputError(f"Line {number} of {path} is damaged.") from None
    settings = records[0].get("settings") if records and isinstance(records[0], dict) else None
    if not isinstance(settings, dict) or len(records[0]) != 1:
        raise InputError(f"{path} is not a result file: give another --output.")
    return records, len(records) == len(lines) and text.endswith("\n")


def _restored(path: Path, records: list[dict[str, Any]]) -> list[StructureResult]:
    """The results in the lines behind the settings."""
    results = []
    for number, record in enumerate(records[1:], 2):
        try:
            results.append(_restore(record))
        except (LookupError, TypeError, ValueError, AttributeError):
            raise InputError(f"Line {number} of {path} is damaged.") from None
    return results


def _restore(record: dict[str, Any]) -> StructureResult:
    box, points = record["box"], record["points"]
    record["box"] = None if box is None else tuple(box)
    record["points"] = tuple(tuple(point) for point in points)
    record["clicks"] = tuple(Click(**click) for click in record["clicks"])
    record["scores"] = tuple(tuple(score) for score in record.get("scores", ()))
    return StructureResult(**record)
