"""The slices that a run may reach, with sentences that count slices as the panel does. No Qt.

The library counts from the first slice that the volume covers, the user in the segmentation's
geometry, which may be larger than the volume. There are two limits or none.
"""

from __future__ import annotations

from ..tasks.work import Wanted, Work
from ..text import tr as _
from .options import Options


def limits_of(options: Options, work: Work) -> tuple[int | None, int | None]:
    """First and last slice of the options, counted from the start of the source."""
    start = int(work.source.part.first[work.axis])
    end = int(work.source.part.last[work.axis])
    limits = [
        None if value is None else min(max(value, start), end) - start
        for value in (options.first, options.last)
    ]
    return limits[0], limits[1]


def possible(
    direction: str, work: Work, wanted: Wanted, first: int | None, last: int | None
) -> int:
    """How many slices a run will find at most."""
    part = work.source.part
    count = int(part.last[work.axis] - part.first[work.axis]) + 1
    low = 0 if first is None else first
    high = count - 1 if last is None else last
    if direction == "forward" and wanted:
        low = max(low, min(wanted))
    if direction == "backward" and wanted:
        high = min(high, max(wanted))
    return max(1, high - low + 1)


def check_run(work: Work, wanted: Wanted, first: int | None, last: int | None) -> None:
    """Raise ValueError with a sentence where a run cannot keep to its limits."""
    start = int(work.source.part.first[work.axis])
    if first is not None and first > last:
        raise ValueError(
            _("The range of slices is empty: {first} comes after {last}.").format(
                first=first + start, last=last + start
            )
        )
    for index in work.marked(wanted):
        if _outside(index, first, last):
            raise ValueError(
                _(
                    "The prompt on slice {index} is outside the slices {first} to {last}: change "
                    "the range, or remove the prompt."
                ).format(index=index + start, **_named(work, first, last))
            )


def check_correction(work: Work, wanted: Wanted, index: int) -> None:
    """Raise ValueError where a correction on a slice cannot keep to the limits of the last run.

    It slides to the marked slices on either side, so that they must not lie outside either.
    """
    first, last, _direction = work.limits
    marked = sorted(work.marked(wanted))
    below = [each for each in marked if each < index][-1:]
    above = [each for each in marked if each > index][:1]
    for each in (index, *below, *above):
        if _outside(each, first, last):
            raise ValueError(
                _(
                    "Slice {index} is outside the slices {first} to {last} of the last run: change "
                    "the range and press Segment first."
                ).format(
                    index=each + int(work.source.part.first[work.axis]),
                    **_named(work, first, last),
                )
            )


def _outside(index: int, first: int | None, last: int | None) -> bool:
    return first is not None and not first <= index <= last


def _named(work: Work, first: int, last: int) -> dict[str, int]:
    """The limits as the panel counts them."""
    start = int(work.source.part.first[work.axis])
    return {"first": first + start, "last": last + start}
