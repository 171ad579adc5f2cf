"""The intensity window in which a model sees what is prompted."""

import numpy as np
import pytest
from scipy import ndimage

from SlideSAMLib.api import segment
from SlideSAMLib.errors import InputError
from SlideSAMLib.intensity import CT_WINDOW, automatic_window, widened_window
from SlideSAMLib.models import load_model
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.session import Session
from SlideSAMLib.sliding import seen as seen_module
from SlideSAMLib.sliding.seen import seen_stack
from SlideSAMLib.sliding.slide import Slider
from SlideSAMLib.stack import Stack
from Testing.fakes import ThresholdModel

LUNG, LESION, TISSUE = -850, -600, 40
BOX = (38, 32, 56, 50)
MIDDLE = (47, 41)


def lung_volume() -> tuple[np.ndarray, np.ndarray]:
    """A lung in tissue, with a lesion of ground glass in it: int16 (K, J, I) and its mask."""
    k, j, i = np.ogrid[:24, :80, :96]
    rng = np.random.default_rng(0)
    volume = np.full((24, 80, 96), TISSUE) + rng.normal(0, 20, (24, 80, 96))
    lung = ((j - 40) / 34) ** 2 + ((i - 48) / 40) ** 2 < 1
    lesion = ((k - 12) / 8) ** 2 + ((j - 41) / 9) ** 2 + ((i - 47) / 9) ** 2 < 1
    volume += np.where(lung, LUNG - TISSUE, 0)
    volume += np.where(lesion, LESION - LUNG, 0)
    return volume.astype(np.int16), lesion


class CropModel(ThresholdModel):
    """Sees regions, and takes what is brighter than the lung; `windows` are those it has seen."""

    def __init__(self, region: str = "crop") -> None:
        super().__init__(threshold=(LUNG + LESION) / 2, margin=1, region=region)
        self.windows: set[tuple[float, float]] = set()

    def encode(self, windows):
        self.windows |= {window.intensity for window in windows}
        return super().encode(windows)


def seen(prompt: SlicePrompt, volume: np.ndarray | None = None) -> tuple[float, float]:
    stack = Stack(lung_volume()[0] if volume is None else volume)
    return seen_stack(stack, [prompt], CropModel()).intensity


@pytest.mark.parametrize(
    ("inside", "around", "wanted"),
    [
        (-600, -850, (-850, 400)),
        (-850, -600, (-850, 400)),
        (1900, 900, (-200, 1900)),
        (900, 50, (-200, 900)),  # its edge, at 475, would be seen too far outside
        (-850, 40, (-850, 400)),
        (600, 50, (-200, 400)),  # its edge is seen
        (-300, 40, (-200, 400)),
        (40, -850, (-850, 400)),  # it is seen, but too small
        (100, 1500, (-200, 1500)),
        (40, 60, (-200, 400)),
    ],
)
def test_a_window_is_widened_where_it_cuts_off_an_object_with_its_edge(inside, around, wanted):
    found = widened_window(CT_WINDOW, np.full(9, inside), np.full((3, 4), float(around)))
    assert found == wanted


@pytest.mark.parametrize(("hidden", "wanted"), [(-850, (-850, 400)), (1500, (-200, 1500))])
@pytest.mark.parametrize(("count", "widened"), [(80, True), (79, False)])
def test_what_is_seen_itself_needs_the_window_for_the_surroundings_that_are_seen_too(
    hidden, wanted, count, widened
):
    """As a cartilage between lung and muscle; a nodule has nothing but lung around it."""
    around = np.where(np.arange(100) < count, hidden, 60)
    found = widened_window(CT_WINDOW, np.full(9, 40), around)
    assert found == (wanted if widened else CT_WINDOW)


def test_a_wider_window_holds_most_greys_and_no_more():
    greys = np.append(np.linspace(-1000, -500, 999), -1e9)
    low, high = widened_window(CT_WINDOW, greys, greys)
    assert high == CT_WINDOW[1] and -1000 < low < -980
    assert widened_window(CT_WINDOW, np.array([np.nan, -600]), np.full(3, -850.0))[0] == -850
    assert widened_window(CT_WINDOW, np.full(3, np.nan), greys) == CT_WINDOW
    assert widened_window(CT_WINDOW, np.full(3, -900.0), np.full(3, -785.0), 0.2) == CT_WINDOW
    assert widened_window(CT_WINDOW, np.full(3, -900.0), np.full(3, -775.0), 0.2)[0] == -900


def looked_at(monkeypatch, prompt: SlicePrompt, shape=(40, 70)) -> list[set[tuple[int, int]]]:
    """The voxels (column, row) of a slice that count as the object, and as its surroundings."""
    found = []

    def noted(window, *parts):
        found[:] = ({divmod(int(grey), 1000) for grey in part.ravel()} for part in parts[:2])
        return window

    monkeypatch.setattr(seen_module, "widened_window", noted)
    rows, columns = np.indices(shape)
    plane = (1000 * columns + rows).astype(np.int32)
    seen(prompt, np.stack([plane, 0 * plane]))
    return found


@pytest.mark.parametrize("way", ["box", "mask"])
def test_the_middle_of_a_box_is_compared_with_what_lies_around_it(monkeypatch, way):
    mask = np.zeros((40, 70), bool)
    mask[10:13, 40:50] = True  # 3 rows of 10 columns
    prompt = SlicePrompt(0, box=(40, 10, 49, 12)) if way == "box" else SlicePrompt(0, mask=mask)
    inside, around = looked_at(monkeypatch, prompt)
    assert {(x, 11) for x in range(41, 49)} == {(x, y) for x, y in inside if y == 11}
    assert {(x, 10) for x in range(44, 46)} == {(x, y) for x, y in inside if y == 10}
    reached = {(x, y) for x in range(36, 54) for y in range(9, 14)}
    assert around == reached - {(x, y) for x in range(40, 50) for y in range(10, 13)}
    assert inside < reached - around


def test_a_box_beyond_the_rim_of_the_slice_counts_as_far_as_it_goes(monkeypatch):
    inside, around = looked_at(monkeypatch, SlicePrompt(0, box=(60, 35, 90, 90)))
    cut = looked_at(monkeypatch, SlicePrompt(0, box=(60, 35, 69, 39)))
    assert [inside, around] == cut and (64, 37) in inside
    assert {x for x, _ in around} == set(range(56, 70)) and {y for _, y in around} >= {39, 34}


@pytest.mark.parametrize("point", [(0, 0), (69, 39), (-0.5, 39.5), (30, 12)])
def test_a_point_is_compared_with_all_about_it(monkeypatch, point):
    labels = [0, 1, 1]  # the first one on the object says where it is
    prompt = SlicePrompt(0, points=[(50, 30), point, (10, 30)], labels=labels)
    inside, around = looked_at(monkeypatch, prompt)
    x, y = point
    every = [(u, v, max(abs(u - x), abs(v - y))) for u in range(70) for v in range(40)]
    assert inside == {(u, v) for u, v, away in every if away < 1.5}
    assert around == {(u, v) for u, v, away in every if away <= 24}


@pytest.mark.parametrize("sides", [(200, 100), (2000, 1000)])
def test_of_what_is_large_only_some_is_looked_at(monkeypatch, sides):
    """Evenly over all of it, and enough of it."""
    width, height = sides
    prompt = SlicePrompt(0, box=(0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height))
    parts = looked_at(monkeypatch, prompt, (height, width))
    columns, rows = (sorted({place[n] for part in parts for place in part}) for n in (0, 1))
    for places, side in ((columns, width), (rows, height)):
        assert np.ptp(places) >= 0.83 * side and len(places) <= 257
        assert len(places) >= min(0.8 * side, 128) and len(set(np.diff(places))) == 1


def test_ground_glass_in_a_lung_is_found():
    """In the window of CT it is as black as the lung."""
    volume, lesion = lung_volume()
    model = load_model("builtin", "cpu", "float32")
    assert automatic_window(volume) == CT_WINDOW
    for prompt in (SlicePrompt(12, box=BOX), SlicePrompt(12, points=[MIDDLE])):
        result = segment(volume, prompt, model=model)
        dice = 2 * (result.mask & lesion).sum() / (result.mask.sum() + lesion.sum())
        assert dice > 0.9
        assert result.intensity[0] < LUNG and result.intensity[1] == CT_WINDOW[1]
        told = segment(volume, prompt, model=model, window=result.intensity)
        assert np.array_equal(told.mask, result.mask)  # what is told is what was used


def test_a_nodule_in_a_lung_has_its_size():
    """In the window of CT its edge is seen too far inside."""
    volume, nodule = lung_volume()
    rng = np.random.default_rng(1)
    soft = ndimage.gaussian_filter(np.where(nodule, TISSUE, LUNG).astype(float), 1.0)
    near = ndimage.binary_dilation(nodule, iterations=6)
    volume = np.where(near, soft + rng.normal(0, 20, volume.shape), volume).astype(np.int16)
    model = load_model("builtin", "cpu", "float32")
    result = segment(volume, SlicePrompt(12, box=BOX), model=model)
    assert result.intensity[0] < LUNG
    assert result.mask.sum() == pytest.approx(nodule.sum(), rel=0.05)


def test_what_the_window_shows_leaves_it_alone():
    """Tissue beside a lung, and a point in the lung itself, which need not mean its texture."""
    assert seen(SlicePrompt(12, box=(0, 0, 12, 12))) == CT_WINDOW
    assert seen(SlicePrompt(12, points=[(4, 4)])) == CT_WINDOW
    assert seen(SlicePrompt(2, points=[(48, 40)])) == CT_WINDOW
    assert seen(SlicePrompt(12, box=BOX)) != CT_WINDOW
    assert seen(SlicePrompt(12, points=[MIDDLE])) != CT_WINDOW
    assert seen(SlicePrompt(12, points=[(4, 4), MIDDLE], labels=[0, 1])) != CT_WINDOW


@pytest.mark.parametrize(("grey", "widened"), [(LUNG - 100, True), (LUNG - 70, False)])
def test_a_point_in_emphysema_is_no_point_in_the_lung(grey, widened):
    volume, lesion = lung_volume()
    volume[lesion] = grey
    assert (seen(SlicePrompt(12, points=[MIDDLE]), volume) != CT_WINDOW) == widened


def test_a_slice_that_was_corrected_is_seen_as_its_points_were():
    """The mask that it has then came from them."""
    point = (20, 40)
    assert seen(SlicePrompt(12, points=[point])) == CT_WINDOW
    mask = lung_volume()[0][12] < -400
    assert seen(SlicePrompt(12, points=[point, (90, 2)], labels=[1, 0], mask=mask)) == CT_WINDOW
    assert seen(SlicePrompt(12, mask=mask)) != CT_WINDOW


def test_what_is_too_dark_and_what_is_too_bright_are_seen_together():
    volume = lung_volume()[0]
    volume[:4, 30:50, 30:50], volume[:4, 36:44, 36:44] = 900, 1900
    dark, bright = SlicePrompt(12, box=BOX), SlicePrompt(2, box=(36, 36, 43, 43))
    assert seen(bright, volume) == (CT_WINDOW[0], 1900)
    stack = Stack(volume)
    assert seen_stack(stack, [dark, bright], CropModel()).intensity == (seen(dark, volume)[0], 1900)


def test_a_mask_alone_is_a_prompt_like_its_box():
    volume, lesion = lung_volume()
    prompt = SlicePrompt(12, mask=lesion[12])
    rows, columns = np.nonzero(lesion[12])
    box = SlicePrompt(12, box=(columns.min(), rows.min(), columns.max(), rows.max()))
    assert seen(prompt, volume) == seen(box, volume) != CT_WINDOW


def test_prompts_that_were_saved_are_seen_as_before():
    """The first one counts, and a correction of another slice does not, wherever that lies."""
    stack, model = Stack(lung_volume()[0]), CropModel()
    session, again = Session(stack, model), Session(stack, model)
    session.set_prompt(SlicePrompt(18, points=[(20, 40)]))  # the lung: as one black
    mask = lung_volume()[0][8] < -400
    session.set_prompt(SlicePrompt(8, points=[(20, 20)], labels=[0], mask=mask))
    again.load_json(session.to_json())
    for each in (session, again):
        each.preview(18)
    assert model.windows == {CT_WINDOW}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_and_values_that_are_not_finite(axis):
    volume = np.moveaxis(lung_volume()[0].astype(np.float32), 0, axis)
    volume[volume == volume.max()] = np.nan
    stack = Stack(volume, axis=axis)
    low, high = seen_stack(stack, [SlicePrompt(12, box=BOX)], CropModel()).intensity
    assert low < LUNG and high == CT_WINDOW[1]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float16])
def test_any_type_of_voxels(kind):
    lesion = lung_volume()[1].astype(kind)
    for prompt in (SlicePrompt(12, box=BOX), SlicePrompt(12, points=[MIDDLE])):
        assert seen(prompt, lesion) == (0, 1)


def test_a_window_that_somebody_chose_stays():
    volume = lung_volume()[0]
    result = segment(volume, SlicePrompt(12, box=BOX), model=CropModel(), window=CT_WINDOW)
    assert result.intensity == CT_WINDOW


def test_models_that_see_whole_slices_keep_what_they_made_of_them():
    stack, model = Stack(lung_volume()[0]), CropModel("slice")
    slider = Slider(stack, [SlicePrompt(12, box=BOX)], model)
    assert slider.stack.intensity == CT_WINDOW and slider.stack.key == stack.key


def test_the_order_of_prompts_does_not_matter_and_corrections_do_not_count():
    stack, model = Stack(lung_volume()[0]), CropModel()
    mask = np.zeros((80, 96), bool)
    mask[2:12, 2:12] = True
    tissue, lesion = SlicePrompt(10, box=(2, 2, 11, 11)), SlicePrompt(12, box=BOX)
    wide = seen_stack(stack, [lesion], model).intensity
    assert wide != CT_WINDOW
    assert seen_stack(stack, [tissue, lesion], model).intensity == wide
    assert seen_stack(stack, [lesion, tissue], model).intensity == wide
    correction = SlicePrompt(14, points=[MIDDLE], mask=mask)
    assert seen_stack(stack, [tissue, correction], model).intensity == CT_WINDOW
    for counts in (SlicePrompt(14, points=[MIDDLE]), SlicePrompt(14, box=BOX, mask=mask)):
        assert seen_stack(stack, [tissue, counts], model).intensity != CT_WINDOW
    settled = seen_stack(stack, [tissue], model)
    assert seen_stack(settled, [lesion], model) is settled


def test_a_session_sees_what_one_call_sees_and_corrects_in_the_same_window():
    volume, lesion = lung_volume()
    prompt, model = SlicePrompt(12, box=BOX), CropModel()
    session = Session(Stack(volume), model)
    session.set_prompt(prompt)
    preview = session.preview(12).masks[12]
    list(session.run())
    result = segment(volume, prompt, model=CropModel())
    assert np.array_equal(session.mask, result.mask)
    assert np.array_equal(preview, result.mask[12])
    assert (result.mask & lesion).sum() > 0.9 * lesion.sum()
    list(session.correct(session.correction(14, [MIDDLE])))
    list(session.correct(session.correction(12, [(1, 1)], [0])))
    list(session.correct(session.correction(14, [(2, 2)], [0])))
    assert model.windows == {result.intensity}
    assert session.stack.intensity == CT_WINDOW  # for the next object


def test_a_session_forgets_a_preview_in_another_window():
    session = Session(Stack(lung_volume()[0]), CropModel())
    session.set_prompt(SlicePrompt(10, box=(2, 2, 11, 11)))
    session.preview(10)
    session.preview(10)
    assert len(session.model.predicted) == 1
    session.set_prompt(SlicePrompt(12, box=BOX))
    session.preview(10)
    assert len(session.model.predicted) == 2 and len(session.model.windows) == 2


def test_greys_are_those_of_the_volume():
    stack = Stack(lung_volume()[0], axis=1)
    assert stack.greys(40).min() < -900
    with pytest.raises(InputError, match="outside the volume"):
        stack.greys(80)
