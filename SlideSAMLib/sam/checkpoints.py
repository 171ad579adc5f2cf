"""Checkpoints of every known kind, brought to the plain tensors of the three-slice network.

What a file holds is recognised from the names of its tensors, never from the name of the file:

- Slide-SAM, plain or with LoRA adapters inside (merged here);
- the original SAM, or MedSAM which has the same tensors (lifted to three slices here);
- adapters, small files with what fine-tuning changed in one of these (merged here);
- the built-in model of SlideSAM (another network; only recognised here).

Wrappers such as {"model": ...} and prefixes such as `module.` do not matter.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..catalogue import CATALOGUE
from ..errors import InputError, ModelError
from ..files.safetensors_files import save
from ..files.tensor_files import TensorFile, check_finite, is_builtin, read_tensor_file
from ..files.whole_files import replacing
from .adapters import base_path, is_adapter, merge_adapter
from .architecture import config_title, infer_config
from .lora import has_lora, merge_lora
from .network import SLICES, NetworkConfig, empty_network

FORMAT = "slidesam"  # `format` in the metadata of files that `convert` writes
KINDS = {"slide-sam": "Slide-SAM", "sam": "SAM", "medsam": "MedSAM"}

_PART = re.compile(r"^(?P<prefix>|.*?\.)(?:image_encoder|prompt_encoder|mask_decoder)\.")
_CONSTANTS = ("pixel_mean", "pixel_std")  # SAM's normalisation, saved by some versions
_MASK_KERNEL = "prompt_encoder.mask_downscaling.0.weight"
_UPSCALING = "mask_decoder.output_upscaling"
_NAMED = 3  # tensors of each sort that an error names


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Plain tensors that fit `SlideSam(config)` exactly.

    kind : "slide-sam", "sam" or "medsam": how the network wants to be used.
    lora_ranks : ranks of the adapters that were merged, innermost first.
    note : what the file says of a fine-tuned model: `tuned`, `name` and `licence`.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: NetworkConfig
    kind: str
    lora_ranks: tuple[int, ...] = ()
    note: Mapping[str, str] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        """Whether SlideSAM has fine-tuned it, on all prompts and all three slices."""
        return "tuned" in self.note

    @property
    def description(self) -> str:
        """For people: 'Slide-SAM ViT-B, LoRA of rank 8 merged'."""
        text = f"{KINDS[self.kind]} {config_title(self.config)}"
        if self.tuned:
            return f"{self.note.get('name', 'a fine-tuned model')}, made from {text}"
        if self.lora_ranks:
            text += f", LoRA of rank {' and '.join(map(str, self.lora_ranks))} merged"
        return text if self.kind == "slide-sam" else text + ", lifted to three slices"


def load_checkpoint(source: str | os.PathLike | TensorFile, kind: str | None = None) -> Checkpoint:
    """Read a Slide-SAM, SAM or MedSAM checkpoint of any layout.

    `kind` says what the tensors cannot show: SAM and MedSAM have the same ones. Without it the
    catalogue says so of its own files.

    Raises
    ------
    InputError
        There is no such file.
    ModelError
        The file cannot be read safely, is of no known kind, or does not fit: the message names
        the first tensors that differ.
    """
    return _load(source, kind, ())


def _load(
    source: str | os.PathLike | TensorFile, kind: str | None, adapters: tuple[Path, ...]
) -> Checkpoint:
    """See `load_checkpoint`; adapters : the files of those that it is the base of."""
    file = source if isinstance(source, TensorFile) else read_tensor_file(source)
    try:
        return _recognise(file, kind, adapters)
    except ModelError as error:
        raise ModelError(f"'{file.path.name}' cannot be used: {error}") from error


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    half: bool = False,
    kind: str | None = None,
) -> Checkpoint:
    """Write a checkpoint of any known layout as one plain safetensors file.

    Adapters are merged and SAM weights are lifted to three slices; `half` stores float16. The
    target appears complete or not at all.

    Raises
    ------
    InputError
        The source is missing, or the target is not a writable .safetensors path.
    ModelError
        The source is no usable checkpoint, or has values that float16 cannot hold.
    """
    target = Path(target)
    if target.suffix.lower() != ".safetensors":
        raise InputError(f"The converted model '{target}' must end in .safetensors.")
    place = target.resolve()  # a link stays, and what it leads to is replaced
    if not place.parent.is_dir():
        raise InputError(f"The folder '{place.parent}' does not exist: create it first.")
    checkpoint = load_checkpoint(source, kind)
    tensors = {name: _stored(name, t, half) for name, t in checkpoint.tensors.items()}
    metadata = {
        "format": FORMAT,
        "kind": checkpoint.kind,
        "decoder_heads": str(checkpoint.config.decoder_heads),
        "source": checkpoint.description,
        **checkpoint.note,
    }
    try:
        with replacing(place) as part:
            save(tensors, part, metadata)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"The converted model '{target}' cannot be written: {reason}.") from error
    return checkpoint


def lift(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the original SAM as those of a three-slice network.

    The three branches start as copies of SAM's one. The kernel of the mask prompt is repeated over
    the three channels and divided by three: a mask given for all slices then has the effect that
    it had in SAM.
    """
    lifted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        lifted[name] = tensor
        if name.startswith(f"{_UPSCALING}."):
            for branch in range(2, SLICES + 1):
                lifted[name.replace(_UPSCALING, f"{_UPSCALING}{branch}")] = tensor
        elif name == _MASK_KERNEL and tensor.ndim == 4 and tensor.shape[1] == 1:
            lifted[name] = tensor.repeat(1, SLICES, 1, 1) / SLICES
    return lifted


def _recognise(file: TensorFile, kind: str | None, adapters: tuple[Path, ...]) -> Checkpoint:
    if is_builtin(file):
        raise ModelError("it is the built-in model, which is no Slide-SAM or SAM checkpoint.")
    if {"network", "average"} <= {name.partition(".")[0] for name in file.tensors}:
        raise ModelError(
            "it is the state of a training, not a model: take weights.safetensors or "
            "best.safetensors, which lie beside it."
        )
    if is_adapter(file):
        changed = base_path(file)
        if any(changed.samefile(other) for other in adapters):
            raise ModelError(f"it changes '{changed.name}', which changes it in turn.")
        base = _load(changed, file.metadata.get("kind"), (*adapters, file.path))
        tensors, ranks = merge_adapter(base.tensors, file)
        fitting = _fitting(tensors, base.config)
        check_finite(fitting, file.path)
        merged = (*base.lora_ranks, *ranks)
        return Checkpoint(file.path, fitting, base.config, base.kind, merged, _note(file))
    tensors = _without_prefix(file.tensors)
    ranks: tuple[int, ...] = ()
    if has_lora(tensors):
        tensors, ranks = merge_lora(tensors)
    ours = file.metadata if file.metadata.get("format") == FORMAT else {}
    found = ours.get("kind", "slide-sam")
    if f"{_UPSCALING}2.0.weight" not in tensors and f"{_UPSCALING}3.0.weight" not in tensors:
        tensors, found = lift(tensors), "sam"
    kind = kind or _catalogue_kind(file.path) or found
    if kind not in KINDS:
        raise ModelError(f"its kind '{kind}' is unknown (known: {', '.join(KINDS)}).")
    heads = re.fullmatch("[0-9]{1,4}", ours.get("decoder_heads", ""))
    config = infer_config(tensors, int(heads[0]) if heads else None)
    note = _note(file) if ours else {}
    fitting = _fitting(tensors, config)
    check_finite(fitting, file.path)
    return Checkpoint(file.path, fitting, config, kind, ranks, note)


def _catalogue_kind(path: Path) -> str | None:
    """What the catalogue knows of a file that its tensors cannot show."""
    place = path.resolve()
    known = (info.kind for info in CATALOGUE.values() if info.path.resolve() == place)
    return next(known, None)


def _note(file: TensorFile) -> dict[str, str]:
    return {n: file.metadata[n] for n in ("tuned", "name", "licence") if n in file.metadata}


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network, freed of whatever stands before `image_encoder.` etc."""
    matches = (_PART.match(name) for name in tensors)
    prefixes = Counter(match["prefix"] for match in matches if match)
    if not prefixes:
        names = ", ".join(list(tensors)[:_NAMED])
        raise ModelError(f"it is no Slide-SAM or SAM checkpoint (its tensors begin with {names}).")
    prefix = prefixes.most_common(1)[0][0]
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return {n: t for n, t in own.items() if n not in _CONSTANTS}


def _fitting(tensors: dict[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """The tensors in the order of the network; ModelError names the first that differ."""
    try:
        expected = {n: tuple(t.shape) for n, t in empty_network(config).state_dict().items()}
    except (AssertionError, RuntimeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"its sizes make no network ({config}).") from error
    missing = [f"'{n}'" for n in expected if n not in tensors]
    unknown = [f"'{n}'" for n in tensors if n not in expected]
    differing = [
        f"'{n}' {tuple(tensors[n].shape)} instead of {shape}"
        for n, shape in expected.items()
        if n in tensors and tuple(tensors[n].shape) != shape
    ]
    problems = [
        _few(words, names)
        for words, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", differing),
        )
        if names
    ]
    if problems:
        title = config_title(config)
        raise ModelError(f"its tensors do not fit a {title}: {'; '.join(problems)}.")
    for name in expected:
        if not tensors[name].is_floating_point():
            raise ModelError(f"its tensor '{name}' holds {tensors[name].dtype}, not weights.")
    return {name: tensors[name] for name in expected}


def _few(words: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{words} {', '.join(names[:_NAMED])}{more}"


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    dtype = torch.float16 if half else torch.float32
    # A copy: lifted branches share memory, which safetensors does not store.
    stored = tensor.to(dtype, copy=True).contiguous()
    if half and not bool(torch.isfinite(stored).all()):
        raise ModelError(
            f"The tensor '{name}' has values that half precision cannot hold: convert without it."
        )
    return stored
