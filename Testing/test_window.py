"""The embedding cache and the encoding of windows."""

import threading

import numpy as np
import pytest

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
