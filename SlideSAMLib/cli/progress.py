"""A progress bar of finished slices on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Progress(Protocol):
    """What `SlideSAMLib.segment` calls after every finished slice."""

    def __call__(self, done: int, total: int | None, finished: Any) -> None: ...


@contextmanager
def slice_bar(text: str) -> Iterator[Progress]:
    """A bar that is shown on a terminal only and leaves nothing behind."""
    from tqdm import tqdm

    with tqdm(desc=text, unit="slice", leave=False, disable=None) as bar:

        def show(done: int, total: int | None, finished: Any) -> None:
            bar.total = total
            bar.set_postfix_str(f"slice {finished.index}, confidence {finished.confidence:.2f}")
            bar.update(max(done - bar.n, 0))

        yield show
