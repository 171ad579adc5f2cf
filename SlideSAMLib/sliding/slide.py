"""The slide: from prompts on a few slices to masks on all slices of the object. No torch here.

A window of three slices is predicted on every prompted slice. From there fronts move outwards,
one slice at a time: the newest masks prompt the next window. Beyond the outermost prompts a front
runs until a rule stops it (`stops`); between two prompts two fronts run towards each other, and
where they meet both count, the nearer prompt more. A slice is seen by up to three windows, whose
logits are fused (`fusion`). The fronts take turns. Those that do not wait for each other are
predicted in one call, as many as the model likes; the result is that of one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..prompts import SlicePrompt
from ..protocol import SliceModel, WindowPrediction, WindowPrompt, prompts_at_once
from ..stack import Stack
from ..window import EmbeddingCache
from .front import Anchor, Front, Question, nearest_anchor, predict_anchor, told_confidence
from .fusion import SliceRecord, blend
from .reference_scheme import slide_reference
from .slide_types import FinishedSlice, SlideSettings
from .state import SlideState
from .stops import Stop

DIRECTIONS = {"backward": -1, "forward": 1}


def slide(
    stack: Stack,
    prompts: Iterable[SlicePrompt],
    model: SliceModel,
    first: int | None = None,
    last: int | None = None,
    settings: SlideSettings | None = None,
    cache: EmbeddingCache | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Generator[FinishedSlice, None, dict[str, Stop]]:
    """Slide a window from the prompted slices in both directions.

    Parameters
    ----------
    stack : the volume along its slide axis.
    prompts : one or more; their index counts along the slide axis. Those on one slice are one.
    model : what predicts a window, see `protocol.SliceModel`.
    first, last : limits of the slide, inclusive; None stands for the end of the volume.
    settings : None stands for the default ones.
    cache : where embeddings are kept between slides of this stack; None makes a private one.
    cancelled : asked before every window, and by a slow encoder within one; once it says True the
        slide ends.

    Yields
    ------
    FinishedSlice
        A slice may come again when a later window refines it; the newest one counts.

    Returns
    -------
    dict
        Why the slide ended: "backward" and "forward", and for every stretch between two
        prompted slices that are not neighbours one key such as "12-20".

    Raises
    ------
    InputError
        No prompt, a prompt outside the volume or the limits, or limits that cannot be used; with
        the reference scheme, fewer than three slices or a prompt on the first or last one.

    Beyond that, whatever the model raises. The sliding follows Slide-SAM (Quan et al., PMLR
    250:1179-1195, 2024); the settings `scheme="reference"` give it as it was published.
    """
    slider = Slider(stack, prompts, model, first, last, settings, cache, cancelled)
    yield from slider.run()
    return slider.stops


@dataclass(frozen=True, eq=False)
class Asked:
    """Windows that a slider wants to have predicted in one call."""

    embeddings: list[Any]
    prompts: list[WindowPrompt]


@dataclass(eq=False)
class Gap:
    """The stretch between two prompted slices, with a front from either end."""

    lower: Front
    upper: Front

    @property
    def name(self) -> str:
        return f"{self.lower.anchor.index}-{self.upper.anchor.index}"

    @property
    def closed(self) -> bool:
        """Whether every slice of the stretch has a window of its own."""
        return self.lower.position + 1 >= self.upper.position

    @property
    def overlap(self) -> int:
        """How many slices both fronts have predicted; negative where some lie between them."""
        return self.lower.position - self.upper.position + 1

    def settle(self) -> None:
        """End both fronts once they have met; one may end early, the other goes on alone."""
        if self.overlap >= self.lower.settings.meet_overlap:
            for front in (self.lower, self.upper):
                front.stop = front.stop or Stop.MET_NEXT_PROMPT

    @property
    def closing(self) -> bool:
        """Whether the next window of one front, where it is accepted, ends the other one."""
        return self.overlap + 1 >= self.lower.settings.meet_overlap

    def stop(self) -> Stop:
        if self.closed:
            return Stop.MET_NEXT_PROMPT
        return self.lower.stop or self.upper.stop or Stop.CANCELLED

    def shared(self) -> dict[int, SliceRecord]:
        """The slices that both fronts predicted, blended: the nearer prompt weighs more."""
        low, high = self.lower.anchor.index, self.upper.anchor.index
        return {
            index: blend(
                self.lower.records[index], self.upper.records[index], high - index, index - low
            )
            for index in range(self.upper.position, self.lower.position + 1)
        }


class Slider(SlideState):
    """One run of the default or the reference scheme; `slide` is the plain way to use it.

    `SlideState` says what it takes, and what it has beside its methods.
    """

    def run(self) -> Generator[FinishedSlice, None, None]:
        """Slide; `stops` says afterwards why it ended."""
        moves, predictions = self.moves(), None
        while True:
            try:
                event = moves.send(predictions)
            except StopIteration:
                return
            predictions = None
            if isinstance(event, Asked):
                predictions = self.predictor.predict_many(event.embeddings, event.prompts)
            else:
                yield event

    def moves(self) -> Generator[FinishedSlice | Asked, list[WindowPrediction] | None, None]:
        """What `run` does, for whoever predicts windows of several sliders in one call.

        Where it yields windows, their predictions must be sent, where a finished slice, None.
        """
        if self.settings.scheme == "reference":
            yield from slide_reference(self)
            return
        anchors: dict[int, Anchor] = {}
        for index in self.merged:
            if self.cancelled():
                return
            anchor = self._anchor(index)
            if anchor is None:
                return
            anchors[index] = anchor
            yield self.publish(index, anchor.record, 0, anchor)
        fronts, gaps = self._fronts(anchors)
        yield from self._move(fronts, gaps)

    def publish(
        self, index: int, record: SliceRecord, direction: int, anchor: Anchor
    ) -> FinishedSlice:
        """A finished slice out of what is known of it; `anchor` is the slice it goes back to."""
        fused = record.fused()
        confidence = told_confidence(record.confidence(), anchor.points_alone, self.settings)
        mask = fused.mask((self.stack.height, self.stack.width))
        return self.finished(index, mask, confidence, direction, fused)

    def _anchor(self, index: int) -> Anchor | None:
        """Predict the window of a prompted slice; None where that is cancelled meanwhile."""
        prompted = [i for i in self.merged if i != index]
        beside = [i for i in (index + 1, index - 1) if self.first <= i <= self.last]
        embedding = self.predictor.embedding(index, [*prompted, *beside], self.cancelled)
        if embedding is None:
            return None
        chosen, reference = self.chosen.get(index), self.references.get(index)
        asked = (self.predictor, self.merged[index], self.settings, embedding)
        return predict_anchor(*asked, chosen, reference)

    def _fronts(self, anchors: dict[int, Anchor]) -> tuple[dict[str, Front], list[Gap]]:
        nearest = nearest_anchor(anchors)

        def front(anchor: Anchor, direction: int, bound: int, reason: Stop, **more: Any) -> Front:
            where = (anchor, direction, bound, reason, nearest)
            return Front(self.predictor, self.settings, *where, **more)

        order, met = sorted(anchors), Stop.MET_NEXT_PROMPT
        ends = {
            "backward": (anchors[order[0]], self.first, 0),
            "forward": (anchors[order[-1]], self.last, self.stack.slices - 1),
        }
        outward = {}
        for side in self.sides:
            anchor, bound, edge = ends[side]
            reason = Stop.END_OF_VOLUME if bound == edge else Stop.LIMIT_REACHED
            open_end = not self.given[side]
            outward[side] = front(anchor, DIRECTIONS[side], bound, reason, open_end=open_end)
        gaps = [
            Gap(
                front(anchors[low], 1, high - 1, met, avoided=anchors[high].rejected),
                front(anchors[high], -1, low + 1, met, avoided=anchors[low].rejected),
            )
            for low, high in pairwise(order)
            if high - low > 1
        ]
        return outward, gaps

    def _move(
        self, outward: dict[str, Front], gaps: list[Gap]
    ) -> Generator[FinishedSlice | Asked, list[WindowPrediction], None]:
        """Move all fronts in turn, one window each, until every one has stopped."""
        fronts = [*outward.values(), *(f for gap in gaps for f in (gap.lower, gap.upper))]
        self.stops.update({gap.name: Stop.CANCELLED for gap in gaps})
        self._note(outward, gaps)
        while any(front.stop is None for front in fronts):
            for turn in self._turns(fronts, gaps):
                questions, embeddings = self._ask(turn, fronts)
                predictions = []
                if questions:
                    predictions = yield Asked(embeddings, [q.prompt for q in questions])
                    predictions = list(reversed(predictions))
                del embeddings  # nothing large outlives its turn
                for front, question in zip(turn, questions, strict=False):
                    changed = front.take(question, predictions.pop())
                    for gap in gaps:
                        gap.settle()
                    self._note(outward, gaps)
                    for index in changed:
                        direction = 0 if index == front.anchor.index else front.direction
                        record = front.records[index]
                        yield self.publish(index, record, direction, front.anchor)
                if len(questions) < len(turn):
                    return  # cancelled
        for gap in gaps:
            for index, record in gap.shared().items():
                yield self.publish(index, record, 1, gap.lower.nearest(index))

    def _turns(self, fronts: Sequence[Front], gaps: Sequence[Gap]) -> Iterator[list[Front]]:
        """Every open front once, those together that can be predicted in one call.

        Where what one front finds may end another or change its prompt, the other one waits, and
        is looked at again when the turn before it is over.
        """
        most = prompts_at_once(self.predictor.model)
        turn: list[Front] = []
        for front in fronts:
            if front.stop is not None:
                continue
            if len(turn) == most or any(self._depend(front, other, gaps) for other in turn):
                yield turn
                turn = []
            if front.stop is None:  # still
                turn.append(front)
        if turn:
            yield turn

    def _depend(self, front: Front, other: Front, gaps: Sequence[Gap]) -> bool:
        if self.settings.prompted_outer_weight and front.position == other.position:
            return True  # both stand on one prompted slice, of whose mask their windows have a say
        return any(gap.closing and {front, other} == {gap.lower, gap.upper} for gap in gaps)

    def _ask(
        self, turn: Sequence[Front], fronts: Sequence[Front]
    ) -> tuple[list[Question], list[Any]]:
        """What the fronts of a turn ask next, with embeddings; cancelled, only the first ones."""
        questions: list[Question] = []
        embeddings: list[Any] = []
        for front in turn:
            if self.cancelled():
                break
            question = front.ask()
            asked = {question.centre, *(earlier.centre for earlier in questions)}
            ahead = [centre for centre in self._ahead(front, fronts) if centre not in asked]
            embedding = self.predictor.embedding(question.centre, ahead, self.cancelled)
            if embedding is None:
                break
            embeddings.append(embedding)
            questions.append(question)
        return questions, embeddings

    def _note(self, outward: dict[str, Front], gaps: list[Gap]) -> None:
        for side, front in outward.items():
            self.stops[side] = front.stop or Stop.CANCELLED
        for gap in gaps:
            open_fronts = gap.lower.stop is None or gap.upper.stop is None
            self.stops[gap.name] = Stop.CANCELLED if open_fronts else gap.stop()

    @staticmethod
    def _ahead(front: Front, fronts: Sequence[Front]) -> list[int]:
        """The centres coming up after the front's next one, the fronts taking turns."""
        place = fronts.index(front)
        moving = [*fronts[place:], *fronts[:place]]
        queues = [f.coming() for f in moving]
        queues[0] = queues[0][1:]
        queues.append(queues.pop(0))
        longest = max(len(queue) for queue in queues)
        return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
