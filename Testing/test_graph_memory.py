"""What CUDA graphs hold is bounded, and given up before memory is said to be too small."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SlideSAMLib.compute import cuda_graphs
from SlideSAMLib.compute.cuda_graphs import PLAIN_RUNS, SHARE, Graphed
from SlideSAMLib.compute.memory import out_of_memory
from SlideSAMLib.errors import ModelError
from SlideSAMLib.protocol import Window, WindowPrompt
from SlideSAMLib.sam.model import SamModel, load_sam
from Testing.reference import named_weights, tensor_shapes

CPU = torch.device("cpu")
BOX = WindowPrompt(box=(5.0, 6.0, 30.0, 25.0))
POINT = WindowPrompt(points=((20.0, 15.0),), labels=(1,))


def capture(work):
    """Keeps the answer alive, as a graph does; a replay writes into it."""
    answer = work()

    def replay():
        for kept, new in zip(answer, work(), strict=True):
            kept.copy_(new)

    return answer, replay


def held_bytes(graphs: Graphed) -> int:
    kept = [t for g in graphs._graphs.values() for t in (*g.inputs, *g.answer) if t is not None]
    return sum(tensor.nbytes for tensor in kept)


def filled(graphs: Graphed, sizes) -> None:
    with torch.inference_mode():
        for size in sizes:
            for _ in range(PLAIN_RUNS + 2):
                (answer,) = graphs(None, torch.ones(size, 100))
                assert torch.equal(answer, torch.full((size, 100), 2.0))


@pytest.mark.parametrize("windows", [6, 20, 200])
def test_all_graphs_together_hold_a_share_of_the_free_memory(monkeypatch, windows):
    """A GPU with room for so many windows; its calls become smaller as objects come to an end."""
    graphs = Graphed(lambda what, x: (x + 1,), CPU, capture)
    total = round(windows * 800 / SHARE)  # 800 bytes go in and out for each
    monkeypatch.setattr(
        cuda_graphs, "free_memory", lambda device: total - held_bytes(graphs), raising=False
    )
    for size in range(8, 0, -1):
        filled(graphs, [size])
        assert held_bytes(graphs) <= SHARE * total
    newest = [kind[1][0] for kind in graphs._graphs]
    assert newest == {6: [3, 2, 1], 20: [5, 4, 3, 2, 1], 200: [8, 7, 6, 5, 4, 3, 2, 1]}[windows]


def test_a_call_too_large_for_that_leaves_the_graphs_of_others(monkeypatch):
    captures = []
    graphs = Graphed(
        lambda what, x: (x + 1,), CPU, lambda work: captures.append(1) or capture(work)
    )
    monkeypatch.setattr(cuda_graphs, "free_memory", lambda device: 2400 / SHARE, raising=False)
    filled(graphs, [2, 8, 8])
    assert len(captures) == 1 and [kind[1][0] for kind in graphs._graphs] == [2]


@pytest.fixture
def model(tmp_path) -> SamModel:
    """With graphs of its encoder and its decoder."""
    torch.save(named_weights(tensor_shapes("mini")), tmp_path / "mini.pth")
    model = load_sam(tmp_path / "mini.pth", "cpu", "float32")
    model._graphs = Graphed(model._answer, CPU, capture)
    encoder = model._encoder
    encoder._graphs = Graphed(encoder._embed, CPU, capture)
    for _ in range(PLAIN_RUNS + 1):
        model.predict(model.encode([window()])[0], BOX)
    assert model._graphs._graphs and encoder._graphs._graphs
    return model


def window(rows: int = 40) -> Window:
    slices = np.random.default_rng(0).normal(size=(3, rows, 56)).astype(np.float32)
    return Window(slices, (1, 1, 1), (-3, 3), ("w", rows))


def without_memory_beside_graphs(model: SamModel, work):
    def hungry(*parts):
        if model._graphs._graphs or model._encoder._graphs._graphs:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return work(*parts)

    return hungry


def test_all_graphs_give_their_memory_to_the_encoder(model, monkeypatch):
    """Those of the decoder, too."""
    hungry = without_memory_beside_graphs(model, model._encoder._encode)
    monkeypatch.setattr(model._encoder, "_encode", hungry)
    assert len(model.encode([window(30)])) == 1


def test_all_graphs_give_their_memory_to_the_decoder(model, monkeypatch):
    (embedding,) = model.encode([window()])
    hungry = without_memory_beside_graphs(model, model._network.decode)
    monkeypatch.setattr(model._network, "decode", hungry)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.predict_many([embedding] * 2, [POINT] * 2)  # fewer at a time come first
    assert model._graphs._graphs
    assert model.predict(embedding, POINT).logits.shape == (3, 3, 40, 56)


@pytest.mark.parametrize("work", ["encode", "decode"])
def test_a_shortage_without_graphs_is_told(model, monkeypatch, work):
    (embedding,) = model.encode([window()])
    asked = []

    def fails(*_):
        asked.append(1)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model._encoder, "_encode", fails)
    monkeypatch.setattr(model._network, "decode", fails)
    for _ in range(2):
        asked.clear()
        with pytest.raises(RuntimeError) as told:
            model.encode([window(30)]) if work == "encode" else model.predict(embedding, POINT)
        assert out_of_memory(told.value)
        assert isinstance(told.value, ModelError) == (work == "encode")
    assert len(asked) == 1  # there was nothing more to give up
