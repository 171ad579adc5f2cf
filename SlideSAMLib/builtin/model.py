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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..devices import choose_device, choose_precision, on_host, precision_name
from ..errors import InputError
from ..fusion import Patch, dice
from ..next_prompt import mask_box
from ..protocol import ModelTraits, Window, WindowPrediction, WindowPrompt
from . import features
from .features import MAX_POINTS, Batch
from .network import BuiltinNetwork
from .regions import GRID, Region, paste_region, region_around, region_at, sample_region
from .weights import read_model

FACTOR = 1.6  # side of the region over the longer side of the box
LEAST_FACTOR = 1.15
POINT_SIDES = (0.1, 0.18, 0.32, 0.56, 1.0)  # sides tried for points, as shares of the slice's side
AGREEMENT_WEIGHT = 0.25  # of an answer with itself, in the choice among the sizes
LIMIT = 12.0  # logits are clipped to +- this
MOST_PROMPTS = 8  # in one call; more gain nothing: 12 ms for one on two cores, 52 ms for eight

TRAITS = ModelTraits(
    name="builtin",
    licence="Apache-2.0",
    input_size=GRID,
    region="crop",
    resize="antialias",
    intensity="the volume's intensity window as 0..1, then percentiles of the region",
    prompts=frozenset({"box", "point", "negative", "mask"}),
    candidates=4,
    box_margin=0.0,
)


@dataclass(frozen=True)
class BuiltinSettings:
    """What can be changed about the model without training it anew.

    factor : side of the region over the longer side of the box, at least 1; inf: as wide as the
        slice.
    memory_share : share of the user's slice in the look of the object, 0..1.

    Raises InputError where a value is out of its range.
    """

    factor: float = FACTOR
    memory_share: float = features.MEMORY_SHARE

    def __post_init__(self) -> None:
        if not self.factor >= 1.0:
            raise InputError(f"The model's factor must be 1 or greater, not {self.factor!r}.")
        if not 0.0 <= self.memory_share <= 1.0:
            raise InputError(
                f"The model's memory_share must be between 0 and 1, not {self.memory_share!r}."
            )


@dataclass(frozen=True, eq=False)
class BuiltinEmbedding:
    """Three slices scaled to 0..1, float16 (3, H, W), and their spacing (row, column) in mm.

    first_boxes : point (x, y) -> box in voxels of the answer to this point alone, or None.
    """

    slices: torch.Tensor
    spacing: tuple[float, float]
    settings: BuiltinSettings = BuiltinSettings()
    first_boxes: dict[tuple[float, float], tuple | None] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.slices.nbytes


@dataclass(frozen=True, eq=False)
class Memory:
    """What is remembered of a slice with a trusted mask.

    histograms : (2, BINS) inside and around the object; slice : float16 (2, H, W), its image in
        0..1 and its mask.
    """

    histograms: torch.Tensor
    slice: torch.Tensor


class BuiltinModel:
    """The built-in model; see `protocol.SliceModel` for the methods."""

    def __init__(
        self,
        network: BuiltinNetwork,
        device: torch.device,
        dtype: torch.dtype,
        traits: ModelTraits = TRAITS,
        settings: BuiltinSettings = BuiltinSettings(),
    ) -> None:
        self.traits, self.settings = traits, settings
        self._device, self._dtype = device, dtype
        self._network = network.eval().to(device, memory_format=torch.channels_last)
        self.device, self.precision = str(device), precision_name(dtype)

    def with_settings(self, settings: BuiltinSettings) -> BuiltinModel:
        """The same model with other settings; the network is shared."""
        return BuiltinModel(self._network, self._device, self._dtype, self.traits, settings)

    def encode(self, windows: Sequence[Window]) -> list[BuiltinEmbedding]:
        """Scale the windows' slices; there is nothing to compute ahead."""
        out = []
        for window in windows:
            low, high = window.intensity
            scaled = (window.slices - low) / max(high - low, 1e-6)
            slices = torch.from_numpy(scaled.astype(np.float16)).to(self._device)
            out.append(BuiltinEmbedding(slices, tuple(window.spacing[1:]), self.settings))
        return out

    def predict(self, embedding: BuiltinEmbedding, prompt: WindowPrompt) -> WindowPrediction:
        """Four candidates on the region of the prompt; candidate 0 is the best answer."""
        return self.predict_many([embedding], [prompt])[0]

    def prompts_at_once(self) -> int:
        """How many windows to predict in one call, see `protocol.prompts_at_once`."""
        return MOST_PROMPTS

    @torch.inference_mode()
    def predict_many(
        self, embeddings: Sequence[BuiltinEmbedding], prompts: Sequence[WindowPrompt]
    ) -> list[WindowPrediction]:
        """`predict` for several windows; those with a box or a mask are one batch."""
        requests = [
            # The network was trained to slide one way only: what is known lies before.
            _Request(embedding, prompt, prompt.known[2] and not prompt.known[0])
            for embedding, prompt in zip(embeddings, prompts, strict=True)
        ]
        placed = [request for request in requests if request.is_placed]
        found: dict[_Request, tuple[_Answer, int]] = {}
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
        return [
            WindowPrediction(logits, corner, quality, request.shape, presence)
            for request, corner, logits, quality, presence in zip(
                requests, corners, values[::3], values[1::3], values[2::3], strict=True
            )
        ]

    @torch.inference_mode()
    def remember(self, embedding: BuiltinEmbedding, mask: np.ndarray) -> Memory | None:
        """The look of the object on the centre slice, and the slice itself with its mask."""
        if not mask.any():
            return None
        region = region_around(mask_box(mask), embedding.spacing, FACTOR)
        inside = torch.from_numpy(mask).to(embedding.slices)
        both = torch.stack([embedding.slices[1], inside])
        image, seen = sample_region(both, region)
        return Memory(features.mask_histograms(image[None, None], seen[None, None])[0], both)

    def _ask(self, asked: list[tuple[_Request, Region]]) -> _Answer:
        """One batch: each request seen through its region."""
        batch = Batch.empty(len(asked), self._device)
        for n, (request, region) in enumerate(asked):
            request.fill(batch, n, region)
        inputs = features.assemble(batch, self.settings.memory_share).contiguous(
            memory_format=torch.channels_last
        )
        half = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=half):
            logits, fine, quality, presence = self._network(inputs)
        logits = torch.stack([F.interpolate(c, fine.shape[-2:], mode="bilinear") for c in logits])
        logits[:, 0] = fine
        regions = [region for _, region in asked]
        agreement = torch.zeros(len(regions), device=self._device)
        return _Answer(regions, logits, quality.sigmoid(), presence.sigmoid(), agreement)

    def _ask_points(self, request: _Request) -> _Answer:
        """Answers where there are points only, see the top of the file."""
        box = self._first_box(request) if len(request.prompt.points) > 1 else None
        if box is not None:
            region = request.with_box(box).region()  # holds the positive points, too
            if 0 not in request.prompt.labels:
                request = request.with_box(request.grown(box))
            return self._ask([(request, region)])
        answer = self._ask_sizes(request)
        if len(request.prompt.points) == 1:
            request.remember_box(answer)
        return answer

    def _first_box(self, request: _Request) -> tuple | None:
        """The box of the answer to the first positive point alone; None where that is empty."""
        alone = request.alone()
        boxes = request.embedding.first_boxes
        if alone.prompt.points[0] not in boxes:
            alone.remember_box(self._ask_sizes(alone))
        return boxes[alone.prompt.points[0]]

    def _ask_sizes(self, request: _Request) -> _Answer:
        """Answers on regions of several sizes, each asked again on a region of its own size.

        Only the second answers can be compared: each sees its object as large as the others do.
        """
        regions = request.point_regions()
        answer = self._ask([(request, region) for region in regions])
        closer, before = [], []
        for n, region in enumerate(regions):
            patch = request.patch(answer.logits[n, 0, 1], region)
            box = request.box_of(patch)
            if box is not None:
                boxed = request.with_box(box)
                closer.append((boxed, boxed.region()))
                before.append(patch)
        if not closer:
            return answer
        final = self._ask(closer)
        for n, patch in enumerate(before):
            again = request.patch(final.logits[n, 0, 1], final.regions[n])
            final.agreement[n] = dice(patch, again)
        return final


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the network said about each region: logits (N, 4, 3, g, g) and ratings.

    agreement : (N,), Dice of candidate 0 with the answer that its region was made from, or 0.
    """

    regions: list[Region]
    logits: torch.Tensor
    quality: torch.Tensor
    presence: torch.Tensor
    agreement: torch.Tensor

    def ratings(self) -> torch.Tensor:
        """How good candidate 0 is on the centre slice, (N,).

        Stability, area(p > 0.7) / area(p > 0.3), plus predicted quality, plus a share of the
        agreement: an answer that changes once it is seen on a region of its own size was none.
        """
        p = self.logits[:, 0, 1].sigmoid()
        loose = (p > 0.3).float().sum((1, 2)).clamp(min=1)
        stability = (p > 0.7).float().sum((1, 2)) / loose
        return stability + self.quality[:, 0] + AGREEMENT_WEIGHT * self.agreement


class _Request:
    """A window's prompt in terms of regions; `turned` reverses the order of the slices."""

    def __init__(
        self, embedding: BuiltinEmbedding, prompt: WindowPrompt, turned: bool, box=None
    ) -> None:
        self.embedding, self.prompt, self.turned = embedding, prompt, turned
        self.box = prompt.box if box is None else box
        self.slices = embedding.slices.flip(0) if turned else embedding.slices
        self.shape = tuple(embedding.slices.shape[1:])
        self.masks, self.known = prompt.masks, prompt.known
        if turned and self.masks is not None:
            self.masks, self.known = self.masks[::-1].copy(), self.known[::-1]

    @property
    def is_placed(self) -> bool:
        """Whether a box or a mask says where to look."""
        return self.prompt.box is not None or any(self.prompt.known)

    def on_slice(
        self, answer: _Answer, pick: int
    ) -> tuple[tuple[int, int], torch.Tensor, torch.Tensor, torch.Tensor]:
        """Corner, logits, quality and presence for the slice, out of one place of an answer."""
        logits, presence = answer.logits[pick].clamp(-LIMIT, LIMIT), answer.presence[pick]
        if self.turned:
            logits, presence = logits.flip(1), presence.flip(0)
        pasted, corner = paste_region(logits, answer.regions[pick], self.shape)
        return corner, pasted.float(), answer.quality[pick].float(), presence.float()

    def with_box(self, box: tuple[float, float, float, float]) -> _Request:
        """The same request with a box."""
        return _Request(self.embedding, self.prompt, self.turned, box)

    def alone(self) -> _Request:
        """The same request with its first positive point only."""
        point = self._positive()[0]
        prompt = replace(self.prompt, points=(point,), labels=(1,))
        return _Request(self.embedding, prompt, self.turned)

    def remember_box(self, answer: _Answer) -> None:
        """Keep the box of the best answer to this one point."""
        best = int(answer.ratings().argmax())
        box = self.box_of(self.patch(answer.logits[best, 0, 1], answer.regions[best]))
        self.embedding.first_boxes[self.prompt.points[0]] = box

    def grown(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """The smallest box around a box and the positive points."""
        points = np.array(self._positive() or [box[:2]])
        low, high = points.min(0), points.max(0)
        return (
            min(box[0], low[0]),
            min(box[1], low[1]),
            max(box[2], high[0]),
            max(box[3], high[1]),
        )

    def region(self) -> Region:
        """The region around the box, or around the known mask of the centre."""
        box = self.box
        if box is None:
            inside = self.masks[1] > 0.5 if self.known[1] else self.masks.max(0) > 0.5
            box = mask_box(inside) if inside.any() else (0, 0, self.shape[1] - 1, self.shape[0] - 1)
        around = self.grown(box)  # points outside their box still count
        return region_around(around, self.embedding.spacing, self._factor(around))

    def _factor(self, box: tuple[float, float, float, float]) -> float:
        """The factor, or less where the box nearly fills the slice: there is nothing beyond it."""
        row, column = self.embedding.spacing
        side = max((box[2] - box[0] + 1) * column, (box[3] - box[1] + 1) * row)
        whole = max(self.shape[0] * row, self.shape[1] * column)
        return min(self.embedding.settings.factor, max(LEAST_FACTOR, 1.1 * whole / side))

    def point_regions(self) -> list[Region]:
        """Regions of several sizes about the positive points."""
        row, column = self.embedding.spacing
        points = np.array(self._positive())
        x, y = (points.min(0) + points.max(0)) / 2
        spread = float((np.ptp(points, axis=0) * [column, row]).max())
        whole = max(self.shape[0] * row, self.shape[1] * column)
        least = max(1.5 * spread, 16 * min(row, column))
        sides = sorted({max(share * whole, least) for share in POINT_SIDES})
        return [region_at(x, y, side, (row, column)) for side in sides]

    def patch(self, logits: torch.Tensor, region: Region) -> Patch:
        """Logits (g, g) on a region as a patch of the slice."""
        pasted, corner = paste_region(logits, region, self.shape)
        return Patch(corner, pasted.float().cpu().numpy())

    @staticmethod
    def box_of(patch: Patch) -> tuple | None:
        """The bounding box in voxels of the mask on a patch; None where it is empty."""
        if patch.voxels < 3:
            return None
        row, column = patch.corner
        x0, y0, x1, y1 = mask_box(patch.inside)
        return (x0 + column, y0 + row, x1 + column, y1 + row)

    def fill(self, batch: Batch, n: int, region: Region) -> None:
        """Write this request, seen through a region, into place n of a batch."""
        device = batch.image.device
        batch.image[n] = sample_region(self.slices, region)
        if self.masks is not None and any(self.known):
            masks = torch.from_numpy(np.ascontiguousarray(self.masks)).to(device)
            batch.masks[n] = sample_region(masks, region)
            batch.known[n] = torch.tensor(self.known, dtype=torch.float32)
        if self.box is not None:
            batch.box[n] = torch.tensor(region.box_to_grid(self.box))
            batch.has_box[n] = 1
        pairs = list(zip(self.prompt.points, self.prompt.labels, strict=True))
        pairs.sort(key=lambda pair: -pair[1])  # positive ones first: they matter more
        for m, ((x, y), label) in enumerate(pairs[:MAX_POINTS]):
            batch.points[n, m] = torch.tensor(region.to_grid(x, y))
            batch.signs[n, m] = label
        if self.prompt.memory is not None:
            memory = self.prompt.memory
            batch.memory[n], batch.has_memory[n] = memory.histograms, 1
            batch.reference[n] = sample_region(memory.slice, region)
            batch.nearness[n] = features.nearness(self.prompt.distance)

    def _positive(self) -> list[tuple[float, float]]:
        pairs = zip(self.prompt.points, self.prompt.labels, strict=True)
        return [point for point, label in pairs if label == 1]


def load_builtin(
    path: str | os.PathLike, device: str = "auto", precision: str = "auto"
) -> BuiltinModel:
    """Load the built-in model from a file.

    Precision 'auto' is float32 on CPUs: at one small window a time, half precision gains nothing
    there. On CUDA it is float16, which no CUDA GPU lacks: the masks agree with those of float32 to
    a Dice of 0.9999, those of bfloat16 to 0.993 only (`slidesam benchmark --models builtin --parts
    agreement --precisions float16 bfloat16 --limit 3 --data MANIFEST`). Raises InputError for a
    device or precision that is not there, ModelError for a file that cannot be used.
    """
    where = choose_device(device)
    if precision == "auto":
        precision = "float16" if where.type == "cuda" else "float32"
    dtype = choose_precision(precision, where)
    network, notes = read_model(Path(path))
    own = {key: notes[key] for key in ("name", "licence") if key in notes}  # fine-tuned models
    return BuiltinModel(network, where, dtype, replace(TRAITS, **own))
