"""Work replayed from graphs, with a stand-in for the capture where there is no GPU.

What is tested is everything around the capture: which tensors a graph reads and writes, when one
is made, and the way back. That the work itself asks the host nothing, without which there is no
capture, is tested with tensors that have no values.
"""

from __future__ import annotations

import gc
import logging
import weakref
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest
import torch

from SlideSAMLib.compute.cuda_graphs import MOST_GRAPHS, PLAIN_RUNS, Graphed
from SlideSAMLib.protocol import Window, WindowPrompt
from SlideSAMLib.sam.model import load_sam
from SlideSAMLib.sam.network import empty_network
from Testing.reference import MINI, PROMPTS, decode_arguments, named_weights, tensor_shapes

CPU = torch.device("cpu")


class Recorder:
    """Captures by keeping the work; a replay writes its answer into the tensors of the first run.

    wrong : added to what a replay writes. error : raised instead of a capture.
    """

    def __init__(self, wrong: float = 0.0, error: str | None = None) -> None:
        self.wrong, self.error = wrong, error
        self.captures = self.replays = 0

    def __call__(self, work):
        self.captures += 1
        if self.error:
            raise RuntimeError(self.error)
        answer = work()

        def replay():
            self.replays += 1
            for kept, new in zip(answer, work(), strict=True):
                kept.copy_(new + self.wrong)

        return answer, replay


@pytest.fixture(scope="module")
def network():
    network = empty_network(MINI)
    network.load_state_dict(named_weights(tensor_shapes("mini")), assign=True)
    return network


def decoder(network):
    """The decoder as work with tensors or None for parts."""

    def decode(what, embedding, coordinates, labels, boxes, masks):
        points = None if coordinates is None else (coordinates, labels)
        return network.decode(embedding, points, boxes, masks)

    return decode


def _parts(name: str, batch: int, seed: int):
    embedding, points, boxes, masks = _arguments(name, batch, seed)
    return None, embedding, *(points or (None, None)), boxes, masks


def _arguments(name: str, batch: int, seed: int):
    """Embedding, points, boxes and masks of so many prompts of one kind."""
    rng = np.random.default_rng(seed)
    masks = rng.normal(size=(3, 32, 32)).astype(np.float32)
    found = decode_arguments(PROMPTS[name], masks)
    points, boxes, masks = (found.get(key) for key in ("points", "boxes", "masks"))

    def several(tensor, least):
        noise = torch.from_numpy(rng.uniform(0, least, (batch, *tensor.shape[1:])))
        return tensor + noise.float()

    if points is not None:
        points = (several(points[0], 4), points[1].expand(batch, -1).contiguous())
    boxes, masks = (None if each is None else several(each, 4) for each in (boxes, masks))
    embedding = torch.from_numpy(rng.normal(size=(batch, 64, 8, 8))).float()
    return embedding, points, boxes, masks


@pytest.mark.parametrize("name", PROMPTS)
@torch.inference_mode()
def test_graphs_answer_what_the_decoder_answers(network, name):
    recorder = Recorder()
    plain = decoder(network)
    graphs = Graphed(plain, CPU, recorder)
    kept = []
    for batch in (1, 2):
        for run in range(PLAIN_RUNS + 3):
            parts = _parts(name, batch, run)
            kept.append((graphs(*parts), plain(*parts)))
    assert (recorder.captures, recorder.replays) == (2, 2 * (1 + 3))
    for found, expected in kept:  # a later replay must not change an earlier answer
        torch.testing.assert_close(found, expected)


@torch.inference_mode()
def test_what_is_rare_is_not_captured(network):
    recorder = Recorder()
    graphs = Graphed(decoder(network), CPU, recorder)
    for name in PROMPTS:
        for _ in range(PLAIN_RUNS):
            graphs(*_parts(name, 1, 0))
    assert recorder.captures == 0


@torch.inference_mode()
def test_new_kinds_take_the_place_of_those_that_rest(network):
    """Another volume has slices of another size: its graphs come, those of the last one go."""
    recorder = Recorder()
    graphs = Graphed(decoder(network), CPU, recorder)

    def asked(batch: int, times: int) -> int:
        before = recorder.captures
        for _ in range(times):
            assert len(graphs(*_parts("box", batch, 0))[0]) == batch
        return recorder.captures - before

    for batch in range(1, MOST_GRAPHS + 1):
        assert asked(batch, PLAIN_RUNS + 1) == 1
    assert asked(1, 1) == 0  # used again: the second one has rested longest now
    assert asked(MOST_GRAPHS + 1, PLAIN_RUNS + 1) == 1
    assert len(graphs._graphs) == MOST_GRAPHS
    assert asked(1, 1) == 0
    assert asked(2, PLAIN_RUNS) == 0 and asked(2, 1) == 1  # worth it once more


@pytest.mark.parametrize(
    ("recorder", "words"),
    [
        (Recorder(error="operation not permitted"), "operation not permitted"),
        (Recorder(wrong=1.0), "answer is wrong"),
        (Recorder(wrong=float("nan")), "answer is wrong"),
    ],
)
@torch.inference_mode()
def test_a_graph_that_fails_leads_back_to_the_decoder(network, recorder, words, caplog):
    plain = decoder(network)
    graphs = Graphed(plain, CPU, recorder)
    parts = _parts("box", 2, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(PLAIN_RUNS + 4):
            torch.testing.assert_close(graphs(*parts), plain(*parts))
    assert recorder.captures == 1
    assert [words in record.message for record in caplog.records] == [True]
    assert "without CUDA graphs" in caplog.text


def test_a_model_encodes_and_decodes_by_its_graphs(tmp_path):
    torch.save(named_weights(tensor_shapes("mini")), tmp_path / "mini.pth")
    model = load_sam(tmp_path / "mini.pth", "cpu", "float32")
    rng = np.random.default_rng(0)
    window = rng.normal(size=(3, 40, 56)).astype(np.float32)
    windows = [Window(window + n, (1, 1, 1), (-3, 3), ("w", n)) for n in range(2)]
    embeddings = model.encode(windows)
    prompts = [WindowPrompt(box=(5.0 + n, 6.0, 30.0, 25.0 + n)) for n in range(2)]
    expected = model.predict_many(embeddings, prompts)
    recorder = Recorder()
    model._graphs = Graphed(model._answer, CPU, recorder)
    for _ in range(PLAIN_RUNS + 2):
        found = model.predict_many(embeddings, prompts)
    assert recorder.replays == 3
    recorder = Recorder()
    model._encoder._graphs = Graphed(model._encoder._embed, CPU, recorder)
    for _ in range(PLAIN_RUNS + 2):
        again = model.encode(windows[:1])
    assert recorder.replays == 3
    assert torch.allclose(again[0].tensor, embeddings[0].tensor, atol=1e-3)
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.logits, other.logits, atol=1e-5)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_decoder_asks_the_host_nothing(name):
    """Tensors without values: whoever looks at a value, or at how many there are, fails."""
    network = empty_network(MINI).to("meta")
    embedding, points, boxes, masks = _arguments(name, 2, 0)
    meta = torch.device("meta")
    points = None if points is None else tuple(part.to(meta) for part in points)
    boxes, masks = (None if each is None else each.to(meta) for each in (boxes, masks))
    with torch.inference_mode():
        logits, quality = network.decode(embedding.to(meta), points, boxes, masks)
    assert logits.shape == (2, 4, 3, 32, 32) and quality.shape == (2, 4)
    assert logits.is_meta


class StandInCuda:
    """As much of torch.cuda as a capture needs. A replay leaves the answer as it was captured.

    begins, ends : whether a capture can be begun and ended; PyTorch does not tell the allocator
        where it cannot.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, begins: bool = True, ends: bool = True
    ) -> None:
        self.begins, self.ends = begins, ends
        self.current: Any = self._stream("default")
        self.recording: list[tuple[int, int]] = []
        made = iter(range(99))
        for name, stand_in in {
            "synchronize": lambda *_: None,
            "empty_cache": lambda: None,
            "stream": lambda stream: _Current(self, stream),
            "set_stream": lambda stream: setattr(self, "current", stream),
            "Stream": lambda *_, **__: self._stream(f"capture {next(made)}"),
            "current_stream": lambda *_: self.current,
            "current_device": lambda: 0,
            "device": lambda device: nullcontext(),
            "graph_pool_handle": lambda: (0, 1),
            "CUDAGraph": lambda: self,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        end = "_cuda_endAllocateToPool"
        monkeypatch.setattr(torch._C, end, self.end_allocation, raising=False)

    @staticmethod
    def _stream(name: str) -> Any:
        return type("Stream", (), {"name": name, "wait_stream": lambda self, other: None})()

    def capture_begin(self, pool, **_) -> None:
        self.recording.append(pool)
        if not self.begins:
            raise RuntimeError("CUDA error: operation not permitted")

    def capture_end(self) -> None:
        if not self.ends:
            raise RuntimeError("CUDA error: operation failed due to an error during capture")
        self.recording.pop()

    def replay(self) -> None:
        return None

    def end_allocation(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording.remove(pool)


class _Current:
    """torch.cuda.stream: another current stream for a while."""

    def __init__(self, cuda: StandInCuda, stream: Any) -> None:
        self.cuda, self.stream = cuda, stream

    def __enter__(self) -> None:
        self.before, self.cuda.current = self.cuda.current, self.stream

    def __exit__(self, *error: object) -> None:
        self.cuda.current = self.before


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("version", ["2.2", "2.8", "with the allocator told"])
def test_a_failed_capture_leaves_stream_and_allocator_as_they_were(monkeypatch, begins, version):
    """Whichever way this version of PyTorch tells the allocator that a capture is over."""
    cuda = StandInCuda(monkeypatch, begins, ends=False)
    if version == "with the allocator told":
        cuda.recording = _Forgetful()
    if version == "2.2":
        monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
        monkeypatch.setattr(
            torch._C, "_cuda_endAllocateCurrentStreamToPool", cuda.end_allocation, raising=False
        )
    worked = []

    def plain(what, part):
        worked.append(torch.cuda.current_stream().name)
        return (part + 1,)

    graphs = Graphed(plain, CPU)
    for _ in range(PLAIN_RUNS + 3):
        (answer,) = graphs(None, torch.ones(2))
        assert torch.equal(answer, torch.full((2,), 2.0))
        assert torch.cuda.current_stream().name == "default"
    assert cuda.recording == []
    assert worked[-3:] == ["default"] * 3


class _Forgetful(list):
    """The allocator's records, where PyTorch itself ends what it began."""

    def append(self, pool: tuple[int, int]) -> None:
        return None


def test_a_capture_collects_no_garbage(monkeypatch):
    """That of Qt and VTK may be deleted on the main thread only; captures run on the worker."""
    StandInCuda(monkeypatch)
    with suppress(AttributeError):  # versions before 2.9 do so always
        monkeypatch.setattr(torch.compiler.config, "force_cudagraph_gc", True)
    collected = []

    def note(phase, info):
        collected.append(phase)

    graphs = Graphed(lambda what, part: (part + 1,), CPU)
    gc.disable()
    gc.callbacks.append(note)
    try:
        for _ in range(PLAIN_RUNS + 2):
            assert torch.equal(graphs(None, torch.ones(2))[0], torch.full((2,), 2.0))
    finally:
        gc.callbacks.remove(note)
        gc.enable()
    assert graphs._graphs and not collected


def test_graphs_are_captured_on_one_stream(monkeypatch):
    """PyTorch's allocator shares the memory of a pool among the captures of one stream only."""
    StandInCuda(monkeypatch)
    streams = []

    def plain(what, part):
        streams.append(torch.cuda.current_stream().name)
        return (part + 1,)

    graphs = Graphed(plain, CPU)
    for size in range(1, MOST_GRAPHS + 3):  # the first ones go again
        for _ in range(PLAIN_RUNS + 1):
            graphs(None, torch.ones(size))
    assert len(graphs._graphs) == MOST_GRAPHS
    assert set(streams) == {"default", "capture 0"}


def test_graphs_give_their_memory_to_the_work(tmp_path, monkeypatch):
    """There is memory for graphs, or for one window of another size."""
    torch.save(named_weights(tensor_shapes("mini")), tmp_path / "mini.pth")
    model = load_sam(tmp_path / "mini.pth", "cpu", "float32")
    encoder, recorder = model._encoder, Recorder()
    encoder._graphs = Graphed(encoder._embed, CPU, recorder)
    encoder._most = 2
    voxels = np.random.default_rng(0).normal(size=(3, 40, 56)).astype(np.float32)
    usual = [Window(voxels, (1, 1, 1), (-3, 3), ("w", 0))]
    other = [Window(voxels[:, :30], (1, 1, 1), (-3, 3), ("w", n)) for n in range(1, 3)]
    for _ in range(PLAIN_RUNS + 1):
        model.encode(usual)
    assert recorder.captures == 1
    encode = encoder._encode

    def hungry(images):
        if encoder._graphs._graphs or len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(images)

    monkeypatch.setattr(encoder, "_encode", hungry)
    for _ in range(PLAIN_RUNS + 2):
        assert len(model.encode(other)) == 2
    assert recorder.captures == 1  # no more of them where there is so little memory


def test_a_model_goes_without_the_garbage_collector():
    """Its memory is wanted at once, and the collector may run on the main thread only."""

    class Model:
        def __init__(self):
            self.graphs = Graphed(self.answer, CPU, Recorder())

        def answer(self, what, x):
            return (2 * x,)

    gc.disable()
    try:
        model = Model()
        gone = weakref.ref(model)
        with torch.inference_mode():
            for _ in range(PLAIN_RUNS + 2):
                assert torch.equal(model.graphs(None, torch.ones(2))[0], torch.full((2,), 2.0))
        assert model.graphs._graphs
        del model
        assert gone() is None
    finally:
        gc.enable()
