"""A file that is no usable checkpoint is refused with one clear sentence, and never executed."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.sam import checkpoints
from SlideSAMLib.sam.checkpoints import load_checkpoint
from Testing.reference import named_weights, tensor_shapes


@pytest.fixture(scope="module")
def mini():
    return named_weights(tensor_shapes("mini"))


def _one_sentence(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 400, message
    return message


def _refused(path) -> str:
    with pytest.raises(ModelError) as error:
        load_checkpoint(path)
    return _one_sentence(error)


class _Harmful:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickle_is_not_executed(tmp_path, mini, zipped):
    harm, path = tmp_path / "harm", tmp_path / "evil.pth"
    content = mini | {"extra": _Harmful(harm)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "could run code" in _refused(path)
    assert not harm.exists()


def test_plain_malicious_pickle(tmp_path):
    harm, path = tmp_path / "harm", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(_Harmful(harm)))
    _refused(path)
    assert not harm.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.999])
def test_truncated(tmp_path, mini, kind, part):
    path = tmp_path / "whole"
    if kind == "safetensors":
        save_file(mini, path)
    else:
        torch.save(mini, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(content[: max(20, int(len(content) * part))])
    assert "damaged, incomplete" in _refused(cut)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"just some text, no model at all", "neither a PyTorch nor a safetensors"),
        (b"\x1f\x8b\x08\x00" + bytes(100), "neither a PyTorch nor a safetensors"),
        (b"PK\x03\x04" + bytes(100), "damaged, incomplete"),
        (b"\x80\x04", "damaged, incomplete"),
        (b"\xff" * 8 + b'{"a": 1}', "damaged, incomplete"),
    ],
)
def test_not_a_model_file(tmp_path, content, words):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    assert words in _refused(path)


@pytest.mark.parametrize(
    ("scale", "down", "words"),
    [
        ("twice", torch.zeros(4, 64), "lora_scale is no number: 'twice'"),
        ("1", torch.zeros(4), "does not fit (192, 64)"),
        ("1", torch.zeros(()), "does not fit (192, 64)"),
        ("1", torch.zeros(3, 64), "does not fit (192, 64)"),
    ],
)
def test_a_damaged_adapter(tmp_path, mini, scale, down, words):
    torch.save(mini, tmp_path / "mini.pth")
    layer, path = "image_encoder.blocks.0.attn.qkv", tmp_path / "adapter.safetensors"
    parts = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": torch.zeros(192, 4)}
    note = {"format": "slidesam", "adapter_of": "mini.pth", "lora_scale": scale}
    save_file(parts, path, metadata=note)
    assert words in _refused(path)


def test_a_pickle_without_tensors(tmp_path):
    path = tmp_path / "list.pth"
    torch.save({"names": ["a", "b"], "value": 3}, path)
    assert "holds no tensors" in _refused(path)


def test_another_network(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(4)}, path)
    message = _refused(path)
    assert "no Slide-SAM or SAM checkpoint" in message and "conv1.weight" in message


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no model file"):
        load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="not a file"):
        load_checkpoint(tmp_path)


NECK, UP = "image_encoder.neck.2.weight", "mask_decoder.output_upscaling2.1.bias"
FIRST = "image_encoder.patch_embed.proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(UP), ["missing", UP]),
        (lambda t: t.pop(FIRST), ["lacks the tensor", FIRST]),
        (lambda t: t.update({"mask_decoder.extra": torch.zeros(1)}), ["unknown", "extra"]),
        (
            lambda t: t.update({NECK: torch.zeros(64, 64, 5, 5)}),
            ["another shape", NECK, "(64, 64, 5, 5) instead of (64, 64, 3, 3)"],
        ),
        (lambda t: t.update({FIRST: torch.zeros(64)}), [FIRST, "(64,)"]),
        (lambda t: t.update({UP: torch.zeros(16, dtype=torch.int64)}), [UP, "not weights"]),
        (
            lambda t: t.update({"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(9, 7)}),
            ["unknown structure"],
        ),
        (
            lambda t: t.update({"mask_decoder.mask_tokens.weight": torch.zeros(6, 64)}),
            ["mask_tokens", "(6, 64) instead of (4, 64)"],
        ),
    ],
)
def test_wrong_tensors_are_named(tmp_path, mini, change, words):
    tensors = dict(mini)
    change(tensors)
    path = tmp_path / "wrong.pth"
    torch.save(tensors, path)
    message = _refused(path)
    assert "wrong.pth" in message
    for word in words:
        assert word in message


def test_many_differences_are_counted(tmp_path, mini):
    tensors = {n: t for n, t in mini.items() if "iou_prediction_head.layers.1" not in n}
    tensors = {n: t for n, t in tensors.items() if ".hypernetworks" not in n and "mlps.3" not in n}
    path = tmp_path / "wrong.pth"
    torch.save(tensors, path)
    assert "and 5 more" in _refused(path)


@pytest.mark.parametrize("damage", ["incomplete", "shape"])
def test_broken_adapters(tmp_path, damage):
    tensors = named_weights(tensor_shapes("mini_lora"))
    name = "image_encoder.blocks.1.attn.qkv.qkv.linear_b_v.weight"
    if damage == "incomplete":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(64, 5)
    path = tmp_path / "lora.pth"
    torch.save(tensors, path)
    message = _refused(path)
    assert ("lacks the tensor" if damage == "incomplete" else "does not fit") in message


def test_unknown_kind(tmp_path, mini):
    path = tmp_path / "mini.pth"
    torch.save(mini, path)
    with pytest.raises(ModelError, match="its kind 'other' is unknown"):
        load_checkpoint(path, kind="other")


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("prompt_encoder.mask_downscaling.3.weight", (40_000, 1, 1, 1), "unknown structure"),
        ("mask_decoder.transformer.layers.0.mlp.lin1.weight", (90_000, 1), "unknown structure"),
        ("mask_decoder.iou_prediction_head.layers.0.weight", (90_000, 1), "unknown structure"),
        ("mask_decoder.transformer.layers.9999.x", (1,), "no more than 16 layers"),
        ("mask_decoder.iou_prediction_head.layers.9999.x", (1,), "no more than 16 layers"),
    ],
)
def test_sizes_that_a_file_does_not_carry_are_not_made(
    tmp_path, mini, monkeypatch, name, shape, words
):
    """A small broken file must not take gigabytes before it is refused."""
    monkeypatch.setattr(checkpoints, "empty_network", lambda config: pytest.fail("was made"))
    save_file(mini | {name: torch.zeros(shape)}, tmp_path / "broken.safetensors")
    assert words in _refused(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    "stored",
    [
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to("meta"),  # without its values
        lambda weight: weight.to(torch.float8_e4m3fn),
        lambda weight: torch.zeros(1).expand(weight.shape),  # one number for all
    ],
)
def test_weights_that_are_not_stored_number_by_number(tmp_path, mini, stored):
    name = "image_encoder.blocks.0.mlp.lin1.weight"
    torch.save(mini | {name: stored(mini[name])}, tmp_path / "model.pth")
    assert f"its tensor '{name}' is not stored number by number" in _refused(tmp_path / "model.pth")


@pytest.mark.parametrize("heads", ["\N{SUPERSCRIPT TWO}", "9" * 5000])
def test_a_note_that_is_no_number_of_heads_is_as_none(tmp_path, mini, heads):
    save_file(mini, tmp_path / "a.safetensors", {"format": checkpoints.FORMAT})
    save_file(
        mini, tmp_path / "b.safetensors", {"format": checkpoints.FORMAT, "decoder_heads": heads}
    )
    plain, odd = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in "ab")
    assert odd.config == plain.config


@pytest.mark.parametrize(
    "layers",
    [
        "image_encoder.blocks",
        "mask_decoder.transformer.layers",
        "mask_decoder.iou_prediction_head.layers",
    ],
)
def test_a_number_of_a_layer_of_thousands_of_digits(tmp_path, mini, layers):
    name = f"{layers}.{'9' * 5000}.x"
    save_file(mini | {name: torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="unknown"):
        load_checkpoint(tmp_path / "odd.safetensors")


def test_adapters_that_change_each_other(tmp_path):
    for name, other in ("ab", "ba"):
        path = tmp_path / f"{name}.safetensors"
        save_file({"x": torch.zeros(1)}, path, {"adapter_of": f"{other}.safetensors"})
    assert "it changes 'a.safetensors', which changes it in turn" in _refused(
        tmp_path / "a.safetensors"
    )
