"""The confidence strip: one bar per slice, drawn into a pixmap that a label shows.

PythonQt calls an overridden paintEvent for some classes only, so nothing is overridden here but an
event filter, which works for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import qt
from SlideSAMBridge.drawing import slice_views

HEIGHT = 64
MARGIN = 4  # left and right of the bars
FOOT = 9  # below the bars: ticks of the prompted slices
BACKGROUND, FRAME = (34, 36, 40), (90, 94, 100)
SURE, WEAK = (86, 180, 120), (230, 150, 50)
PROMPTED, CURRENT, LIMIT = (80, 160, 240), (250, 250, 250), (120, 124, 130)


@dataclass(frozen=True)
class StripState:
    """What is drawn. Slices are counted as the user sees them.

    low, high : the first and the last slice there is. confidence : slice -> 0..1.
        Where slices are narrower than a pixel, the bar is that of the least sure one.
    prompted : slices with prompts. current : the slice that is shown, or None.
    weak_below : bars below this are of another colour.
    """

    low: int = 0
    high: int = 0
    confidence: Mapping[int, float] = field(default_factory=dict)
    prompted: frozenset[int] = frozenset()
    current: int | None = None
    weak_below: float = 0.5


class _Clicks(qt.QObject):
    """Tells where the strip was clicked, and when it got another size."""

    def attach(self, on_click: Callable[[int], None], on_resize: Callable[[], None]) -> None:
        self._on_click, self._on_resize = on_click, on_resize

    def detach(self) -> None:
        self._on_click = self._on_resize = None

    def eventFilter(self, watched: Any, event: Any) -> bool:
        kind = event.type()
        if kind == qt.QEvent.Resize and self._on_resize is not None:
            self._on_resize()
            return False
        if kind == qt.QEvent.MouseButtonPress and self._on_click is not None:
            place = event.position() if hasattr(event, "position") else event.pos()  # Qt 6, Qt 5
            self._on_click(int(place.x()))
            return True
        return False


class ConfidenceStrip:
    """A label that shows the confidence of each slice; a click jumps there.

    on_jump : called with the slice that was clicked.
    """

    def __init__(self, on_jump: Callable[[int], Any], tooltip: str) -> None:
        self._on_jump = on_jump
        self._state = StripState()
        self._bars: tuple[Any, Any] = (None, None)  # all but the current slice: of what, the pixmap
        self.label = qt.QLabel()
        self.label.objectName = "SlideSAMConfidence"
        self.label.setMinimumHeight(HEIGHT)
        self.label.setMaximumHeight(HEIGHT)
        self.label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.label.setToolTip(tooltip)
        self._clicks = _Clicks()
        self._clicks.attach(self._clicked, self._draw)
        self.label.installEventFilter(self._clicks)
        self._draw()

    @property
    def state(self) -> StripState:
        return self._state

    def show(self, state: StripState) -> None:
        """Draw this, if it is not what is there."""
        if state != self._state:
            self._state = state
            self._draw()

    def close(self) -> None:
        """Take the event filter off, which would outlive the label."""
        self.label.removeEventFilter(self._clicks)
        self._clicks.detach()

    def slice_at(self, x: int) -> int | None:
        """The slice whose bar is at this pixel of the label."""
        state = self._state
        count = state.high - state.low + 1
        if not state.confidence and not state.prompted:
            return None
        place = int((x - MARGIN) / self._step())
        return state.low + min(max(place, 0), count - 1)

    def _clicked(self, x: int) -> None:
        index = self.slice_at(x)
        if index is not None:
            self._on_jump(index)

    def _step(self) -> float:
        """Width of a bar in pixels."""
        count = self._state.high - self._state.low + 1
        return max(1, self.label.width - 2 * MARGIN) / count

    def _draw(self) -> None:
        """The bars stay as they are while somebody scrolls: there may be a thousand slices."""
        shown = (self.label.width, replace(self._state, current=None))
        if self._bars[0] != shown:
            self._bars = shown, self._drawn_bars()
        pixmap = self._bars[1].copy()
        if self._state.current is not None:
            self._paint(pixmap, self._draw_current)
        self.label.setPixmap(pixmap)

    def _drawn_bars(self) -> Any:
        pixmap = qt.QPixmap(max(2 * MARGIN + 1, self.label.width), HEIGHT)
        pixmap.fill(_color(BACKGROUND))
        self._paint(pixmap, self._draw_bars, self._draw_prompted)
        return pixmap

    def _paint(self, pixmap: Any, *draw: Callable[[Any], None]) -> None:
        painter = qt.QPainter(pixmap)
        try:
            for each in draw:
                each(painter)
        finally:
            painter.end()  # or the pixmap stays locked

    def _draw_bars(self, painter: Any) -> None:
        state, base, step = self._state, HEIGHT - FOOT, self._step()
        weakest: dict[tuple[int, int], float] = {}
        for index, confidence in state.confidence.items():
            place = self._bar(index, step)  # many slices may share a pixel
            weakest[place] = min(confidence, weakest.get(place, 1.0))
        colors = _color(SURE), _color(WEAK)
        for (left, width), confidence in weakest.items():
            height = max(2, round((base - MARGIN) * min(1.0, max(0.0, confidence))))
            color = colors[confidence < state.weak_below]
            painter.fillRect(left, base - height, width, height, color)
        line = base - round((base - MARGIN) * state.weak_below)
        painter.fillRect(MARGIN, line, max(1, self.label.width - 2 * MARGIN), 1, _color(LIMIT))
        painter.fillRect(MARGIN, base, max(1, self.label.width - 2 * MARGIN), 1, _color(FRAME))

    def _draw_prompted(self, painter: Any) -> None:
        step = self._step()
        for index in _inside(self._state.prompted, self._state):
            left, width = self._bar(index, step)
            painter.fillRect(left, HEIGHT - FOOT + 3, max(3, width), FOOT - 4, _color(PROMPTED))

    def _draw_current(self, painter: Any) -> None:
        step = self._step()
        for index in _inside([self._state.current], self._state):
            left, width = self._bar(index, step)
            painter.fillRect(left + width // 2, 0, 2, HEIGHT - FOOT, _color(CURRENT))

    def _bar(self, index: int, step: float) -> tuple[int, int]:
        """(left, width) of a bar in pixels; a gap of one pixel where there is room."""
        left = MARGIN + int((index - self._state.low) * step)
        right = MARGIN + int((index - self._state.low + 1) * step)
        return left, max(1, right - left - (1 if step >= 4 else 0))


def state_of(interaction: Any, slice_nodes: Iterable[Any]) -> StripState:
    """What to draw for an Interaction, None for nothing; the nodes say which slice is shown."""
    work = None if interaction is None else interaction.work
    if work is None:
        return StripState()
    part, axis = interaction.reader.part() or work.source.part, work.axis  # as they lie now
    start = int(part.first[axis])
    shown = (slice_views.shown_slice(node, part) for node in slice_nodes)
    return StripState(
        low=start,
        high=int(part.last[axis]),
        confidence={start + i: value for i, (_mask, value) in work.slices.items()},
        prompted=frozenset(start + i for i in interaction.wanted(work)),
        current=next((place[1] for place in shown if place and place[0] == axis), None),
        weak_below=interaction.options.weak_below,
    )


def _inside(indices: Iterable[int], state: StripState) -> list[int]:
    return [index for index in indices if state.low <= index <= state.high]


def _color(rgb: tuple[int, int, int]) -> Any:
    return qt.QColor(*rgb)
