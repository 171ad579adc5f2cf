"""Windows into the embeddings of a SAM network: preparation, batches, memory, streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..compute.cuda_graphs import Graphed
from ..compute.devices import free_memory, on_device
from ..compute.memory import out_of_memory
from ..compute.own_settings import own_settings
from ..errors import Cancelled, ModelError
from ..protocol import Window
from .cuda_encoder import quickest_encoder
from .network import SlideSam

# SAM's normalisation of the three channels, in grey values of 0..255
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

MOST_WINDOWS = 8  # on a GPU; more gain no speed, and take the memory of the embeddings
# Bytes that a GPU needs while it encodes, per token and channel of the encoder, as multiples of
# the number type: the widened queries, keys and values, the hidden layer, the tokens themselves.
_WORKING_SET = 32
_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, eq=False)
class SamEmbedding:
    """One encoded window.

    tensor : float16 (C, grid, grid) on the device of its model: more exact than bfloat16 for what
        a normalisation gives.
    shape : (H, W) of a slice.
    encoded : the CUDA event after which the tensor holds what it should, or None.
    """

    tensor: Tensor
    shape: tuple[int, int]
    encoded: Any = None

    @property
    def nbytes(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()

    def ready_tensor(self) -> Tensor:
        """The tensor, for use on the current CUDA stream; the host does not wait."""
        if self.encoded is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.encoded)
            self.tensor.record_stream(stream)  # not given away before that use is over
        return self.tensor


class WindowEncoder:
    """Encodes windows on one device.

    On a CPU one window at a time, since it gains nothing from more. On a CUDA GPU in batches, on a
    stream of its own, so that masks are decoded meanwhile.

    resize, scaling : see `prepare`.
    stream : the CUDA stream, or None elsewhere.
    """

    def __init__(
        self, network: SlideSam, resize: str, scaling: str, device: torch.device, name: str
    ) -> None:
        self._network = network
        self._resize, self._scaling = resize, scaling
        self._device = device
        self._name = name
        self._size = network.config.image_size
        cuda = device.type == "cuda"
        self._most = MOST_WINDOWS if cuda else 1
        self._encode = quickest_encoder(network)
        self._graphs = Graphed(self._embed, device) if cuda else None
        self.stream = torch.cuda.Stream(device) if cuda else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))  # the weights must be there

    def encode(self, windows: Sequence[Window]) -> list[SamEmbedding]:
        """Encode windows, in batches that fit into the memory.

        Raises ModelError where it does not suffice for one window.
        """
        done: list[SamEmbedding] = []
        while len(done) < len(windows):
            count = min(self._most, _alike(windows[len(done) :]))
            try:
                done += self._batch(windows[len(done) : len(done) + count])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if count > 1:
                    self._most = count // 2
                elif not self.give_up_graphs():
                    raise ModelError(
                        f"The memory of {self._device} is too small for {self._name}: choose the "
                        "device cpu or a smaller model."
                    ) from error
                torch.cuda.empty_cache()
        return done

    def encode_unless(self, window: Window, cancelled: Callable[[], bool]) -> SamEmbedding | None:
        """One window, or None: on a CPU `cancelled` is asked before each block of the encoder.

        A GPU takes some milliseconds, and graphs cannot ask. Raises as `encode`.
        """
        if self.stream is not None:
            return self.encode([window])[0]
        me = threading.get_ident()

        def ask(*_: Any) -> None:
            if threading.get_ident() == me and cancelled():
                raise Cancelled("Somebody waits for another window.")

        blocks = self._network.image_encoder.blocks
        hooks = [block.register_forward_pre_hook(ask) for block in blocks]
        try:
            return self.encode([window])[0]
        except Cancelled:
            return None
        finally:
            for hook in hooks:
                hook.remove()

    def give_up_graphs(self) -> bool:
        """Let go of CUDA graphs and of what they hold, for good; whether there were any."""
        return self._graphs is not None and self._graphs.give_up()

    def windows_at_once(self) -> int:
        """How many windows fit into half of the memory that is free now, at most MOST_WINDOWS."""
        free = None if self._most == 1 else free_memory(self._device)
        if free is None:
            return self._most
        return int(min(max(free // 2 // self._window_bytes(), 1), self._most))

    def _window_bytes(self) -> int:
        config = self._network.config
        width = self._network.image_encoder.blocks[0].mlp.lin1.weight.element_size()
        return config.grid**2 * config.embed_dim * _WORKING_SET * width

    def _batch(self, windows: Sequence[Window]) -> list[SamEmbedding]:
        beside = nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
        with own_settings(), beside:
            slices = on_device([window.slices for window in windows], self._device)
            (out,) = (self._graphs or self._embed)(None, slices)
            # One tensor each, so that a cache can free one window of a batch.
            tensors = [embedding.clone() for embedding in out] if len(out) > 1 else [out[0]]
            encoded = None if self.stream is None else self.stream.record_event()
        return [
            SamEmbedding(tensor, tuple(window.slices.shape[-2:]), encoded)
            for tensor, window in zip(tensors, windows, strict=True)
        ]

    def _embed(self, what: None, slices: Tensor) -> tuple[Tensor]:
        """Windows (B, 3, H, W) -> embeddings (B, C, grid, grid) in float16."""
        images = prepare(slices, self._size, self._resize, self._scaling)
        out = self._encode(images).clamp(-_LARGEST, _LARGEST)
        return (out.to(torch.float16),)


def _alike(windows: Sequence[Window]) -> int:
    """How many of the windows have slices of the size of the first one, before another comes."""
    same = (window.slices.shape == windows[0].slices.shape for window in windows)
    return next((n for n, alike in enumerate(same) if not alike), len(windows))


def prepare(slices: Tensor, size: int, resize: str, scaling: str) -> Tensor:
    """The network's input (B, 3, size, size) from the slices (B, 3, H, W) of windows, float32.

    resize : "nearest", as published, or "antialias". The aspect ratio is not kept.
    scaling : the minimum and maximum of the three resized slices together become 0..255 with
        SAM's mean and deviation ("sam"), or 0..1 ("unit"). A constant window becomes 0.
    """
    if resize == "nearest":
        windows = F.interpolate(slices, (size, size), mode="nearest")
    else:
        windows = F.interpolate(slices, (size, size), mode="bilinear", antialias=True)
    low, high = windows.amin((1, 2, 3), keepdim=True), windows.amax((1, 2, 3), keepdim=True)
    # Without a question that the host would have to answer: in a constant window all is `low`.
    unit = (windows - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    if scaling == "unit":
        return unit
    # 0-dimensional numbers stay on the host, and nothing is copied to a GPU.
    channels = [
        (channel * 255 - mean) / deviation
        for channel, mean, deviation in zip(unit.unbind(1), PIXEL_MEAN, PIXEL_STD, strict=True)
    ]
    return torch.stack(channels, 1)
