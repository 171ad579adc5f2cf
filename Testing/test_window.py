"""The embedding cache and the encoding of windows."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from SlideSAMLib.compute import memory
from SlideSAMLib.errors import InputError
from SlideSAMLib.protocol import SliceModel, WindowPrompt
from SlideSAMLib.stack import Stack
from SlideSAMLib.window import EmbeddingCache, WindowPredictor
from Testing.fakes import ThresholdModel, block_volume

PROMPT = WindowPrompt(box=(10, 8, 24, 19))


def _array(nbytes):
    return np.zeros(nbytes, np.uint8)


def test_the_fake_is_a_slice_model():
    assert isinstance(ThresholdModel(), SliceModel)


def test_the_least_recently_used_goes_first():
    cache = EmbeddingCache(300)
    for name in "abc":
        cache.put(name, _array(100))
    assert cache.get("a") is not None
    cache.put("d", _array(100))
    assert cache.get("b") is None
    assert all(name in cache for name in "acd")
    assert (cache.nbytes, len(cache)) == (300, 3)


def test_the_bound_in_bytes_holds():
    cache = EmbeddingCache(1000)
    rng = np.random.default_rng(0)
    for name, size in enumerate(rng.integers(1, 700, 200)):
        cache.put(name % 37, _array(int(size)))
        assert cache.nbytes <= 1000
    held = [cache.get(name) for name in range(37)]
    assert cache.nbytes == sum(entry.nbytes for entry in held if entry is not None)


def test_what_is_larger_than_the_cache_is_not_kept():
    cache = EmbeddingCache(100)
    cache.put("small", _array(60))
    cache.put("large", _array(101))
    assert "large" not in cache
    assert "small" in cache
    cache.put("small", _array(500))
    assert (cache.nbytes, len(cache)) == (0, 0)
    with pytest.raises(InputError):
        EmbeddingCache(-1)


def test_a_new_value_replaces_the_old_one():
    cache = EmbeddingCache(100)
    cache.put("a", _array(60))
    cache.put("a", _array(30))
    assert (cache.nbytes, len(cache)) == (30, 1)
    cache.clear()
    assert (cache.nbytes, len(cache)) == (0, 0)


def test_the_cache_bears_many_threads():
    cache = EmbeddingCache(5000)
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        try:
            for name in rng.integers(0, 50, 500):
                if cache.get(int(name)) is None:
                    cache.put(int(name), _array(int(rng.integers(1, 900))))
                if cache.nbytes > 5000:
                    failures.append("over the bound")
        except Exception as error:  # a thread must hand its error to the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_window_is_encoded_once():
    model, stack = ThresholdModel(), Stack(block_volume()[0])
    predictor = WindowPredictor(stack, model)
    for _ in range(3):
        predictor.predict(5, PROMPT)
    assert model.encoded == [[5]]
    assert len(model.predicted) == 3
    assert predictor.seconds["encode"] > 0
    assert predictor.seconds["predict"] > 0


def test_a_shared_cache_serves_the_same_stack_and_model_only():
    cache, model = EmbeddingCache(), ThresholdModel()
    volume = block_volume()[0]
    WindowPredictor(Stack(volume, key="v"), model, cache).embedding(5)
    WindowPredictor(Stack(volume, key="v"), model, cache).embedding(5)
    assert model.encoded == [[5]]
    WindowPredictor(Stack(volume, key="w"), model, cache).embedding(5)
    WindowPredictor(Stack(volume, key="v", axis=1), model, cache).embedding(5)
    assert len(model.encoded) == 3
    other = ThresholdModel()
    WindowPredictor(Stack(volume, key="v"), other, cache).embedding(5)
    assert other.encoded == [[5]]


def test_windows_ahead_are_encoded_in_the_same_batch():
    model, stack = ThresholdModel(), Stack(block_volume()[0])
    predictor = WindowPredictor(stack, model, batch=3)
    predictor.embedding(5, ahead=[5, 6, -1, 99, 4, 7])
    assert model.encoded == [[5, 6, 4]]
    predictor.embedding(6, ahead=[4, 7, 8])
    assert model.encoded == [[5, 6, 4]]
    predictor.embedding(7, ahead=[4, 8])
    assert model.encoded == [[5, 6, 4], [7, 8]]


def test_windows_ahead_survive_a_cache_that_holds_nothing():
    model, stack = ThresholdModel(), Stack(block_volume()[0])
    predictor = WindowPredictor(stack, model, EmbeddingCache(0), batch=4)
    for centre in range(4):
        embedding = predictor.embedding(centre, ahead=range(centre + 1, 4))
        assert embedding.window.key[-1] == centre
    assert model.encoded == [[0, 1, 2, 3]]


class BatchModel(ThresholdModel):
    """Likes batches of so many windows, in the background or not."""

    def __init__(self, most, background=False):
        super().__init__()
        self.most = most
        self.encodes_in_background = background

    def windows_at_once(self):
        return self.most


def _flat(calls):
    return [centre for call in calls for centre in call]


def _slide_on(predictor, centres):
    for place, centre in enumerate(centres):
        predictor.embedding(centre, ahead=centres[place + 1 :])


def test_batches_grow_with_what_has_been_of_use():
    model, stack = BatchModel(8), Stack(block_volume((40, 30, 34))[0])
    _slide_on(WindowPredictor(stack, model), list(range(5, 40)))
    assert [len(call) for call in model.encoded] == [1, 2, 4, 8, 8, 8, 4]
    assert _flat(model.encoded) == list(range(5, 40))


def test_batches_follow_what_the_model_likes_at_the_moment():
    model, stack = BatchModel(16), Stack(block_volume((60, 30, 34))[0])
    predictor = WindowPredictor(stack, model)
    _slide_on(predictor, list(range(0, 20)))
    model.most = 2  # memory has become scarce
    before = len(model.encoded)
    _slide_on(predictor, list(range(40, 50)))
    assert {len(call) for call in model.encoded[before:]} == {2}
    assert WindowPredictor(stack, ThresholdModel())._room() == 1


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("last", range(0, 30, 3))
def test_after_a_stop_at_most_one_batch_was_wasted(background, last):
    model, stack = BatchModel(8, background), Stack(block_volume((60, 30, 34))[0])
    predictor = WindowPredictor(stack, model)
    for centre in range(last + 1):
        predictor.embedding(centre, ahead=range(centre + 1, 60))
    assert len(model.encoded) > 1 or last < 1
    wasted = [call for call in model.encoded if call[-1] > last]
    assert len(wasted) <= 1
    assert sum(len(call) for call in wasted) <= min(8, last + 2)


def test_a_background_model_gets_the_next_batch_before_it_is_needed():
    model, stack = BatchModel(4, background=True), Stack(block_volume((40, 30, 34))[0])
    predictor = WindowPredictor(stack, model)
    for centre in range(20):
        known = set(_flat(model.encoded))
        predictor.embedding(centre, ahead=range(centre + 1, 20))
        assert centre < 2 or centre in known
    assert sorted(_flat(model.encoded)) == list(range(20))


def test_a_front_that_stopped_does_not_keep_others_from_looking_ahead():
    model, stack = BatchModel(4, background=True), Stack(block_volume((60, 30, 34))[0])
    predictor = WindowPredictor(stack, model)
    up, down = list(range(31, 60)), list(range(29, -1, -1))
    for step in range(8):
        predictor.embedding(up[step], ahead=[down[step], up[step + 1], down[step + 1]])
    count = len(model.encoded)
    for step in range(9, 29):  # one front goes on alone; what was meant for the other is let go
        predictor.embedding(up[step], ahead=up[step + 1 :])
    assert max(len(call) for call in model.encoded[count:]) == 4
    assert not set(predictor._ahead) & set(down)


def test_the_size_of_the_cache(monkeypatch):
    monkeypatch.delenv("SLIDESAM_CACHE_MIB", raising=False)
    for total, expected in [(None, 128), (2**30, 128), (2**33, 512), (2**40, 1024)]:
        monkeypatch.setattr(memory, "physical_memory", lambda total=total: total)
        assert EmbeddingCache().max_bytes == expected * 2**20
    monkeypatch.setenv("SLIDESAM_CACHE_MIB", "7")
    assert EmbeddingCache().max_bytes == 7 * 2**20
    assert EmbeddingCache(5).max_bytes == 5
    for wrong in ("-1", "much", "1.5"):
        monkeypatch.setenv("SLIDESAM_CACHE_MIB", wrong)
        with pytest.raises(InputError, match="SLIDESAM_CACHE_MIB"):
            EmbeddingCache()


def test_the_memory_of_this_computer():
    assert 2**28 < memory.physical_memory() < 2**50


# Embeddings on a GPU


def _with_gpu(monkeypatch, gib):
    """A GPU with so much memory, as PyTorch tells it."""
    properties = SimpleNamespace(total_memory=int(gib * 2**30))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def _on(device):
    model = ThresholdModel()
    model.device = device
    return model


@pytest.mark.parametrize(
    ("device", "gib", "expected"),
    [("cuda:0", 4, 256), ("cuda:0", 1, 128), ("cuda", 80, 512), ("cpu", 4, 512), ("mps", 4, 512)],
)
def test_embeddings_on_a_gpu_take_a_share_of_its_memory(monkeypatch, device, gib, expected):
    """Where nobody chose the size; the computer has 8 GiB here."""
    monkeypatch.delenv("SLIDESAM_CACHE_MIB", raising=False)
    monkeypatch.setattr(memory, "physical_memory", lambda: 2**33)
    _with_gpu(monkeypatch, gib)
    stack, cache = Stack(block_volume()[0]), EmbeddingCache()
    WindowPredictor(stack, _on(device), cache)
    assert cache.max_bytes == expected * 2**20
    WindowPredictor(stack, _on("cpu"), cache)
    assert cache.max_bytes == 512 * 2**20
    chosen = EmbeddingCache(5 * 2**30)
    WindowPredictor(stack, _on(device), chosen)
    assert chosen.max_bytes == 5 * 2**30
    monkeypatch.setenv("SLIDESAM_CACHE_MIB", "700")
    WindowPredictor(stack, _on(device), cache)
    assert cache.max_bytes == 700 * 2**20


def test_a_smaller_cache_drops_what_it_has_no_room_for(monkeypatch):
    monkeypatch.delenv("SLIDESAM_CACHE_MIB", raising=False)
    monkeypatch.setattr(memory, "physical_memory", lambda: 2**33)
    _with_gpu(monkeypatch, 4)
    cache = EmbeddingCache()
    for name in range(3):
        cache.put(name, SimpleNamespace(nbytes=100 * 2**20))
    cache.fit("cuda:0")
    assert (cache.nbytes, len(cache)) == (200 * 2**20, 2) and 0 not in cache


def test_without_such_a_gpu_the_computer_decides():
    assert (memory.gpu_memory("cuda") is not None) == torch.cuda.is_available()
    assert memory.gpu_memory("cpu") is None


@pytest.mark.parametrize("what", ["encode", "predict"])
def test_kept_embeddings_give_way_to_work(monkeypatch, what):
    """There is memory for the work, or for what the cache holds."""
    model, stack = ThresholdModel(), Stack(block_volume()[0])
    predictor = WindowPredictor(stack, model)
    kept = predictor.embedding(5)
    full = [RuntimeError("CUDA error: out of memory")]
    usual = getattr(model, what)

    def hungry(*arguments):
        if len(predictor.cache):
            raise full[0]
        return usual(*arguments)

    monkeypatch.setattr(model, what, hungry)
    if what == "predict":
        assert predictor.predict_many([kept], [PROMPT])
        assert len(predictor.cache) == 0
    else:
        assert predictor.embedding(6).window.key[-1] == 6
        assert len(predictor.cache) == 1
    predictor.embedding(6)
    full[0] = RuntimeError("the driver has gone")
    predictor.cache.put("other", kept)
    with pytest.raises(RuntimeError, match="driver"):
        predictor.predict(6 if what == "predict" else 7, PROMPT)
