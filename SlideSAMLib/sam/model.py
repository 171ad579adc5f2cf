"""Slide-SAM, SAM and MedSAM networks behind the protocol of the sliding (protocol.SliceModel).

Where prompts lie in the network's frame says `prompts`, the module beside this one.

Candidates. They are ordered so that candidate 0 is the best answer in the way the network was
meant to be asked. Published Slide-SAM: the three candidate masks by falling predicted quality, so
candidate 0 is what the published predictor takes, for boxes too. SAM: its single-mask token first
where the prompt is clear (box, mask, or several points), the three candidates by falling quality;
for one point the single-mask token comes last. MedSAM: its only trained token, the single one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..compute.cuda_graphs import CudaCapture, Graphed
from ..compute.devices import (
    check_antialiasing,
    choose_device,
    choose_precision,
    on_host,
    precision_name,
)
from ..compute.memory import out_of_memory
from ..compute.own_settings import own_settings
from ..errors import ModelError
from ..files.tensor_files import TensorFile
from ..protocol import CandidateLogits, ModelTraits, Window, WindowPrediction, WindowPrompt
from ..rehearsal import Rehearsal, with_prompts
from .candidates import OtherCandidates, on_slice
from .checkpoints import load_checkpoint
from .encoding import SamEmbedding, WindowEncoder
from .network import NetworkConfig, SlideSam, empty_network
from .prompts import Kind, framed, kind_of, mask_logits

MOST_PROMPTS = 8  # in one call, on a GPU: more fronts than this take turns


@dataclass(frozen=True)
class Usage:
    """How networks of one kind are fed and read.

    scaling : "sam" (0..255, then SAM's mean and deviation) or "unit" (0..1).
    answers : "candidates" (tokens 1 to 3), "all" (these and token 0) or "single" (token 0).
    """

    resize: str
    scaling: str
    answers: str
    prompts: frozenset[str]

    @property
    def candidates(self) -> int:
        return {"candidates": 3, "all": 4, "single": 1}[self.answers]


ALL_PROMPTS = frozenset({"box", "point", "negative", "mask"})
USAGES = {
    "slide-sam": Usage("nearest", "sam", "candidates", frozenset({"box", "point"})),
    "sam": Usage("antialias", "sam", "all", ALL_PROMPTS),
    "medsam": Usage("antialias", "unit", "single", frozenset({"box"})),
}


class SamModel:
    """A three-slice SAM network as a protocol.SliceModel.

    The products of the image encoder, nearly all of the work, are computed in the chosen
    precision; everything else stays in float32. Embeddings are kept in float16.

    kind : see `USAGES`. tuned : fine-tuned here, which taught it all prompts and all tokens.
    """

    remembers = False  # see `protocol.remembers`

    def __init__(
        self,
        network: SlideSam,
        kind: str,
        name: str,
        licence: str,
        device: torch.device,
        dtype: torch.dtype,
        tuned: bool = False,
    ) -> None:
        usage = USAGES[kind]
        self._usage = replace(usage, answers="all", prompts=ALL_PROMPTS) if tuned else usage
        self._network = network
        self._device = device
        self._encoder = WindowEncoder(
            network, self._usage.resize, self._usage.scaling, device, name
        )
        self._size = network.config.image_size
        self._stream = self._graphs = None
        if device.type == "cuda":
            # Masks are waited for, windows ahead are not: their kernels give way.
            self._stream = torch.cuda.Stream(device, priority=-1)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # the weights must be there
            self._graphs = Graphed(self._answer, device, CudaCapture(device, priority=-1))
        self.device = str(device)
        self.precision = precision_name(dtype)
        scaled = "0..255, SAM's normalisation" if self._usage.scaling == "sam" else "0..1"
        self.traits = ModelTraits(
            name=name,
            licence=licence,
            input_size=self._size,
            region="slice",
            resize=self._usage.resize,
            intensity=f"minimum to maximum of the window's three slices to {scaled}",
            prompts=self._usage.prompts,
            candidates=self._usage.candidates,
        )

    def encode(self, windows: Sequence[Window]) -> list[SamEmbedding]:
        """Encode windows; see protocol.SliceModel.

        Raises
        ------
        ModelError
            The memory of the device does not suffice for one window.
        """
        return self._with_room(lambda: self._encoder.encode(windows))

    def encode_early(self, window: Window, cancelled: Callable[[], bool]) -> SamEmbedding | None:
        """`encode` while nobody waits for it; None where somebody does before it is done."""
        return self._with_room(lambda: self._encoder.encode_unless(window, cancelled))

    def windows_at_once(self) -> int:
        """How many windows to encode in one call, see `protocol.windows_at_once`."""
        return self._encoder.windows_at_once()

    @property
    def encodes_in_background(self) -> bool:
        """Whether `encode` returns before the GPU is done."""
        return self._encoder.stream is not None

    def predict(self, embedding: SamEmbedding, prompt: WindowPrompt) -> WindowPrediction:
        """Predict the candidates of one encoded window; see protocol.SliceModel.

        Raises
        ------
        InputError
            The prompt is empty.
        """
        return self.predict_many([embedding], [prompt])[0]

    def prompts_at_once(self) -> int:
        """How many windows to predict in one call, see `protocol.prompts_at_once`.

        One on a CPU: two in one call take 1.2 times what they take one after the other there, and
        the masks of the first would wait until the window of the second is encoded.
        """
        return MOST_PROMPTS if self._device.type == "cuda" else 1

    def rehearsals(self) -> Sequence[Rehearsal]:
        """What to do before the first prompt comes, see `rehearsal`.

        Nothing on a CPU, where a window takes as long the first time as later.
        """
        return with_prompts(self) if self._device.type == "cuda" else ()

    def predict_many(
        self, embeddings: Sequence[SamEmbedding], prompts: Sequence[WindowPrompt]
    ) -> list[WindowPrediction]:
        """`predict` for several windows; those with prompts of one kind are one batch.

        All of it stays on the device, up to the finished logits. Raises InputError for an empty
        prompt.
        """
        if len(prompts) > 1:  # where these do not fit, fewer at a time are better than no graphs
            return self._predicted(embeddings, prompts)
        return self._with_room(lambda: self._predicted(embeddings, prompts))

    def _with_room(self, ask: Callable[[], list]) -> list:
        """What is asked for; all graphs are given up where the GPU is full."""
        try:
            return ask()
        except RuntimeError as error:
            if not out_of_memory(error) or not self._give_up_graphs():
                raise
        torch.cuda.empty_cache()
        return ask()

    def _give_up_graphs(self) -> bool:
        """Let go of the graphs of encoder and decoder; whether there were any."""
        decoder = self._graphs is not None and self._graphs.give_up()
        return self._encoder.give_up_graphs() or decoder

    def _predicted(
        self, embeddings: Sequence[SamEmbedding], prompts: Sequence[WindowPrompt]
    ) -> list[WindowPrediction]:
        """See `predict_many`."""
        kinds: dict[Kind, list[int]] = {}
        for place, (embedding, prompt) in enumerate(zip(embeddings, prompts, strict=True)):
            kinds.setdefault(kind_of(prompt, embedding.shape), []).append(place)
        tensors: list[Tensor] = []
        others: dict[int, OtherCandidates] = {}
        beside = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with own_settings(), beside:
            for kind, places in kinds.items():
                asked = [embeddings[n] for n in places], [prompts[n] for n in places]
                *wanted, rest = self._decode(*asked, kind)
                tensors += wanted
                for place, low in zip(places, rest, strict=True):
                    own = low.clone() if len(rest) > 1 else low  # the batch need not stay for one
                    others[place] = OtherCandidates(own, kind.shape, self._stream)
            values = iter(on_host(*tensors))
        found: dict[int, WindowPrediction] = {}
        for (kind, places), *answers in zip(kinds.items(), values, values, values, strict=True):
            for place, *first in zip(places, *answers, strict=True):
                found[place] = _prediction(kind.shape, *first, others[place])
        return [found[place] for place in range(len(prompts))]

    def remember(self, embedding: SamEmbedding, mask: np.ndarray) -> None:
        """Nothing is carried over: these networks know no memory."""
        return None

    def _decode(
        self, embeddings: Sequence[SamEmbedding], prompts: Sequence[WindowPrompt], kind: Kind
    ) -> tuple[Tensor, ...]:
        """What is known of B windows, on the device.

        Logits (B, 3, H, W) of candidate 0 and their extents, see `on_slice`; quality (B,
        candidates); and the other candidates (B, candidates - 1, 3, side, side).
        """
        images = torch.stack([each.ready_tensor() for each in embeddings]).to(self._device)
        inputs = framed(prompts, kind, self._size, self._device)
        return (self._graphs or self._answer)(kind, images, *inputs)

    def _answer(
        self,
        kind: Kind,
        images: Tensor,
        coordinates: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        known: Tensor | None,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `_decode`: from embeddings (B, C, grid, grid) and `FramedPrompts`."""
        points = None if coordinates is None else (coordinates, labels)
        if masks is not None:
            masks = mask_logits(masks, known, self._network.config.raster)
        logits, quality = self._network.decode(images.float(), points, boxes, masks)
        order = self._order(quality, kind.clear)
        rows = torch.arange(len(order), device=order.device)[:, None]
        first = on_slice(logits[rows[:, 0], order[:, 0]], kind.shape)
        return *first, quality[rows, order].clamp(0, 1).float(), logits[rows, order[:, 1:]]

    def _order(self, quality: Tensor, clear: bool) -> Tensor:
        """Tokens to answer with, best first: (B, candidates), from the quality (B, 4) of all."""
        single = torch.zeros(len(quality), 1, dtype=torch.long, device=quality.device)
        if self._usage.answers == "single":
            return single
        candidates = 1 + torch.argsort(quality[:, 1:], dim=1, descending=True, stable=True)
        if self._usage.answers == "candidates":
            return candidates
        return torch.cat([single, candidates] if clear else [candidates, single], dim=1)


def _prediction(
    shape: tuple[int, int],
    logits: np.ndarray,
    extents: np.ndarray,
    quality: np.ndarray,
    others: OtherCandidates,
) -> WindowPrediction:
    """The prediction of one window: logits (3, H, W) and extents (3, 4) are candidate 0's."""
    count = len(quality)
    return WindowPrediction(
        CandidateLogits((count, *logits.shape), others.logits, {0: logits}),
        (0, 0),
        quality,
        shape,
        extents=CandidateLogits((count, *extents.shape), others.extents, {0: extents}),
    )


def load_sam(
    source: str | os.PathLike | TensorFile,
    device: str = "auto",
    precision: str = "auto",
    name: str | None = None,
    licence: str = "that of the checkpoint file",
    kind: str | None = None,
) -> SamModel:
    """A SamModel from a checkpoint of any layout (see checkpoints.py).

    Raises
    ------
    InputError
        No such file, device or precision, or this PyTorch lacks on the device what SAM needs.
    ModelError
        The file is no usable checkpoint, or does not fit the device's memory.
    """
    where = choose_device(device)
    check_antialiasing(where)
    dtype = choose_precision(precision, where)
    checkpoint = load_checkpoint(source, kind)
    note = checkpoint.note
    try:
        return SamModel(
            fill_network(checkpoint.config, checkpoint.tensors, where, dtype),
            checkpoint.kind,
            name or note.get("name", checkpoint.path.name),
            note.get("licence", licence),
            where,
            dtype,
            checkpoint.tuned,
        )
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise ModelError(
            f"The memory of {where} is too small for '{checkpoint.path.name}': choose the device "
            "cpu or a smaller model."
        ) from error


def fill_network(
    config: NetworkConfig, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> SlideSam:
    """A network on a device out of copies of plain tensors, the encoder's products in `dtype`."""
    network = empty_network(config)
    copies = {
        # Copies: weights mapped from disk would change or vanish with the file.
        name: tensor.to(device, dtype if _HALF.match(name) else torch.float32, copy=True)
        for name, tensor in tensors.items()
    }
    network.load_state_dict(copies, assign=True)
    return network.requires_grad_(False)


# The layers of the image encoder whose products are nearly all of the work
_HALF = re.compile(r"image_encoder\.(patch_embed|blocks\.\d+\.(attn|mlp))\.")
