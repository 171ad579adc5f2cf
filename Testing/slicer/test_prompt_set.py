"""The prompts of a segment: which of them count where, and what their text keeps."""

import json

import numpy as np
import pytest
from SlideSAMBridge.scene.lattice import Lattice, covered_part
from SlideSAMBridge.scene.prompt_set import Mark, PromptSet, from_json, slice_prompt

pytestmark = pytest.mark.slicer
ALONG_I, ALONG_J, ALONG_K = range(3)
# 10 x 8 x 6 voxels, counted from (2, -1, 0), in a frame with other axes than RAS
FRAME = np.array([[-0.7, 0, 0, 5], [0, -0.7, 0, 3], [0, 0, 2.5, -8], [0, 0, 0, 1.0]])
GRID = Lattice((2, 11, -1, 6, 0, 5), FRAME, np.eye(4))


def point(axis, ijk, label=1):
    return Mark(axis, (tuple(GRID.local(ijk)),), label)


def box(axis, a, b):
    return Mark(axis, (tuple(GRID.local(a)), tuple(GRID.local(b))))


def drawn(axis, ijk, mask):
    return Mark(axis, (tuple(GRID.local(ijk)),), mask=mask)


def test_a_new_box_takes_the_place_of_the_one_on_its_slice():
    old, new = box(ALONG_K, (3, 0, 4), (6, 3, 4)), box(ALONG_K, (4, 1, 4), (9, 5, 4))
    others = (
        box(ALONG_K, (3, 0, 2), (6, 3, 2)),  # on another slice
        box(ALONG_J, (3, 4, 1), (6, 4, 4)),  # on the slice j = 4
        point(ALONG_K, (5, 2, 4)),
        drawn(ALONG_K, (2, -1, 4), np.ones((8, 10), bool)),
    )
    assert PromptSet((old, *others)).with_mark(new, GRID).marks == (*others, new)
    assert PromptSet((old, *others)).without(1).marks == (old, *others[1:])
    fuller = drawn(ALONG_K, (2, -1, 4), np.eye(8, 10, dtype=bool))  # and so does a mask
    assert PromptSet(others).with_mark(fuller, GRID).marks == (*others[:3], fuller)
    more = point(ALONG_K, (5, 2, 4))
    assert PromptSet(others).with_mark(more, GRID).marks == (*others, more)


@pytest.mark.parametrize(
    ("marks", "axis"),
    [
        ((), None),
        ((box(ALONG_J, (3, 4, 1), (6, 4, 4)), point(ALONG_K, (5, 2, 4))), ALONG_J),
        ((box(ALONG_J, (3, 4, 1), (6, 4, 4)), box(ALONG_I, (3, 1, 1), (3, 4, 4))), ALONG_I),
        (
            (point(ALONG_J, (5, 2, 4)), point(ALONG_K, (5, 2, 3)), point(ALONG_I, (3, 2, 4), 0)),
            ALONG_K,
        ),
        ((point(ALONG_J, (5, 2, 4), 0), point(ALONG_I, (3, 2, 4), 0)), ALONG_I),
    ],
    ids=["nothing", "box before point", "last box", "last point inside", "only outside"],
)
def test_the_slide_goes_along_what_was_marked_last_on_the_object(marks, axis):
    assert PromptSet(marks).slide_axis() == axis


def test_points_count_in_every_orientation_and_boxes_in_their_own():
    inside, outside = point(ALONG_I, (5, 2, 4)), point(ALONG_K, (9, 0, 1), 0)
    flat, upright = box(ALONG_K, (3, 0, 4), (6, 3, 4)), box(ALONG_J, (3, 6, 1), (6, 6, 4))
    far, beyond = point(ALONG_K, (12, 2, 4)), box(ALONG_K, (3, 0, 2), (12, 3, 2))  # i ends at 11
    prompts = PromptSet((inside, outside, flat, upright, far, beyond))
    assert prompts.on_slices(GRID, ALONG_K) == {1: [outside], 4: [inside, flat]}
    assert prompts.on_slices(GRID, ALONG_J) == {
        1: [outside],
        3: [inside],
        7: [upright],
    }  # from j = -1
    assert list(prompts.on_slices(GRID, ALONG_J)) == [3, 1, 7]  # as they were given


def test_the_prompt_of_a_slice_counts_columns_and_rows_from_its_start():
    whole = np.zeros((8, 10), bool)
    whole[2, 3] = True
    marks = [
        box(ALONG_K, (8, 0, 4), (4, 5, 4)),
        point(ALONG_I, (5, 2, 4)),
        point(ALONG_K, (2, 6, 4), 0),
        drawn(ALONG_K, (2, -1, 4), whole),
    ]
    prompt = slice_prompt(4, marks, GRID, ALONG_K)
    assert prompt.index == 4 and prompt.box == (2, 1, 6, 6)
    assert prompt.points == ((3, 3), (0, 7)) and prompt.labels == (1, 0)
    assert np.array_equal(prompt.mask, whole)
    others = (
        drawn(ALONG_K, (2, -1, 4), whole.T),  # of other geometries of the segmentation
        drawn(ALONG_K, (3, -1, 4), whole),
        drawn(ALONG_J, (2, 3, 0), np.ones((6, 10), bool)),  # of slices of another orientation
    )
    assert PromptSet(others).on_slices(GRID, ALONG_K) == PromptSet().on_slices(GRID, ALONG_K) == {}
    assert PromptSet(others).on_slices(GRID, ALONG_J) == {4: [others[2]]}


def test_marks_that_say_something_else_have_another_key():
    mask = np.eye(8, 10, dtype=bool)
    marks = [
        point(ALONG_K, (5, 2, 4)),
        point(ALONG_K, (5, 3, 4)),
        point(ALONG_K, (5, 2, 4), 0),
        point(ALONG_J, (5, 2, 4)),
        box(ALONG_K, (5, 2, 4), (6, 3, 4)),
        drawn(ALONG_K, (5, 2, 4), mask),
        drawn(ALONG_K, (5, 2, 4), ~mask),
    ]
    again = from_json(PromptSet(tuple(marks)).to_json(), GRID).marks
    assert len({mark.key for mark in marks}) == len({m.key for m in (*marks, *again)}) == 7
    slices = [marks[1].slice_index(GRID, axis) for axis in (None, ALONG_I, ALONG_J, ALONG_K)]
    assert slices == [4, 5, 3, 4]


def test_the_box_and_the_points_of_a_script_are_read():
    text = (
        '{"version":1,"axis":"K","points":[[5,2,4],[9,0,4]],"labels":[1,0],"box":[[3,0,4],[6,3,4]]}'
    )
    expected = (
        box(ALONG_K, (3, 0, 4), (6, 3, 4)),
        point(ALONG_K, (5, 2, 4)),
        point(ALONG_K, (9, 0, 4), 0),
    )
    assert [m.key for m in from_json(text, GRID).marks] == [m.key for m in expected]


def test_the_text_keeps_everything():
    mask = np.zeros((8, 10), bool)
    mask[2, 3:7] = True
    marks = (
        point(ALONG_I, (5, 2, 4), 0),
        box(ALONG_J, (3, 4, 1), (6, 4, 4)),
        drawn(ALONG_K, (2, -1, 4), mask),
    )
    found = from_json(PromptSet(marks).to_json(), GRID)
    assert [mark.key for mark in found.marks] == [mark.key for mark in marks]
    assert np.array_equal(found.marks[2].mask, mask)
    micrometres = Mark(ALONG_K, ((1.2345678912e-4, 0.0, 4321.0987654321),))
    (again,) = from_json(PromptSet((micrometres,)).to_json(), GRID).marks
    assert np.allclose(again.positions, micrometres.positions, rtol=1e-11, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"label": 2},
        {"point": [[1, 2, 3], [4, 5, 6]]},
        {"point": [[1, 2, float("nan")]]},
        {"point": [[1, 2]]},
        {"axis": "x"},
    ],
)
def test_text_that_says_something_else_is_refused(change):
    content = json.loads(PromptSet((point(ALONG_K, (5, 2, 4)),)).to_json())
    content["marks"][0].update(change)
    with pytest.raises(ValueError, match="saved prompts cannot be read"):
        from_json(json.dumps(content), GRID)
    with pytest.raises(ValueError, match="unknown version"):
        from_json('{"version": 3, "marks": []}', GRID)


def test_damaged_marks_of_a_script_are_refused_in_one_sentence():
    text = '{"version":1,"axis":"K","points":[[1,2]],"labels":[1]}'
    with pytest.raises(ValueError) as caught:
        from_json(text, GRID)
    assert str(caught.value).count("The saved prompts cannot be read") == 1


def marks_text(mark: str) -> str:
    return f'{{"version":2,"marks":[{mark}]}}'


def mask_text(shape: list[int], runs: list[int]) -> str:
    voxels = json.dumps({"shape": shape, "runs": runs})
    return marks_text(f'{{"axis":"K","mask":[[0,0,0]],"voxels":{voxels}}}')


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        marks_text('{"axis":"K"}'),
        marks_text('{"axis":"K","point":[[1' + "0" * 400 + ",0,0]]}"),
        marks_text('{"axis":"K","point":[[0,0,0]],"label":Infinity}'),
        '{"version":2,"marks":{"axis":"K"}}',
        '{"version":1,"axis":"K","points":[[Infinity,0,0]],"labels":[1]}',
        '{"version":1,"axis":"K","points":[[1,2,3]],"labels":[7]}',
        mask_text([1, 5], [10**40]),
        mask_text([1, 5], [2**63 - 1, 2**63 - 1, 7]),  # 5 in all, as sums of such numbers are made
        mask_text([2**20, 2**20], [2**40]),  # a terabyte
        mask_text([2**62, 4], [0]),
    ],
)
def test_prompts_of_a_foreign_scene_are_refused_whatever_they_say(text):
    with pytest.raises(ValueError, match="The saved prompts cannot be read"):
        from_json(text, GRID)


def test_a_segmentation_without_a_volume_is_told():
    """As a transform of a foreign scene can leave it."""
    flat = Lattice(GRID.extent, FRAME, np.diag([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="segmentation is squashed flat"):
        covered_part(flat, GRID)
