"""Checkpoints of every layout become the plain tensors of the network."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.files.tensor_files import TensorFile, is_builtin, read_tensor_file
from SlideSAMLib.models import load_model
from SlideSAMLib.sam.checkpoints import convert, lift, load_checkpoint
from SlideSAMLib.sam.modeling import load_modeling
from SlideSAMLib.sam.network import CONFIGS, empty_network
from Testing.reference import MINI, named_weights, tensor_shapes

sam = load_modeling()


def _meta(layout: str) -> TensorFile:
    """A layout of the reference as a file without memory."""
    shapes = tensor_shapes(layout)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return TensorFile(Path(f"{layout}.pth"), tensors, {})


def _unlifted(shapes: dict) -> dict:
    """Names and shapes of the original SAM from those of Slide-SAM."""
    branches = ("output_upscaling2", "output_upscaling3")
    sam_shapes = {n: s for n, s in shapes.items() if not any(b in n for b in branches)}
    sam_shapes["prompt_encoder.mask_downscaling.0.weight"] = (4, 1, 2, 2)
    return sam_shapes


@pytest.fixture(scope="module")
def mini():
    return named_weights(tensor_shapes("mini"))


def _same(found: dict, expected: dict) -> bool:
    return list(found) == list(expected) and all(
        torch.equal(found[name].float(), expected[name].float()) for name in expected
    )


@pytest.mark.parametrize(
    ("layout", "config", "ranks"),
    [
        ("vit_b", "vit_b", ()),
        ("vit_l", "vit_l", ()),
        ("vit_h", "vit_h", ()),
        ("vit_b+lora8", "vit_b", (8,)),
        ("vit_b+lora8+lora1", "vit_b", (8, 1)),
    ],
)
def test_published_layouts(layout, config, ranks):
    checkpoint = load_checkpoint(_meta(layout))
    assert checkpoint.config == CONFIGS[config]
    assert checkpoint.lora_ranks == ranks
    assert checkpoint.kind == "slide-sam"
    assert {n: tuple(t.shape) for n, t in checkpoint.tensors.items()} == tensor_shapes(config)
    empty_network(checkpoint.config).load_state_dict(checkpoint.tensors, assign=True)


@pytest.mark.parametrize("config", ["vit_b", "vit_l", "vit_h"])
def test_original_sam_layouts(config):
    shapes = _unlifted(tensor_shapes(config))
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    checkpoint = load_checkpoint(TensorFile(Path("sam.pth"), tensors, {}))
    assert (checkpoint.kind, checkpoint.config) == ("sam", CONFIGS[config])
    assert {n: tuple(t.shape) for n, t in checkpoint.tensors.items()} == tensor_shapes(config)
    letter = config[-1].upper()
    assert checkpoint.description == f"SAM ViT-{letter}, lifted to three slices"


def test_lora_by_hand():
    """One projection, wrapped twice: query and value thirds change, the key third does not."""
    torch.manual_seed(1)
    shapes = tensor_shapes("mini_lora")
    tensors = named_weights(shapes)
    layer = "image_encoder.blocks.2.attn.qkv"
    parts = {n.removeprefix(layer + "."): t for n, t in tensors.items() if n.startswith(layer)}
    x = torch.randn(7, 64)
    expected = x @ parts["qkv.qkv.weight"].T + parts["qkv.qkv.bias"]
    for wrap in ("qkv.", ""):
        down_q, up_q, down_v, up_v = (
            parts[f"{wrap}linear_{part}.weight"] for part in ("a_q", "b_q", "a_v", "b_v")
        )
        expected[:, :64] += x @ down_q.T @ up_q.T
        expected[:, 128:] += x @ down_v.T @ up_v.T
    merged = load_checkpoint(TensorFile(Path("mini.pth"), tensors, {})).tensors
    result = x @ merged[f"{layer}.weight"].T + merged[f"{layer}.bias"]
    assert torch.allclose(result, expected, rtol=1e-4, atol=1e-5)


WRAPPINGS = {
    "plain": lambda t: t,
    "module": lambda t: {f"module.{n}": v for n, v in t.items()},
    "model": lambda t: {"epoch": 3, "model": t, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
    "state_dict": lambda t: {"state_dict": {f"net.module.{n}": v for n, v in t.items()}},
    "nested": lambda t: {"a": {"b": {"weights": t}}, "args": ["x", 1.5]},
    "constants": lambda t: t | {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1)},
    "reversed": lambda t: dict(reversed(t.items())),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappers_and_prefixes(tmp_path, mini, wrapping):
    path = tmp_path / "any-name.bin"
    torch.save(WRAPPINGS[wrapping](mini), path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == MINI
    assert _same(checkpoint.tensors, mini)


def test_legacy_pth(tmp_path, mini):
    path = tmp_path / "legacy.pth"
    torch.save(mini, path, _use_new_zipfile_serialization=False)
    assert _same(load_checkpoint(path).tensors, mini)


def test_safetensors_under_another_name(tmp_path, mini):
    path = tmp_path / "weights.pth"
    save_file(mini, path)
    assert _same(load_checkpoint(path).tensors, mini)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_under_another_name(tmp_path, mini, zipped):
    path = tmp_path / "weights.safetensors"
    torch.save(mini, path, _use_new_zipfile_serialization=zipped)
    assert _same(load_checkpoint(path).tensors, mini)


def test_two_models_in_one_file(tmp_path, mini):
    """Of a model and its moving average, the first is taken."""
    path = tmp_path / "both.pth"
    torch.save({"model": mini, "ema": {n: t + 1 for n, t in mini.items()}}, path)
    assert _same(load_checkpoint(path).tensors, mini)


def test_convert_merges_and_keeps_what_shapes_do_not_show(tmp_path):
    source, target = tmp_path / "lora.pth", tmp_path / "plain.safetensors"
    torch.save({"model": named_weights(tensor_shapes("mini_lora"))}, source)
    written = convert(source, target)
    assert sorted(os.listdir(tmp_path)) == ["lora.pth", "plain.safetensors"]
    again = load_checkpoint(target)
    assert (again.config, again.kind, again.lora_ranks) == (MINI, "slide-sam", ())
    assert _same(again.tensors, written.tensors)
    assert not any("linear_a" in name for name in load_file(target))


def test_convert_half_and_lifted(tmp_path):
    source, target = tmp_path / "sam.pth", tmp_path / "half.safetensors"
    torch.save(named_weights(_unlifted(tensor_shapes("mini"))), source)
    convert(source, target, half=True, kind="medsam")
    again = load_checkpoint(target)
    assert again.kind == "medsam"
    assert {t.dtype for t in again.tensors.values()} == {torch.float16}
    full = load_checkpoint(source)
    name = "mask_decoder.output_upscaling3.0.weight"
    assert torch.allclose(again.tensors[name].float(), full.tensors[name], atol=1e-3)


def test_the_catalogues_own_file_is_known_by_its_path_too(tmp_path, monkeypatch):
    """As the measurement before fine-tuning loads it: MedSAM is no SAM."""
    monkeypatch.setenv("SLIDESAM_MODELS", str(tmp_path))
    path = tmp_path / "medsam_vit_b.pth"
    torch.save(named_weights(_unlifted(tensor_shapes("mini"))), path)
    assert load_checkpoint(path).kind == "medsam"
    assert load_checkpoint(path, "sam").kind == "sam"
    by_path, by_name = (load_model(name, "cpu", "float32") for name in (path, "medsam-vit-b"))
    for trait in ("intensity", "candidates", "prompts"):
        assert getattr(by_path.traits, trait) == getattr(by_name.traits, trait)


def test_convert_in_place(tmp_path, mini):
    path = tmp_path / "same.safetensors"
    save_file({f"module.{n}": t for n, t in mini.items()}, path)
    convert(path, path)
    assert set(load_file(path)) == set(mini)


def test_convert_to_a_link(tmp_path, mini):
    """The link stays, as it does for other outputs: models are linked to from several folders."""
    source, link, model = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.safetensors"))
    torch.save(mini, source)
    link.symlink_to(model.name)
    for _ in range(2):  # the link leads nowhere, then to a file
        convert(source, link)
        assert link.is_symlink()
        assert set(load_file(model)) == set(mini)


def test_convert_twice_makes_the_same_file(tmp_path, mini):
    source = tmp_path / "mini.pth"
    torch.save(mini, source)
    targets = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for target in targets:
        convert(source, target)
    assert len({target.read_bytes() for target in targets}) == 1


def test_convert_refusals_write_nothing(tmp_path, mini):
    source = tmp_path / "mini.pth"
    torch.save(mini, source)
    big = dict(mini)
    big["image_encoder.neck.0.weight"] = mini["image_encoder.neck.0.weight"] + 1e6
    torch.save(big, tmp_path / "big.pth")
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        convert(source, tmp_path / "out.pth")
    with pytest.raises(InputError, match="does not exist"):
        convert(source, tmp_path / "nowhere" / "out.safetensors")
    with pytest.raises(ModelError, match="half precision cannot hold"):
        convert(tmp_path / "big.pth", tmp_path / "out.safetensors", half=True)
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        convert(source, tmp_path / "taken.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["big.pth", "mini.pth", "taken.safetensors"]


def _original_sam():
    """segment_anything's own Sam at the size of mini, with its own attention and decoder."""
    from functools import partial

    network = sam.Sam(
        image_encoder=sam.ImageEncoderViT(
            img_size=128,
            embed_dim=64,
            depth=4,
            num_heads=4,
            out_chans=64,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=5,
            global_attn_indexes=(1, 3),
        ),
        prompt_encoder=sam.PromptEncoder(64, (8, 8), (128, 128), 16),
        mask_decoder=sam.MaskDecoder(
            transformer_dim=64,
            transformer=sam.TwoWayTransformer(2, 64, 4, 128),
            iou_head_hidden_dim=64,
        ),
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("prompt", ["point", "box", "mask", "all"])
def test_lifted_network_equals_sam(prompt):
    """One slice three times, and its mask prompt three times: each branch answers as SAM does."""
    original = _original_sam()
    file = TensorFile(Path("sam.pth"), dict(original.state_dict()), {})
    checkpoint = load_checkpoint(file)
    assert checkpoint.config == MINI
    lifted = empty_network(checkpoint.config)
    lifted.load_state_dict(checkpoint.tensors, assign=True)

    image = torch.randn(1, 1, 128, 128).expand(-1, 3, -1, -1)
    points = (torch.tensor([[[40.0, 60], [90, 20]]]), torch.tensor([[1.0, 0]]))
    box, mask = torch.tensor([[20.0, 30, 90, 100]]), torch.randn(1, 1, 32, 32) * 5
    points = points if prompt in ("point", "all") else None
    box = box if prompt in ("box", "all") else None
    mask = mask if prompt in ("mask", "all") else None

    embedding = original.image_encoder(image)
    assert torch.allclose(lifted.encode(image), embedding, atol=1e-5)
    sparse, dense = original.prompt_encoder(points, box, mask)
    position = original.prompt_encoder.get_dense_pe()
    expected, quality = original.mask_decoder.predict_masks(embedding, position, sparse, dense)

    three = None if mask is None else mask.expand(-1, 3, -1, -1)
    logits, found = lifted.decode(embedding, points, box, three)
    for index in range(3):
        error = (logits[:, :, index] - expected).norm() / expected.norm()
        assert error < 1e-5, (index, error)
    assert torch.allclose(found, quality, atol=1e-5)


def test_lift_changes_nothing_it_was_given():
    tensors = named_weights(_unlifted(tensor_shapes("mini")))
    before = {n: t.clone() for n, t in tensors.items()}
    lift(tensors)
    assert _same(tensors, before)


def test_builtin_is_recognised_and_is_no_checkpoint(tmp_path):
    for index, (tensors, metadata) in enumerate(
        [({"builtin.a": torch.zeros(2)}, None), ({"a": torch.zeros(2)}, "slidesam-builtin")]
    ):
        path = tmp_path / f"{index}.safetensors"
        save_file(tensors, path, metadata=metadata and {"format": metadata})
        assert is_builtin(read_tensor_file(path))
        with pytest.raises(ModelError, match="built-in model"):
            load_checkpoint(path)
