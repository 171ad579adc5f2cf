"""A volume seen along its slide axis."""

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.stack import Stack

VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.mark.parametrize(
    ("axis", "shape", "spacing"),
    [(0, (4, 5, 6), (3, 2, 1)), (1, (5, 4, 6), (2, 3, 1)), (2, (6, 4, 5), (1, 3, 2))],
)
def test_slices_are_those_of_take(axis, shape, spacing):
    stack = Stack(VOLUME, axis=axis, spacing=(3, 2, 1), window=(0, 119))
    assert (stack.slices, stack.height, stack.width) == stack.shape == shape
    assert stack.spacing == spacing
    assert stack.voxel_area == spacing[1] * spacing[2]
    for index in range(stack.slices):
        found = stack.slice(index)
        assert found.dtype == np.float32
        assert np.array_equal(found, VOLUME.take(index, axis))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_to_volume_is_the_way_back(axis):
    stack = Stack(VOLUME, axis=axis)
    stacked = stack.from_volume(VOLUME)
    assert stacked.shape == stack.shape
    assert stack.volume_shape == VOLUME.shape
    assert np.array_equal(stack.to_volume(stacked), VOLUME)


def test_windows_repeat_the_edge_slices():
    stack = Stack(VOLUME, window=(0, 119))
    assert np.array_equal(stack.window(0).slices, VOLUME[[0, 0, 1]])
    assert np.array_equal(stack.window(2).slices, VOLUME[[1, 2, 3]])
    assert np.array_equal(stack.window(3).slices, VOLUME[[2, 3, 3]])
    single = Stack(VOLUME[:1], window=(0, 119))
    assert np.array_equal(single.window(0).slices, VOLUME[[0, 0, 0]])
    window = stack.window(2)
    assert window.slices.dtype == np.float32
    assert window.intensity == (0, 119)
    assert window.spacing == (1, 1, 1)


def test_slices_are_clipped_and_finite():
    volume = VOLUME.astype(np.float64)
    volume[1, 2, 2:] = np.nan, 1e300, -np.inf, np.inf
    found = Stack(volume, window=(20, 60)).slice(1)
    assert found.dtype == np.float32
    assert found.min() == 20
    assert found.max() == 60
    assert list(found[2, 2:]) == [20, 60, 20, 20]
    volume[1, 2, 3] = 90
    half = Stack(volume.astype(np.float16), window=(20, 60)).slice(1)
    assert np.array_equal(half, found)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("nothing", [0, np.nan])
def test_a_few_lost_slices_between_others_are_shown_as_the_nearest(axis, nothing):
    stacked = np.random.default_rng(0).normal(size=(22, 5, 6))
    stacked[[0, 3, 7, 8, 11, 12, 13, 16, 17, 18, 19, 21]] = nothing
    stack = Stack(np.moveaxis(stacked, 0, axis), axis, window=(-5, 5))
    shown = {3: 2, 7: 6, 8: 9, 11: 10, 12: 10, 13: 14}
    for index in range(22):
        expected = np.nan_to_num(stacked[shown.get(index, index)], nan=-5.0).astype(np.float32)
        assert np.array_equal(stack.slice(index), expected)
        assert np.array_equal(stack.window(index).planes[1], expected)


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"),
    [
        (np.uint32, 4_000_000_000, 1),
        (np.int64, -(10**9), 1),
        (np.float64, 1e9, 1e-3),
        (np.float64, 1e6, 1),  # there are but 1000 values of float32 between
        (np.float64, 0, 1e200),
        (np.float64, -3e-200, 1e-200),
    ],
)
@pytest.mark.filterwarnings("error")
def test_values_that_float32_cannot_tell_apart(dtype, offset, scale):
    """They are shown as 0..1 of the window, and whoever gets them is told so."""
    volume = VOLUME.astype(dtype) * dtype(scale) + dtype(offset)
    stack = Stack(volume, window=(float(volume.min()), float(volume.max())))
    assert stack.intensity == (volume.min(), volume.max())
    assert stack.shown == stack.window(1).intensity == (0.0, 1.0)
    expected = VOLUME[1:4] / VOLUME.max()
    found = stack.window(2).slices
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(stack.slice(2), found[1])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_other_values_are_shown_as_they_are(dtype):
    stack = Stack(VOLUME.astype(dtype), window=(20, 60))
    assert stack.shown == stack.window(1).intensity == (20, 60)


def test_the_volume_is_neither_copied_nor_changed():
    volume = VOLUME.copy()
    volume.flags.writeable = False
    stack = Stack(volume, axis=2)
    stack.window(1)
    assert np.shares_memory(stack.from_volume(volume), volume)
    assert np.array_equal(volume, VOLUME)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int64, np.float16])
def test_any_real_type_will_do(dtype):
    volume = (VOLUME % 2).astype(dtype)
    assert Stack(volume, window=(0, 1)).slice(0).max() == 1.0


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (np.ones((4, 4)), "3D"),
        (np.ones((4, 4, 4, 3)), "3D"),
        (np.ones((0, 4, 4)), "empty"),
        (np.ones((4, 4, 4), complex), "real numbers"),
        (np.full((2, 2, 2), "a"), "real numbers"),
        (np.ones((4, 4, 4)), "constant"),
        (np.full((4, 4, 4), np.nan), "no finite voxel"),
        (np.full((4, 4, 4), np.inf), "no finite voxel"),
    ],
)
def test_unusable_volumes_are_refused(volume, words):
    with pytest.raises(InputError, match=words):
        Stack(volume)


@pytest.mark.parametrize(
    "fields",
    [
        {"axis": 3},
        {"axis": -1},
        {"axis": True},
        {"axis": "k"},
        {"spacing": (1, 1)},
        {"spacing": (1, 0, 1)},
        {"spacing": (1, np.nan, 1)},
        {"spacing": (1, np.inf, 1)},
        {"spacing": None},
        {"window": (5, 5)},
        {"window": (9, 5)},
        {"window": (0, np.inf)},
        {"window": (0, 1, 2)},
        {"window": 7},
    ],
)
def test_unusable_arguments_are_refused(fields):
    with pytest.raises(InputError):
        Stack(VOLUME, **fields)


def test_a_slice_outside_is_refused():
    for index in (-1, 4):
        with pytest.raises(InputError, match="0 to 3"):
            Stack(VOLUME).slice(index)


def test_keys_tell_apart_what_encodes_differently():
    named = [
        Stack(VOLUME, key="a"),
        Stack(VOLUME, key="b"),
        Stack(VOLUME, axis=1, key="a"),
        Stack(VOLUME, window=(0, 50), key="a"),
        Stack(VOLUME, spacing=(2, 1, 1), key="a"),
    ]
    assert len({stack.key for stack in named}) == len(named)
    assert Stack(VOLUME, key="a").key == named[0].key
    assert Stack(VOLUME).key != Stack(VOLUME).key
    unnamed = Stack(VOLUME).key
    assert Stack(VOLUME, key=unnamed[1]).key != unnamed
    assert named[0].window(1).key != named[0].window(2).key
    assert named[0].window(1).key != named[3].window(1).key


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float16, np.float32, np.int64])
def test_windows_that_overlap_are_those_of_each_centre(dtype):
    volume = np.random.default_rng(0).integers(0, 90, (7, 5, 6)).astype(dtype)
    stack = Stack(volume, window=(10, 60))
    centres = [3, 0, 6, 4]
    for window, centre in zip(stack.windows(centres), centres, strict=True):
        around = [max(centre - 1, 0), centre, min(centre + 1, 6)]
        expected = np.clip(volume[around].astype(np.float32), 10, 60)
        assert window.slices.dtype == np.float32 and np.array_equal(window.slices, expected)
        assert window.key[-1] == centre
    with pytest.raises(InputError, match="Slice 7 is outside"):
        stack.windows([3, 7])


def test_windows_read_their_slices_once_and_only_when_asked(monkeypatch):
    read = []
    original = Stack._read
    monkeypatch.setattr(Stack, "_read", lambda s, i, out: read.append(i) or original(s, i, out))
    stack = Stack(VOLUME)
    one, two, edge = stack.windows([1, 2, 3])
    assert read == []
    assert np.array_equal(two.planes[0], one.planes[1]) and read == [1]
    assert one.slices.shape == two.slices.shape == edge.slices.shape == (3, 5, 6)
    assert sorted(read) == [0, 1, 2, 3]
    assert np.shares_memory(one.slices, two.slices)


def test_a_copy_of_a_window_can_be_written_to():
    one, two = Stack(VOLUME, window=(0, 119)).windows([1, 2])
    np.array(one.planes)[...] = -1
    assert np.array_equal(two.slices, VOLUME[1:4])
    assert np.asarray(one.planes, np.float64).dtype == np.float64


def test_keys_of_slices_are_those_of_their_voxels():
    stack = Stack(VOLUME, key="a")
    assert stack.window(1).slice_keys[1:] == stack.window(2).slice_keys[:2]
    assert len(set(stack.window(1).slice_keys)) == 3
    assert stack.window(0).slice_keys[0] == stack.window(0).slice_keys[1]
    others = [Stack(VOLUME, key="b"), Stack(VOLUME, key="a", axis=1), Stack(VOLUME)]
    assert all(not set(s.window(1).slice_keys) & set(stack.window(1).slice_keys) for s in others)


@pytest.mark.parametrize("window", [(1000, 2000), (100, 200), (-50, 0), (-9, -5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_window_that_shows_nothing_is_refused(window, dtype):
    volume = np.zeros((4, 5, 6), dtype)
    volume[3, 4, 5] = 100
    with pytest.raises(InputError, match="lies outside all voxels"):
        Stack(volume, window=window)
    assert Stack(volume, window=(99, 2000)).intensity == (99, 2000)
    assert Stack(volume, window=(0, 100)).intensity == (0, 100)
    volume[3] = 100
    for each in (volume, volume[::-1]):  # no slice has both what is above and what is below it
        assert Stack(each, window=(40, 60)).intensity == (40, 60)
