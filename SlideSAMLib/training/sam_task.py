"""What trains a three-slice SAM network: all of it, its decoder, or its decoder and LoRA."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..catalogue import CATALOGUE
from ..errors import InputError
from ..files.safetensors_files import write_safetensors
from ..files.whole_files import file_sha256
from ..sam.adapters import BASE, BASE_HASH, BASE_PLACE, SCALE
from ..sam.checkpoints import FORMAT, Checkpoint, load_checkpoint
from ..sam.model import USAGES
from ..sam.network import SlideSam, build_network
from .config import TrainConfig
from .generators import StateMismatch, generator_state, restored_generator
from .mixture import TRIES, check_data, nothing_to_cut, own_shelves
from .sam_losses import sam_figures, sam_loss
from .sam_rollouts import SamSlides
from .sam_windows import SMALLEST, Frame, SamSlab, Windows, WindowSample, cut_slab

ENCODER = "image_encoder."
ADAPTED = r".*image_encoder\..*\.attn\.qkv"  # where Slide-SAM has its adapters, too
LORA_ALPHA = 2  # times the rank: what is added is scaled by alpha / rank


class Answering(nn.Module):
    """The network asked for a batch of windows in one call, as data-parallel training wants it."""

    def __init__(self, network: SlideSam) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """logits (B, 4, 3, g, g) and quality (B, 4)."""
        samples = windows.samples
        images = torch.stack([sample.image for sample in samples])
        trained = any(p.requires_grad for p in self.network.image_encoder.parameters())
        with torch.set_grad_enabled(trained):
            embeddings = self.network.encode(images)
        answers = [self._decode(e[None], s) for e, s in zip(embeddings, samples, strict=True)]
        return torch.cat([a[0] for a in answers]), torch.cat([a[1] for a in answers])

    def _decode(self, embedding: Tensor, sample: WindowSample) -> tuple[Tensor, Tensor]:
        """The answer to one window (1, C, grid, grid) and its prompt."""
        points, box, masks = sample.points, sample.box, sample.masks
        encoder = self.network.prompt_encoder
        with torch.autocast(embedding.device.type, enabled=False):  # places stay exact
            prompt = encoder(
                points=None if points is None else (points[0][None], points[1][None]),
                boxes=None if box is None else box[None],
                masks=None if masks is None else masks[None],
            )
            position = encoder.get_dense_pe()
        return self.network.mask_decoder(embedding, position, *prompt)


class SamTask:
    """See `loop.Task`. The network comes from `start_from`, the windows from `datasets`."""

    figures = ("centre", "outer", "best_centre")
    betas = (0.9, 0.999)
    matrices = ()

    def __init__(self, config: TrainConfig) -> None:
        if not config.datasets:
            raise InputError("A SAM network learns from `datasets`: list at least one.")
        for name, wanted in (
            ("data_processes", config.data_processes > 0),
            ("slab_uses", config.slab_uses > 1),
            ("data", bool(config.data)),
            ("network", bool(config.network)),
        ):
            if wanted:
                raise InputError(f"{name} is for the built-in network: leave it out.")
        check_data(config)
        self._config = config
        self.data_seconds = 0.0
        self._base = Path(config.start_from)
        checkpoint = load_checkpoint(self._base)
        network = build_network(checkpoint.config)
        network.load_state_dict({n: t.float() for n, t in checkpoint.tensors.items()})
        choose_trained(network, config.trainable, config.lora_rank)
        self.network = Answering(network)
        usage = USAGES[checkpoint.kind]
        size, raster = checkpoint.config.image_size, checkpoint.config.raster
        self._frame = Frame(size, raster, usage.resize, usage.scaling)
        self._note = self._notes(checkpoint)

    def start(self, seed: int, state: dict | None = None) -> None:
        if state and "slides" not in state:
            raise StateMismatch("they were saved by an earlier SlideSAM")
        states = state["shelves"] if state else ()
        self._shelves = own_shelves(self._config, seed, states, SMALLEST)
        weights = np.array([shelf.weight for shelf in self._shelves])
        self._shares = weights / weights.sum()
        self._rng = restored_generator(state["rng"]) if state else np.random.default_rng(seed)
        if state:
            slides = SamSlides.restored(state["slides"], self._draw, self._again, self._frame)
        else:
            rng = np.random.default_rng(seed + 1)
            slides = SamSlides(self._config.batch, self._draw, self._frame, rng)
        self._slides = slides

    def _draw(self) -> SamSlab:
        """A slab of a random volume; volumes that give none are passed over."""
        for _ in range(TRIES):
            place = int(self._rng.choice(len(self._shelves), p=self._shares))
            volume = self._shelves[place].volume(self._rng)
            seed = int(self._rng.integers(1 << 62))
            slab = cut_slab(volume, np.random.default_rng(seed))
            if slab is not None:
                slab.recipe = (place, volume.key, seed)
                return slab
        raise nothing_to_cut(self._shelves[place].name)

    def _again(self, recipe: Sequence[int]) -> SamSlab:
        """A slab that was drawn before: place of its shelf, key of its volume, seed of its cut."""
        place, key, seed = recipe
        slab = cut_slab(self._shelves[place].find(key), np.random.default_rng(seed))
        if slab is None:
            raise StateMismatch(f"a volume of {self._shelves[place].name} has changed")
        slab.recipe = (place, key, seed)
        return slab

    def state(self) -> dict:
        shelves = [shelf.state() for shelf in self._shelves]
        slides = self._slides.state()
        return {"rng": generator_state(self._rng), "shelves": shelves, "slides": slides}

    def loss(self, network: Any) -> tuple[Tensor, dict[str, float]]:
        device = next(self.network.parameters()).device
        begun = time.perf_counter()
        drawn = self._slides.step()
        self.data_seconds += time.perf_counter() - begun
        samples = [sample.to(device) for sample in drawn]
        logits, quality = network(Windows(samples))
        target = torch.stack([sample.target for sample in samples])
        labelled = torch.stack([sample.labelled for sample in samples])
        loss = sam_loss(logits, quality, target, labelled)
        found = sam_figures(logits.detach(), target, labelled)
        said = logits.detach().float().cpu(), quality.detach().float().cpu()  # waits for them
        begun = time.perf_counter()
        self._slides.advance(drawn, *said)
        self.data_seconds += time.perf_counter() - begun
        return loss, found

    def write(self, learnt: dict[str, Tensor], path: Path, note: dict[str, str]) -> None:
        tensors = {plain_name(name): value for name, value in learnt.items()}
        if self._config.trainable == "all":
            tensors = {**self.network.network.state_dict(), **tensors}
        write_safetensors(tensors, path, {**self._note, **note})

    def _notes(self, checkpoint: Checkpoint) -> dict[str, str]:
        note = {"format": FORMAT, "kind": checkpoint.kind, "tuned": "1"}
        if self._config.trainable == "all":
            return {**note, "decoder_heads": str(checkpoint.config.decoder_heads)}
        names = [name for name, info in CATALOGUE.items() if info.path == self._base]
        note |= {BASE_HASH: file_sha256(self._base), SCALE: str(LORA_ALPHA)}
        if names:
            return {**note, BASE: names[0]}
        try:
            place = os.path.relpath(self._base, self._config.output)
        except ValueError:  # on another drive of Windows
            place = self._base.name
        return {**note, BASE: self._base.name, BASE_PLACE: Path(place).as_posix()}


def choose_trained(network: SlideSam, trainable: str, rank: int) -> None:
    """Let only what is to be trained require gradients; adds adapters for "lora".

    SAM's random positions are a buffer and stay as they are.
    """
    if trainable == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        chosen = LoraConfig(r=rank, lora_alpha=LORA_ALPHA * rank, target_modules=ADAPTED)
        inject_adapter_in_model(chosen, network)
    for name, parameter in network.named_parameters():
        adapter = ".lora_" in name
        parameter.requires_grad = trainable == "all" or adapter or not name.startswith(ENCODER)


def plain_name(name: str) -> str:
    """The name of a learnt parameter in an adapter file: without wrapper and PEFT's own name."""
    return name.removeprefix("network.").replace(".default.weight", ".weight")
