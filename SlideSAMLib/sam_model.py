"""Slide-SAM, SAM and MedSAM networks behind the protocol of the sliding (protocol.SliceModel).

The S x S frame. A slice of H x W voxels is stretched to the S x S pixels of the network without
keeping its aspect ratio, so column x covers S / W pixels. Voxel centres are integers, and SAM adds
half a pixel to every coordinate by itself. Hence a point at x lies at (x + 0.5) S / W - 0.5. A box
marks whole voxels, so it is given as the first and the last pixel that its voxels cover:
x0 S / W and (x1 + 1) S / W - 1; that is the box one would read off the stretched mask.

Candidates. They are ordered so that candidate 0 is the best answer in the way the network was
meant to be asked. Published Slide-SAM: the three candidate masks by falling predicted quality, so
candidate 0 is what the published predictor takes, for boxes too. SAM: its single-mask token first
where the prompt is clear (box, mask, or several points), the three candidates by falling quality;
for one point the single-mask token comes last. MedSAM: its only trained token, the single one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .checkpoints import load_checkpoint
from .devices import choose_device, choose_precision, on_host, precision_name
from .errors import InputError, ModelError
from .network import NetworkConfig, SlideSam, empty_network
from .protocol import ModelTraits, Window, WindowPrediction, WindowPrompt
from .sam_encoding import SamEmbedding, WindowEncoder
from .tensor_files import TensorFile

# A mask prompt is a logit in SAM. Probabilities are kept this far from 0 and 1: logits to +-9.2.
_MARGIN = 1e-4


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
        return self._encoder.encode(windows)

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
        height, width = embedding.shape
        with torch.inference_mode():
            points, box = self._marks(prompt, height, width)
            masks = self._masks(prompt)
            if points is None and box is None and masks is None:
                raise InputError("There is no prompt for this window: give a box or a point.")
            image = embedding.ready_tensor().to(self._device, torch.float32)[None]
            logits, quality = self._network.decode(image, points, box, masks)
            order = self._order(quality[0], clear=box is not None or len(prompt.points) != 1)
            # Antialiasing acts only where the slice is smaller than the network's output.
            full = F.interpolate(logits[0, order], (height, width), mode="bilinear", antialias=True)
            answers = on_host(full.float(), quality[0, order].clamp(0, 1).float())
        return WindowPrediction(answers[0], (0, 0), answers[1], (height, width))

    def remember(self, embedding: SamEmbedding, mask: np.ndarray) -> None:
        """Nothing is carried over: these networks know no memory."""
        return None

    def _marks(
        self, prompt: WindowPrompt, height: int, width: int
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """Points and box of a prompt in the S x S frame."""
        points = box = None
        if prompt.points:
            coordinates = points_to_frame(np.array(prompt.points), height, width, self._size)
            points = (self._tensor(coordinates)[None], self._tensor(prompt.labels)[None])
        if prompt.box is not None:
            box = self._tensor(box_to_frame(prompt.box, height, width, self._size))[None]
        return points, box

    def _masks(self, prompt: WindowPrompt) -> Tensor | None:
        """The mask prompt (1, 3, 4 grid, 4 grid) as logits; 0, undecided, on unknown slices."""
        if prompt.masks is None or not any(prompt.known):
            return None
        known = torch.tensor(prompt.known, device=self._device)
        side = self._network.config.raster
        return mask_logits(self._tensor(prompt.masks), known, side)[None]

    def _order(self, quality: Tensor, clear: bool) -> Tensor:
        """Tokens to answer with, best first, from the quality of the four tokens."""
        single = torch.zeros(1, dtype=torch.long, device=quality.device)
        if self._usage.answers == "single":
            return single
        candidates = 1 + torch.argsort(quality[1:], descending=True, stable=True)
        if self._usage.answers == "candidates":
            return candidates
        return torch.cat([single, candidates] if clear else [candidates, single])

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=self._device)


def points_to_frame(points: np.ndarray, height: int, width: int, size: int) -> np.ndarray:
    """Points (N, 2), (x, y) in voxels of the slice, in pixels of the S x S frame."""
    return (np.asarray(points, np.float64) + 0.5) * (size / width, size / height) - 0.5


def box_to_frame(
    box: tuple[float, float, float, float], height: int, width: int, size: int
) -> np.ndarray:
    """A box in voxels, corners inclusive, as first and last pixels in the S x S frame."""
    x0, y0, x1, y1 = box
    scale = np.array([size / width, size / height])
    first = np.array([x0, y0]) * scale
    last = (np.array([x1, y1]) + 1) * scale - 1
    return np.concatenate([first, np.maximum(last, first)])


def mask_logits(probability: Tensor, known: Tensor, side: int) -> Tensor:
    """Masks (3, H, W) in 0..1 as a mask prompt (3, side, side): logits, 0 on unknown slices."""
    small = F.interpolate(probability[None], (side, side), mode="bilinear", antialias=True)[0]
    return torch.logit(small, eps=_MARGIN) * known[:, None, None]


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
        No such file, device or precision.
    ModelError
        The file is no usable checkpoint, or does not fit the device's memory.
    """
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    checkpoint = load_checkpoint(source, kind)
    try:
        network = fill_network(checkpoint.config, checkpoint.tensors, where, dtype)
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(
            f"The memory of {where} is too small for '{checkpoint.path.name}': choose the device "
            "cpu or a smaller model."
        ) from error
    note = checkpoint.note
    return SamModel(
        network,
        checkpoint.kind,
        name or note.get("name", checkpoint.path.name),
        note.get("licence", licence),
        where,
        dtype,
        checkpoint.tuned,
    )


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
