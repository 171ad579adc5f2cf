"""SAM networks behind the protocol of the sliding: preprocessing, coordinates, candidates."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from SlideSAMLib.errors import InputError
from SlideSAMLib.protocol import SliceModel, WindowPrompt, remembers
from SlideSAMLib.sam.encoding import PIXEL_MEAN, PIXEL_STD, prepare
from SlideSAMLib.sam.model import SamModel, load_sam
from SlideSAMLib.sam.network import empty_network
from SlideSAMLib.sam.prompts import box_to_frame, points_to_frame
from Testing.reference import (
    MINI,
    PROMPTS,
    relative_error,
    sam_window,
    values,
)

SIZE = MINI.image_size
BOX = WindowPrompt(box=(20.0, 30.0, 70.0, 75.0))


@pytest.fixture
def model(mini_file):
    return load_sam(mini_file, "cpu", "float32")


@pytest.fixture(scope="module")
def reference():
    return values("mini_model")


def _answering(model: SamModel, monkeypatch, logits: torch.Tensor, quality: list) -> dict:
    """Let the network answer this; returns what it is asked, filled at each call."""
    asked: dict = {}

    def decode(embedding, points=None, boxes=None, masks=None):
        asked.update(points=points, boxes=boxes, masks=masks)
        return logits[None], torch.tensor([quality])

    monkeypatch.setattr(model._network, "decode", decode)
    return asked


# The whole way, against the published figures


def _voxel_prompt(prompt: dict, height: int, width: int, masks=None) -> WindowPrompt:
    """The prompt of the reference (pixels of the S x S frame) in voxels of the slice."""
    scale = np.array([width / SIZE, height / SIZE])
    box = None
    if "boxes" in prompt:
        first, last = np.array(prompt["boxes"][:2]), np.array(prompt["boxes"][2:])
        box = (*(first * scale), *((last + 1) * scale - 1))
    points = (np.array(prompt.get("points", [])).reshape(-1, 2) + 0.5) * scale - 0.5
    return WindowPrompt(box, tuple(map(tuple, points)), tuple(prompt.get("labels", ())))


@pytest.mark.parametrize("name", ["box", "point", "points", "box_points"])
def test_reproduces_the_published_predictor(model, reference, name):
    """Voxel prompts on the original slices give the published logits, best candidate first.

    But for the rounding of the embedding that is kept, 1 in 2048.
    """
    height, width = reference["window"].shape[1:]
    [embedding] = model.encode([sam_window(reference["window"])])
    prediction = model.predict(embedding, _voxel_prompt(PROMPTS[name], height, width))
    order = np.argsort(-reference[f"{name}.multi.iou"], kind="stable")
    low = torch.from_numpy(reference[f"{name}.multi.low_res"]).unflatten(0, (3, 3))[order]
    full = F.interpolate(low, (height, width), mode="bilinear", align_corners=False)
    assert prediction.logits.shape == (3, 3, height, width)
    assert prediction.corner == (0, 0) and prediction.shape == (height, width)
    assert relative_error(prediction.logits, full.numpy()) < 4e-4
    expected = np.clip(reference[f"{name}.multi.iou"][order], 0, 1)
    assert np.allclose(prediction.quality, expected, atol=1e-4)


def test_is_a_slice_model(model):
    assert isinstance(model, SliceModel)
    traits = model.traits
    assert traits.prompts == {"box", "point"} and traits.candidates == 3
    assert (traits.region, traits.resize, traits.input_size) == ("slice", "nearest", SIZE)
    assert (model.device, model.precision) == ("cpu", "float32")


def test_nothing_is_remembered(model, reference):
    [embedding] = model.encode([sam_window(reference["window"])])
    assert model.remember(embedding, np.ones((96, 112), bool)) is None
    assert not remembers(model)


# Encoding


def test_a_batch_encodes_as_single_windows(model, reference):
    windows = [sam_window(reference["window"]), sam_window(reference["window"][::-1, ::2, 5:], 1)]
    together = model.encode(windows)
    assert [e.shape for e in together] == [(96, 112), (48, 107)]
    for embedding, window in zip(together, windows, strict=True):
        [alone] = model.encode([window])
        assert torch.allclose(embedding.tensor, alone.tensor, atol=2e-3)
    assert model.encode([]) == []


def test_an_embedding_owns_only_its_memory(model, reference):
    """A cache that drops one window of a batch frees its memory."""
    first, second = model.encode([sam_window(reference["window"])] * 2)
    assert first.nbytes == 64 * 8 * 8 * 2
    assert first.tensor.untyped_storage().nbytes() == first.nbytes
    assert first.tensor.data_ptr() != second.tensor.data_ptr()


@pytest.mark.parametrize(("precision", "limit"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision(mini_file, reference, precision, limit):
    model = load_sam(mini_file, "cpu", precision)
    assert model.precision == precision
    [embedding] = model.encode([sam_window(reference["window"])])
    assert embedding.nbytes == 64 * 8 * 8 * 2
    assert relative_error(embedding.tensor.float(), reference["embedding"]) < limit
    prediction = model.predict(embedding, BOX)
    assert np.asarray(prediction.logits).dtype == prediction.quality.dtype == np.float32
    assert np.isfinite(prediction.logits).all()


def test_embeddings_are_kept_in_half_precision_whatever_their_size(model, reference, monkeypatch):
    out = torch.tensor([1e6, -1e6, 1 / 3]).view(1, 3, 1, 1)
    monkeypatch.setattr(model._encoder, "_encode", lambda images: out)
    [embedding] = model.encode([sam_window(reference["window"])])
    assert embedding.tensor.dtype == torch.float16
    assert embedding.tensor.flatten().tolist() == [65504.0, -65504.0, pytest.approx(1 / 3, 1e-3)]


def test_scaling_over_the_three_slices():
    slices = np.stack([np.full((4, 4), v, np.float32) for v in (-100, 0, 100)])
    slices[0, 0, 0] = -200
    (image,) = prepare(torch.from_numpy(slices)[None], 8, "nearest", "sam")
    grey = image * torch.tensor(PIXEL_STD)[:, None, None] + torch.tensor(PIXEL_MEAN)[:, None, None]
    expected = np.kron((slices + 200) / 300 * 255, np.ones((1, 2, 2)))
    assert np.allclose(grey, expected, atol=1e-3)
    unit = prepare(torch.from_numpy(slices)[None], 8, "antialias", "unit")
    assert float(unit.min()) == 0 and float(unit.max()) == 1


def test_nearest_keeps_values_and_ignores_the_aspect():
    slices = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2)
    image = prepare(torch.from_numpy(slices)[None], 8, "nearest", "unit")[0] * 23
    assert np.allclose(image, slices.repeat(2, axis=1).repeat(4, axis=2), atol=1e-4)


@pytest.mark.parametrize("scaling", ["sam", "unit"])
def test_a_constant_window_is_finite(scaling):
    (image,) = prepare(torch.full((1, 3, 5, 7), 40.0), 16, "nearest", scaling)
    assert torch.isfinite(image).all() and all(float(c.std()) == 0 for c in image)


# Coordinates


@pytest.mark.parametrize("shape", [(32, 64), (128, 16)])
def test_a_box_is_the_box_of_the_stretched_mask(shape):
    height, width = shape
    mask = np.zeros(shape, np.float32)
    mask[5:12, 3:10] = 1
    stretched = F.interpolate(torch.from_numpy(mask)[None, None], (128, 128), mode="nearest")
    rows, columns = np.nonzero(stretched[0, 0].numpy())
    expected = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert np.allclose(box_to_frame((3, 5, 9, 11), height, width, 128), expected)


def test_a_point_is_the_centre_of_the_stretched_voxel():
    mask = np.zeros((32, 64), np.float32)
    mask[20, 7] = 1
    stretched = F.interpolate(torch.from_numpy(mask)[None, None], (128, 128), mode="nearest")
    rows, columns = np.nonzero(stretched[0, 0].numpy())
    expected = [columns.mean(), rows.mean()]
    assert np.allclose(points_to_frame(np.array([[7, 20]]), 32, 64, 128), [expected])


def test_a_narrow_box_is_never_inverted():
    x0, y0, x1, y1 = box_to_frame((700.0, 700.0, 700.5, 701.0), 1024, 1024, 128)
    assert x1 >= x0 and y1 >= y0


def test_answers_lie_where_the_network_put_them(model, reference, monkeypatch):
    """A rectangle in the network's output covers the same part of the slice, on its slice."""
    logits = torch.full((4, 3, 32, 32), -8.0)
    logits[1, 2, 8:16, 4:24] = 8.0  # token 1, the slice after
    _answering(model, monkeypatch, logits, [0.1, 0.9, 0.3, 0.2])
    [embedding] = model.encode([sam_window(np.zeros((3, 64, 128), np.float32))])
    full = model.predict(embedding, BOX).full(0)
    expected = np.zeros((3, 64, 128), bool)
    expected[2, 16:32, 16:96] = True
    differing = np.argwhere((full > 0) != expected)
    corners = {(2, y, x) for y in (16, 31) for x in (16, 95)}  # rounded by the interpolation
    assert {tuple(voxel) for voxel in differing.tolist()} == corners


def test_small_slices_are_not_aliased(model, monkeypatch):
    """Where the slice is smaller than the output, every output pixel counts."""
    logits = torch.full((4, 3, 32, 32), -8.0)
    logits[:, :, ::2] = 8.0  # lines that vanish or fill everything if rows are just picked
    _answering(model, monkeypatch, logits, [0.5] * 4)
    [embedding] = model.encode([sam_window(np.zeros((3, 8, 8), np.float32))])
    assert np.abs(model.predict(embedding, BOX).logits).max() < 2


# Prompts


def test_what_the_network_is_asked(model, monkeypatch):
    asked = _answering(model, monkeypatch, torch.zeros(4, 3, 32, 32), [0.5] * 4)
    [embedding] = model.encode([sam_window(np.zeros((3, 64, 128), np.float32))])
    prompt = WindowPrompt((10.0, 20.0, 29.0, 39.0), ((0.0, 0.0), (127.0, 63.0)), (1, 0))
    model.predict(embedding, prompt)
    coordinates, labels = asked["points"]
    assert coordinates.tolist() == [[[0.0, 0.5], [127.0, 126.5]]]
    assert labels.tolist() == [[1.0, 0.0]]
    assert asked["boxes"].tolist() == [[10.0, 40.0, 29.0, 79.0]]
    assert asked["masks"] is None


def test_mask_prompts_are_logits_and_unknown_slices_are_undecided(model, monkeypatch):
    asked = _answering(model, monkeypatch, torch.zeros(4, 3, 32, 32), [0.5] * 4)
    [embedding] = model.encode([sam_window(np.zeros((3, 64, 128), np.float32))])
    masks = np.zeros((3, 64, 128), np.float32)
    masks[:, :32] = 1
    masks[1] *= 0.5
    model.predict(embedding, WindowPrompt(masks=masks, known=(True, True, False)))
    given = asked["masks"]
    assert given.shape == (1, 3, 32, 32)
    assert torch.allclose(given[0, 0, :15], torch.tensor(9.21), atol=0.01)
    assert torch.allclose(given[0, 0, 17:], torch.tensor(-9.21), atol=0.01)
    assert torch.allclose(given[0, 1, :15], torch.tensor(0.0), atol=1e-5)
    assert (given[0, 2] == 0).all()
    assert asked["boxes"] is None and asked["points"] is None


@pytest.mark.parametrize("kind", ["sam", "slide-sam", "medsam"])
def test_several_windows_are_answered_like_each_alone(mini_file, reference, monkeypatch, kind):
    """Prompts of one kind are one batch, whatever lies between them."""
    model = load_sam(mini_file, "cpu", "float32", kind=kind)
    large, small = reference["window"], reference["window"][:, :40, :56]
    one, two, three = model.encode(
        [sam_window(w, n) for n, w in enumerate((large, large[::-1], small))]
    )
    masks = np.random.default_rng(0).uniform(0, 1, large.shape).astype(np.float32)
    asked = [
        (one, BOX),
        (two, WindowPrompt(points=((30.0, 40.0),), labels=(1,))),
        (two, WindowPrompt(box=(10.0, 12.0, 50.0, 60.0))),
        (three, WindowPrompt(box=(10.0, 12.0, 30.0, 35.0))),
        (one, WindowPrompt(BOX.box, masks=masks, known=(True, True, False))),
        (one, WindowPrompt(points=((50.0, 20.0),), labels=(1,))),
        (two, WindowPrompt(BOX.box, masks=1 - masks, known=(False, True, True))),
    ]
    alone = [model.predict(*each) for each in asked]
    decode, sizes = model._network.decode, []

    def counted(images, *prompts):
        sizes.append(len(images))
        return decode(images, *prompts)

    monkeypatch.setattr(model._network, "decode", counted)
    together = model.predict_many(*zip(*asked, strict=True))
    assert sizes == [2, 2, 1, 2]
    assert model.predict_many([], []) == []
    for found, expected in zip(together, alone, strict=True):
        assert (found.corner, found.shape) == (expected.corner, expected.shape)
        assert relative_error(found.logits, expected.logits) < 1e-4
        assert np.allclose(found.quality, expected.quality, atol=1e-5)


def test_a_cpu_predicts_one_window_at_a_time(model, monkeypatch):
    """A finished mask does not wait until the next window is encoded."""
    assert model.prompts_at_once() == 1
    monkeypatch.setattr(model, "_device", torch.device("cuda"))
    assert model.prompts_at_once() > 1


def test_an_empty_prompt_is_refused(model):
    [embedding] = model.encode([sam_window(np.zeros((3, 16, 16), np.float32))])
    masks = np.ones((3, 16, 16), np.float32)
    for prompt in (WindowPrompt(), WindowPrompt(masks=masks)):
        with pytest.raises(InputError, match="no prompt"):
            model.predict(embedding, prompt)


ONE, TWO = ((30.0, 30.0),), ((30.0, 30.0), (50.0, 40.0))


@pytest.mark.parametrize(
    ("kind", "prompt", "tokens"),
    [
        ("slide-sam", BOX, [2, 3, 1]),
        ("slide-sam", WindowPrompt(points=ONE, labels=(1,)), [2, 3, 1]),
        ("sam", BOX, [0, 2, 3, 1]),
        ("sam", WindowPrompt(points=TWO, labels=(1, 0)), [0, 2, 3, 1]),
        ("sam", WindowPrompt(points=ONE, labels=(1,)), [2, 3, 1, 0]),
        ("medsam", BOX, [0]),
    ],
)
def test_order_of_the_candidates(mini_file, monkeypatch, kind, prompt, tokens):
    model = load_sam(mini_file, "cpu", "float32", kind=kind)
    logits = torch.arange(4.0)[:, None, None, None].expand(4, 3, 32, 32)
    _answering(model, monkeypatch, logits, [0.4, -0.2, 1.3, 0.6])
    [embedding] = model.encode([sam_window(np.zeros((3, 64, 64), np.float32))])
    prediction = model.predict(embedding, prompt)
    assert np.allclose(prediction.logits[:, 0, 0, 0], tokens, atol=1e-4)
    clipped = np.array([0.4, 0.0, 1.0, 0.6], np.float32)[tokens]
    assert np.allclose(prediction.quality, clipped)
    assert model.traits.candidates == len(tokens)


# Weights


def test_weights_do_not_depend_on_the_file(tmp_path, mini_file, reference):
    """Weights mapped from disk would change with the file."""
    path = tmp_path / "copy.pth"
    path.write_bytes(mini_file.read_bytes())
    model = load_sam(path, "cpu", "float32")
    path.write_bytes(bytes(path.stat().st_size))
    [embedding] = model.encode([sam_window(reference["window"])])
    assert relative_error(embedding.tensor, reference["embedding"]) < 4e-4


def test_construction_needs_no_weights_of_its_own():
    """Most of an empty network, its encoder, holds no memory until it is filled."""
    assert all(p.is_meta for p in empty_network(MINI).image_encoder.parameters())
