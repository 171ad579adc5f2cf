"""The network reproduces the published one: names, shapes and values (Testing/Data/reference)."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from SlideSAMLib.errors import ModelError
from SlideSAMLib.files.tensor_files import TensorFile
from SlideSAMLib.sam.checkpoints import load_checkpoint
from SlideSAMLib.sam.encoding import prepare
from SlideSAMLib.sam.network import CONFIGS, build_network, empty_network
from Testing.reference import (
    MINI,
    PROMPTS,
    decode_arguments,
    named_weights,
    relative_error,
    tensor_shapes,
    values,
)

ROOT = Path(__file__).parent.parent


def _network(tensors: dict, config=MINI):
    network = empty_network(config)
    network.load_state_dict(tensors, assign=True)
    return network


def _image(window: np.ndarray, size: int) -> torch.Tensor:
    clipped = torch.from_numpy(np.clip(window, -200, 400)).float()
    return prepare(clipped[None], size, "nearest", "sam")


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h", "mini"])
def test_names_and_shapes(name):
    network = empty_network(MINI if name == "mini" else CONFIGS[name])
    shapes = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    assert shapes == tensor_shapes(name)
    assert list(shapes) == list(tensor_shapes(name))


@pytest.fixture(scope="module")
def mini():
    reference = values("mini_model")
    network = _network(named_weights(tensor_shapes("mini")))
    with torch.inference_mode():
        embedding = network.encode(_image(reference["window"], MINI.image_size))
    return network, embedding, reference


def test_mini_embedding(mini):
    _, embedding, reference = mini
    assert relative_error(embedding[0], reference["embedding"]) < 1e-4


@pytest.mark.parametrize("prompt", PROMPTS)
def test_mini_answers(mini, prompt):
    network, embedding, reference = mini
    arguments = decode_arguments(PROMPTS[prompt], reference["mask_input"])
    with torch.inference_mode():
        logits, quality = network.decode(embedding, **arguments)
    # (token, slice) -> the reference's channels (candidate, slice)
    assert relative_error(logits[0, 1:].flatten(0, 1), reference[f"{prompt}.multi.low_res"]) < 1e-4
    assert relative_error(logits[0, 0], reference[f"{prompt}.single.low_res"]) < 1e-4
    assert relative_error(quality[0, 1:], reference[f"{prompt}.multi.iou"]) < 1e-4
    assert relative_error(quality[0, :1], reference[f"{prompt}.single.iou"]) < 1e-4


def test_mini_with_two_adapters_merged():
    reference, window = values("mini_model_lora"), values("mini_model")["window"]
    file = TensorFile(Path("mini.pth"), named_weights(tensor_shapes("mini_lora")), {})
    checkpoint = load_checkpoint(file)
    assert checkpoint.lora_ranks == (8, 1)
    assert checkpoint.config == MINI
    network = _network(checkpoint.tensors)
    with torch.inference_mode():
        embedding = network.encode(_image(window, MINI.image_size))
        logits, quality = network.decode(embedding, **decode_arguments(PROMPTS["box"]))
    assert relative_error(embedding[0], reference["embedding"]) < 1e-4
    assert relative_error(logits[0, 1:].flatten(0, 1), reference["box.multi.low_res"]) < 1e-4
    assert relative_error(logits[0, 0], reference["box.single.low_res"]) < 1e-4
    assert relative_error(quality[0, 1:], reference["box.multi.iou"]) < 1e-4
    assert relative_error(quality[0, :1], reference["box.single.iou"]) < 1e-4


def test_several_prompts_in_one_batch(mini):
    """A batch of boxes answers as each box alone."""
    network, embedding, _ = mini
    boxes = torch.tensor([[30.0, 40, 80, 100], [5, 8, 60, 50]])
    with torch.inference_mode():
        together, _ = network.decode(embedding, boxes=boxes)
        alone = [network.decode(embedding, boxes=box[None])[0][0] for box in boxes]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)


def test_training_reaches_every_weight():
    """The built network is trainable: a gradient for every tensor of encoder and decoder."""
    torch.manual_seed(0)
    network = build_network(MINI)
    embedding = network.encode(torch.randn(1, 3, 128, 128))
    arguments = decode_arguments(PROMPTS["mask_box"], np.random.rand(3, 32, 32).astype(np.float32))
    points = decode_arguments(PROMPTS["points"])
    logits, quality = network.decode(embedding, **arguments)
    more, _ = network.decode(embedding, **points)
    (logits.square().mean() + more.square().mean() + quality.sum()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.slow
def test_vit_b_on_one_window():
    reference = values("vit_b")
    network = _network(named_weights(tensor_shapes("vit_b")), CONFIGS["vit_b"])
    prompts = {"box": {"boxes": [300, 400, 600, 700]}}
    prompts["point"] = {"points": [[420, 520]], "labels": [1]}
    with torch.inference_mode():
        embedding = network.encode(_image(reference["window"], 1024))
        answers = {n: network.decode(embedding, **decode_arguments(p)) for n, p in prompts.items()}
    assert relative_error(embedding[0, ::16, ::8, ::8], reference["embedding_sample"]) < 1e-3
    for name, (logits, quality) in answers.items():
        multi = logits[0, 1:].flatten(0, 1)
        assert relative_error(multi, reference[f"{name}.multi.low_res"]) < 1e-3
        assert relative_error(quality[0, 1:], reference[f"{name}.multi.iou"]) < 1e-3
    logits, quality = answers["box"]
    assert relative_error(logits[0, 0], reference["box.single.low_res"]) < 1e-3
    assert relative_error(quality[0, :1], reference["box.single.iou"]) < 1e-3


def _python(code: str) -> str:
    """Run code in a fresh interpreter at the repository's root; its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchvision_is_never_imported():
    """The network loads where any import of torchvision fails, and leaves no trace of one."""
    out = _python(
        """
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "torchvision":
                    raise ImportError("torchvision is broken here")

        sys.meta_path.insert(0, Blocked())
        from SlideSAMLib.sam.network import VIT_B, empty_network

        empty_network(VIT_B)
        print("segment_anything" in sys.modules, "torchvision" in sys.modules)
        """
    )
    assert out.split() == ["False", "False"]


def test_an_empty_network_costs_neither_the_compiler_nor_random_numbers():
    """PyTorch's compiler takes seconds to import; random numbers belong to the user."""
    out = _python(
        """
        import sys
        import torch
        from SlideSAMLib.sam.network import VIT_B, empty_network

        torch.manual_seed(1)
        network = empty_network(VIT_B)
        places = {p.device.type for p in network.image_encoder.parameters()}
        drawn = torch.rand(1)
        torch.manual_seed(1)
        print("torch._dynamo" in sys.modules, *places, bool(drawn == torch.rand(1)))
        """
    )
    assert out.split() == ["False", "meta", "True"]


def test_an_imported_segment_anything_is_left_alone():
    """A user with a working torchvision keeps using segment_anything beside SlideSAM."""
    out = _python(
        """
        import sys, types

        parts = ("", ".ops", ".ops.boxes", ".transforms", ".transforms.functional")
        for part in parts:
            sys.modules["torchvision" + part] = types.ModuleType("torchvision" + part)
        boxes = sys.modules["torchvision.ops.boxes"]
        boxes.batched_nms = boxes.box_area = None
        functional = sys.modules["torchvision.transforms.functional"]
        functional.resize = functional.to_pil_image = None

        import segment_anything
        before = {k: id(v) for k, v in sys.modules.items() if k.startswith("segment_anything")}
        from SlideSAMLib.sam.network import VIT_B, empty_network
        empty_network(VIT_B)
        after = {k: id(v) for k, v in sys.modules.items() if k.startswith("segment_anything")}
        print(before == after, segment_anything.SamPredictor.__name__)
        """
    )
    assert out.split() == ["True", "SamPredictor"]


def test_a_missing_segment_anything_is_one_sentence(monkeypatch):
    from SlideSAMLib.sam import modeling as sam_modeling

    monkeypatch.setattr(sam_modeling, "_NAME", "SlideSAMLib._not_loaded_yet")
    monkeypatch.setattr(sam_modeling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install segment-anything"):
        sam_modeling.load_modeling()


def test_a_broken_segment_anything_is_one_sentence(monkeypatch, tmp_path):
    from SlideSAMLib.sam import modeling as sam_modeling

    (tmp_path / "segment_anything" / "modeling").mkdir(parents=True)
    (tmp_path / "segment_anything" / "__init__.py").write_text("")
    broken = "from .image_encoder import ImageEncoderViT"
    (tmp_path / "segment_anything" / "modeling" / "__init__.py").write_text(broken)
    monkeypatch.setattr(sam_modeling, "_NAME", "SlideSAMLib._not_loaded_yet")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="reinstall it"):
        sam_modeling.load_modeling()
    assert not [name for name in sys.modules if "_not_loaded_yet" in name]
