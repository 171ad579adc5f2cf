"""Segmenting a volume with one call: axes, results, progress, memory, imports."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import SlideSAMLib
from SlideSAMLib.api import SlideResult, segment
from SlideSAMLib.errors import InputError
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.protocol import WindowPrediction
from SlideSAMLib.sliding.slide_types import SlideSettings
from Testing.fakes import FakeEmbedding, ThresholdModel, ball_volume, block_volume

BOX = (10, 8, 24, 19)
PROMPT = SlicePrompt(6, box=BOX)


def _segment(volume, prompts=PROMPT, model=None, window=(0, 100), **options):
    return segment(volume, prompts, model=model or ThresholdModel(), window=window, **options)


def test_the_result_says_everything():
    volume, truth = block_volume()
    before = volume.copy()
    result = _segment(volume, spacing=(3, 1, 1))
    assert isinstance(result, SlideResult)
    assert result.mask.dtype == bool
    assert result.mask.shape == volume.shape
    assert result.mask.flags.c_contiguous
    assert np.array_equal(result.mask, truth)
    assert list(result.confidence) == list(result.voxels) == list(range(3, 12))
    assert all(type(v) is float and 0 < v <= 1 for v in result.confidence.values())
    assert set(result.voxels.values()) == {12 * 15}
    assert result.stops == {"backward": "nothing left", "forward": "nothing left"}
    assert all(type(stop) is str for stop in result.stops.values())
    assert (result.axis, result.intensity) == (0, (0, 100))
    assert (result.model, result.device, result.precision) == ("threshold", "cpu", "float32")
    assert set(result.seconds) == {"encode", "predict", "total"}
    assert 0 < result.seconds["encode"] + result.seconds["predict"] <= result.seconds["total"]
    assert np.array_equal(volume, before)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("region", ["slice", "crop"])
def test_every_axis_gives_the_same_voxels(axis, region):
    """Noise, anisotropic spacing, box and points: only the order of the axes differs."""
    rng = np.random.default_rng(7)
    volume = (ball_volume()[0] + rng.normal(0, 20, (21, 40, 44))).astype(np.float32)
    prompts = [
        SlicePrompt(8, box=(13, 11, 31, 29)),
        SlicePrompt(12, points=[(22, 20), (40, 3)], labels=[1, 0]),
    ]
    spacing = (4.0, 0.5, 0.7)
    order = {0: (0, 1, 2), 1: (1, 0, 2), 2: (1, 2, 0)}[axis]  # the slide axis lies at `axis`
    expected = _segment(volume, prompts, ThresholdModel(region=region), spacing=spacing)
    found = _segment(
        volume.transpose(order),
        prompts,
        ThresholdModel(region=region),
        spacing=[spacing[i] for i in order],
        axis=axis,
    )
    assert 300 < expected.mask.sum() < 5000
    assert found.mask.shape == volume.transpose(order).shape
    assert np.array_equal(found.mask, expected.mask.transpose(order))
    assert found.confidence == expected.confidence
    assert found.stops == expected.stops
    assert found.axis == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_points_are_column_and_row_of_take(axis):
    volume = np.zeros((9, 10, 11), np.uint8)
    volume[2:7, 3:8, 4:9] = 200
    volume[6, 7, 8] = 0  # not the same along all axes
    row, column = 4, 6
    assert volume.take(5, axis)[row, column] == 200
    settings = SlideSettings(min_area_mm2=0)
    prompt = SlicePrompt(5, points=[(column, row)])
    result = segment(volume, prompt, axis=axis, model=ThresholdModel(), settings=settings)
    assert np.array_equal(result.mask, volume > 0)


def test_area_thresholds_follow_the_spacing(monkeypatch):
    # A fiftieth of the block is a few voxels.
    monkeypatch.setattr("SlideSAMLib.sliding.stops.SMALLEST_SHARE", 0.1)
    volume, truth = block_volume()
    truth[3:5] = truth[10:12] = False
    truth[3:5, 8:11, 10:13] = truth[10:12, 8:11, 10:13] = True  # thin tips of nine voxels
    volume = np.where(truth, volume, 0)
    settings = SlideSettings(min_area_mm2=5.0, min_agreement=0.0)
    prompt = SlicePrompt(6, box=(10, 8, 24, 19))
    assert np.array_equal(_segment(volume, prompt, settings=settings).mask, truth)
    fine = _segment(volume, prompt, settings=settings, spacing=(1, 0.5, 0.5))
    assert fine.stops == {"backward": "too small", "forward": "too small"}
    across = _segment(
        volume.transpose(1, 2, 0), prompt, None, settings=settings, axis=2, spacing=(0.5, 0.5, 1)
    )
    assert across.stops == fine.stops


def test_progress_and_cancel():
    volume, truth = block_volume()
    calls = []
    result = _segment(
        volume,
        first=2,
        last=12,
        progress=lambda done, total, finished: calls.append((done, total, finished.index)),
        cancelled=lambda: len(calls) >= 5,
    )
    assert calls[0] == (1, 11, 6)
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert "cancelled" in result.stops.values()
    assert set(result.voxels) == {index for _, _, index in calls}
    kept = sorted(result.voxels)
    assert np.array_equal(result.mask[kept], truth[kept])
    assert result.mask.sum() == truth[kept].sum()


def test_a_slice_that_comes_again_replaces_itself():
    """The result is what was yielded last, not a union."""

    class Shrinking(ThresholdModel):
        def predict(self, embedding, prompt):
            found = super().predict(embedding, prompt)
            found.logits[:, [0, 2], :, :12] = -8.0
            return found

    settings = SlideSettings(use_masks=False, outer_weight=9.0, min_agreement=0)
    result = _segment(block_volume()[0], model=Shrinking(), settings=settings)
    assert not result.mask[5, :, :12].any()


@pytest.mark.parametrize(
    ("volume", "options"),
    [
        (np.zeros((4, 4)), {}),
        (np.zeros((4, 40, 40)), {}),
        (np.full((9, 40, 40), np.nan), {}),
        (block_volume()[0], {"axis": 5}),
        (block_volume()[0], {"first": 9, "last": 2}),
        (block_volume()[0], {"prompts": []}),
        (block_volume()[0], {"prompts": None}),
        (block_volume()[0], {"prompts": [SlicePrompt(99, box=BOX)]}),
        (block_volume()[0], {"window": (3, 3)}),
        (block_volume()[0], {"spacing": (1, 1)}),
    ],
)
def test_bad_input_is_refused_in_one_sentence(volume, options):
    model = ThresholdModel()
    with pytest.raises(InputError) as caught:
        _segment(volume, **{"model": model, **options})
    assert "\n" not in str(caught.value)
    assert not model.encoded


class _SquareModel(ThresholdModel):
    """Answers with a fixed square at once: costs no time, for measuring memory."""

    def predict(self, embedding, prompt):
        logits = np.full((4, 3, 512, 512), -5.0, np.float32)
        logits[:, :, 100:400, 100:400] = 5.0
        return WindowPrediction(logits, (0, 0), np.full(4, 0.9, np.float32), (512, 512))


@pytest.mark.parametrize("axis", [0, 2])
def test_a_large_volume_stays_light(axis):
    """512 x 512 x 60 int16 (31 MB): beyond it a bool mask, the cache, a few slices."""
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 1000, (512, 512), np.int16)
    volume = np.moveaxis(np.repeat(plane[None], 60, axis=0), 0, axis)
    prompts = [SlicePrompt(i, box=(100, 100, 399, 399)) for i in (5, 50)]
    cache = SlideSAMLib.EmbeddingCache(32 * 2**20)
    tracemalloc.start()
    try:
        result = segment(volume, prompts, axis=axis, model=_SquareModel(), cache=cache)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(result.voxels) == 60
    allowed = volume.size + cache.max_bytes + 120 * 2**20  # windows of 12 MB at work
    assert peak < allowed, f"{peak / 2**20:.0f} MB"


def test_embeddings_are_let_go():
    """The private cache is bounded: not every window of a long slide stays in memory."""
    alive = []

    class Heavy(ThresholdModel):
        def encode(self, windows):
            found = super().encode(windows)
            return [_Weighed(e.window) for e in found]

        def predict(self, embedding, prompt):
            alive.append(_Weighed.alive)
            return super().predict(embedding, prompt)

    volume = block_volume((40, 30, 34), slices=(0, 39))[0]
    _segment(volume, SlicePrompt(20, box=BOX), Heavy())
    assert len(alive) == 40
    assert max(alive) <= 5


class _Weighed(FakeEmbedding):
    """Says that it weighs 64 MB, and counts how many of its kind exist."""

    alive = 0
    nbytes = 64 * 2**20

    def __post_init__(self):
        _Weighed.alive += 1

    def __del__(self):
        _Weighed.alive -= 1


def _python(code):
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, SlideSAMLib\n"
        "SlideSAMLib.SlicePrompt, SlideSAMLib.segment, SlideSAMLib.Session, SlideSAMLib.slide\n"
        "SlideSAMLib.Stack, SlideSAMLib.SlideSettings, SlideSAMLib.InputError\n"
        "heavy = {'torch', 'scipy', 'SimpleITK', 'slicer', 'vtk', 'qt'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_alone_does_not_even_need_numpy():
    done = _python("import sys, SlideSAMLib; sys.exit('numpy' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_public_names_are_there():
    for name in SlideSAMLib.__all__:
        if name != "load_model":  # needs torch; its own tests import it
            assert getattr(SlideSAMLib, name) is not None
    assert set(SlideSAMLib.__all__) <= set(dir(SlideSAMLib))
    with pytest.raises(AttributeError, match="no_such_name"):
        SlideSAMLib.no_such_name  # noqa: B018
    assert SlideSAMLib.__version__.count(".") == 2


def test_slide_is_a_generator_with_stops_for_its_value():
    volume, _ = block_volume()
    stack = SlideSAMLib.Stack(volume, window=(0, 100))
    slides = SlideSAMLib.slide(stack, [PROMPT], ThresholdModel())
    with pytest.raises(StopIteration) as end:
        while True:
            next(slides)
    assert end.value.value["forward"] == SlideSAMLib.Stop.NOTHING_LEFT


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"first": "a"}, "first slice must be a whole number"),
        ({"last": float("nan")}, "last slice must be a whole number"),
        ({"model": 5}, "must be loaded, or a name or a file"),
        ({"model": ThresholdModel}, "must be loaded, or a name or a file"),
    ],
)
def test_arguments_of_another_kind_are_refused(wrong, words):
    volume, _ = block_volume()
    with pytest.raises(InputError, match=words):
        segment(volume, PROMPT, **{"model": ThresholdModel(), **wrong})
    with pytest.raises(InputError, match="by its name or its file"):
        SlideSAMLib.load_model(None)
