"""Several objects of one volume at a time: their windows are predicted in the same calls.

Each object gets what it would get alone. On a GPU a call costs nearly the same for a few windows as
for one. No torch here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from ..protocol import WindowPrediction, prompts_at_once
from .slide import Asked, Slider
from .slide_types import FinishedSlice


def slide_together(sliders: Sequence[Slider]) -> Iterator[tuple[int, FinishedSlice | None]]:
    """Run sliders with the same model side by side.

    Yields (number of the slider, finished slice), and (number, None) once a slider is at its end;
    its `stops` are filled then. Raises whatever the model raises.
    """
    moves = {number: slider.moves() for number, slider in enumerate(sliders)}
    answers: dict[int, list[WindowPrediction] | None] = dict.fromkeys(moves)
    while moves:
        asked: dict[int, Asked] = {}
        for number in list(moves):
            for event in _until_it_asks(moves[number], answers.pop(number, None)):
                if isinstance(event, Asked):
                    asked[number] = event
                else:
                    yield number, event
            if number not in asked:
                del moves[number]
                yield number, None
        answers.update(_predicted(sliders, asked))


def _until_it_asks(
    moves: Generator[FinishedSlice | Asked, list[WindowPrediction] | None, None],
    answer: list[WindowPrediction] | None,
) -> Iterator[FinishedSlice | Asked]:
    """The finished slices up to the next windows, and these; `answer` is that to the last ones."""
    while True:
        try:
            event = moves.send(answer)
        except StopIteration:
            return
        yield event
        if isinstance(event, Asked):
            return
        answer = None


def _predicted(
    sliders: Sequence[Slider], asked: dict[int, Asked]
) -> dict[int, list[WindowPrediction]]:
    """The predictions of all windows, in as few calls as the model's limit allows."""
    answers: dict[int, list[WindowPrediction]] = {number: [] for number in asked}
    windows = [
        (number, embedding, prompt)
        for number, a in asked.items()
        for embedding, prompt in zip(a.embeddings, a.prompts, strict=True)
    ]
    while windows:
        most = prompts_at_once(sliders[windows[0][0]].predictor.model)
        call, windows = windows[:most], windows[most:]
        numbers, embeddings, prompts = zip(*call, strict=True)
        predictor = sliders[numbers[0]].predictor
        for number, found in zip(numbers, predictor.predict_many(embeddings, prompts), strict=True):
            answers[number].append(found)
    return answers
