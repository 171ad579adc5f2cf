"""The built-in network behind the protocol of the sliding (protocol.SliceModel).

Encoding only scales the slices. Predicting cuts a region around the prompt, asks the network and
puts its masks back on the slice. With a box or a mask the region follows from it. With points
alone nobody knows the size of what is meant: regions of several sizes are asked in one batch,
each answer is asked once more on a region of its own size, and the best of these wins. The answer
to the first point tells the size for the points after it, which then cost one question. The box of
that answer, grown to hold all positive points, is a prompt, too, unless there are negative points:
these say that it was wrong. It is kept with the embedding, so that nobody waits for it twice.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch

from ..boxes import Box, mask_box
from ..compute.cuda_graphs import PLAIN_RUNS, Graphed
from ..compute.devices import choose_device, choose_precision, on_host, precision_name
from ..compute.own_settings import own_settings
from ..patches import dice
from ..protocol import CandidateLogits, ModelTraits, Window, WindowPrediction, WindowPrompt
from ..rehearsal import Rehearsal, with_prompts
from . import features
from .features import Batch
from .network import BuiltinNetwork, with_products_in
from .regions import GRID, Region, enlarged, region_around, sample_region
from .requests import FACTOR, Answer, BuiltinEmbedding, BuiltinSettings, Memory, Request
from .weights import read_model

MOST_PROMPTS = 8  # in one call; more gain nothing: 12 ms for one on two cores, 52 ms for eight

TRAITS = ModelTraits(
    name="builtin",
    licence="Apache-2.0",
    input_size=GRID,
    region="crop",
    resize="antialias",
    intensity="the intensity window as 0..1, then percentiles of the region",
    prompts=frozenset({"box", "point", "negative", "mask"}),
    candidates=4,
    box_margin=0.0,
)


class BuiltinModel:
    """The built-in model; see `protocol.SliceModel` for the methods."""

    def __init__(
        self,
        network: BuiltinNetwork,
        device: torch.device,
        dtype: torch.dtype,
        traits: ModelTraits = TRAITS,
        settings: BuiltinSettings | None = None,
    ) -> None:
        self.traits, self.settings = traits, settings or BuiltinSettings()
        self._device, self._dtype = device, dtype
        network = with_products_in(network, dtype)
        self._network = network.eval().to(device, memory_format=torch.channels_last)
        self._graphs = Graphed(self._forward, device) if device.type == "cuda" else None
        self.device, self.precision = str(device), precision_name(dtype)
        self._slices: WeakValueDictionary[Hashable, torch.Tensor] = WeakValueDictionary()

    def with_settings(self, settings: BuiltinSettings) -> BuiltinModel:
        """The same model with other settings; the network is shared."""
        return BuiltinModel(self._network, self._device, self._dtype, self.traits, settings)

    def encode(self, windows: Sequence[Window]) -> list[BuiltinEmbedding]:
        """Scale the windows' slices; there is nothing to compute ahead."""
        return [
            BuiltinEmbedding(
                tuple(self._scaled(window, place) for place in range(3)),
                tuple(window.spacing[1:]),
                self.settings,
            )
            for window in windows
        ]

    def _scaled(self, window: Window, place: int) -> torch.Tensor:
        """One slice of a window as 0..1; the same tensor as long as another window holds it."""
        key = window.slice_keys[place] if window.slice_keys else None
        known = None if key is None else self._slices.get(key)
        if known is not None:
            return known
        low, high = window.intensity
        # NumPy would take several times as long.
        scaled = torch.from_numpy(window.planes[place]).sub(low).div_(high - low)
        scaled = scaled.to(torch.float16).to(self._device)
        if key is not None:
            self._slices[key] = scaled
        return scaled

    def predict(self, embedding: BuiltinEmbedding, prompt: WindowPrompt) -> WindowPrediction:
        """Four candidates on the region of the prompt; candidate 0 is the best answer."""
        return self.predict_many([embedding], [prompt])[0]

    def prompts_at_once(self) -> int:
        """How many windows to predict in one call, see `protocol.prompts_at_once`."""
        return MOST_PROMPTS

    def rehearsals(self) -> Sequence[Rehearsal]:
        """What to do before the first prompt comes, see `rehearsal`.

        On a GPU until it knows by heart what any slide asks: its graphs fit slices of every size.
        """
        if self._graphs is None:
            return with_prompts(self)
        return with_prompts(self, runs=PLAIN_RUNS + 1, fronts=2)

    @own_settings()
    def predict_many(
        self, embeddings: Sequence[BuiltinEmbedding], prompts: Sequence[WindowPrompt]
    ) -> list[WindowPrediction]:
        """`predict` for several windows; those with a box or a mask are one batch."""
        requests = [
            # The network was trained to slide one way only: what is known lies before.
            Request(embedding, prompt, prompt.known[2] and not prompt.known[0])
            for embedding, prompt in zip(embeddings, prompts, strict=True)
        ]
        placed = [request for request in requests if request.is_placed]
        found: dict[Request, tuple[Answer, int]] = {}
        if placed:
            answer = self._ask([(request, request.region()) for request in placed])
            found = {request: (answer, n) for n, request in enumerate(placed)}
        for request in requests:
            if not request.is_placed:
                answer = self._ask_points(request)
                found[request] = (answer, int(answer.ratings().argmax()))
        corners, values = [], []
        for request in requests:
            corner, *tensors = request.on_slice(*found[request])
            corners.append(corner)
            values += tensors
        values = on_host(*values)
        predictions = []
        for request, corner, first, quality, presence in zip(
            requests, corners, values[::3], values[1::3], values[2::3], strict=True
        ):
            make = partial(request.candidate, *found[request])
            logits = CandidateLogits((len(quality), *first.shape), make, {0: first})
            predictions.append(WindowPrediction(logits, corner, quality, request.shape, presence))
        return predictions

    @own_settings()
    def remember(self, embedding: BuiltinEmbedding, mask: np.ndarray) -> Memory | None:
        """The look of the object on the centre slice, and the slice itself with its mask."""
        if not mask.any():
            return None
        region = region_around(mask_box(mask), embedding.spacing, FACTOR)
        centre = embedding.slices[1]
        both = torch.stack([centre, torch.tensor(mask).to(centre)])
        image, seen = sample_region(both, region)
        return Memory(features.mask_histograms(image[None, None], seen[None, None])[0], both)

    def _ask(self, asked: list[tuple[Request, Region]]) -> Answer:
        """One batch: each request seen through its region."""
        batch = Batch.empty(len(asked), self._device)
        for n, (request, region) in enumerate(asked):
            request.fill(batch, n, region)
        tensors = batch.to(self._device).tensors()
        logits, fine, quality, presence = (self._graphs or self._forward)(None, *tensors)
        logits = enlarged(logits)
        logits[:, 0] = fine
        regions = [region for _, region in asked]
        alike = torch.zeros(2, len(regions), dtype=torch.float32, device=self._device)
        return Answer(regions, logits, quality.sigmoid(), presence.sigmoid(), *alike)

    def _forward(self, what: None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the network answers to the tensors of a batch."""
        inputs = features.assemble(Batch(*tensors), self.settings.memory_share).contiguous(
            memory_format=torch.channels_last
        )
        if self._dtype == torch.float32:
            # Not autocast that is off: older PyTorch knows none on Apple GPUs.
            return self._network(inputs)
        with torch.autocast(self._device.type, self._dtype, cache_enabled=False):
            return self._network(inputs)

    def _ask_points(self, request: Request) -> Answer:
        """Answers where there are points only, see the top of the file."""
        box = self._first_box(request) if len(request.prompt.points) > 1 else None
        if box is not None:
            region = request.with_box(box).region()  # holds the positive points, too
            if 0 not in request.prompt.labels:
                request = request.with_box(request.around_points(box))
            return self._ask([(request, region)])
        answer = self._ask_sizes(request)
        if len(request.prompt.points) == 1:
            request.remember_box(answer)
        return answer

    def _first_box(self, request: Request) -> Box | None:
        """The box of the answer to the first positive point alone; None where that is empty."""
        alone = request.alone()
        if alone.prompt.memory is not None:
            return alone.best_box(self._ask_sizes(alone))
        boxes = request.embedding.first_boxes
        if alone.prompt.points[0] not in boxes:
            alone.remember_box(self._ask_sizes(alone))
        return boxes[alone.prompt.points[0]]

    def _ask_sizes(self, request: Request) -> Answer:
        """Answers on regions of several sizes, each asked again on a region of its own size.

        Only the second answers can be compared: each sees its object as large as the others do.
        """
        answer = self._ask([(request, region) for region in request.point_regions()])
        closer, before = [], []
        for patch in request.patches(answer):
            box = request.box_of(patch)
            if box is not None:
                boxed = request.with_box(box)
                closer.append((boxed, boxed.region()))
                before.append(patch)
        if not closer:
            return answer
        final = self._ask(closer)
        for n, again in enumerate(request.patches(final)):
            alike = [dice(patch, again) for patch in before]
            final.agreement[n] = alike.pop(n)
            final.seconded[n] = max(alike, default=0.0)
        return final


def load_builtin(
    path: str | os.PathLike, device: str = "auto", precision: str = "auto"
) -> BuiltinModel:
    """Load the built-in model from a file.

    Precision 'auto' is float16 on CUDA, where bfloat16 gains nothing over it: the masks agree with
    those of float32 to a Dice of 0.9997, those of bfloat16 to 0.998 (`slidesam benchmark --models
    builtin --parts agreement --precisions float16 bfloat16 --limit 3 --data MANIFEST`). Elsewhere
    it is what `choose_precision` says. Raises InputError for a device or precision that is not
    there, ModelError for a file that cannot be used.
    """
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    if precision == "auto" and where.type == "cuda" and dtype != torch.float32:
        dtype = torch.float16
    network, notes = read_model(Path(path))
    own = {key: notes[key] for key in ("name", "licence") if key in notes}  # fine-tuned models
    return BuiltinModel(network, where, dtype, replace(TRAITS, **own))
