"""Progress bars on stderr, on a terminal only; they leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Progress(Protocol):
    """What `SlideSAMLib.segment` calls after every finished slice."""

    def __call__(self, done: int, total: int | None, finished: Any) -> None: ...


@contextmanager
def slice_bar(text: str) -> Iterator[Progress]:
    """A bar of finished slices."""
    from tqdm import tqdm

    with tqdm(desc=text, unit=" slices", leave=False, disable=None) as bar:

        def show(done: int, total: int | None, finished: Any) -> None:
            bar.total = total
            bar.set_postfix_str(
                f"slice {finished.index}, confidence {finished.confidence:.2f}", refresh=False
            )
            bar.update(max(done - bar.n, 0))

        yield show


@contextmanager
def byte_bar(text: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of received bytes."""
    from tqdm import tqdm

    with tqdm(desc=text, unit="B", unit_scale=True, leave=False, disable=None) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
