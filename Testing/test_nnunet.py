"""nnU-Net folders: ignored voxels, regions, hidden files, TIFF files, and files elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib.errors import InputError
from SlideSAMLib.evaluation import evaluate
from SlideSAMLib.training.config import DatasetConfig
from SlideSAMLib.training.datasets import held_out_cases, labelled_case, read_dataset
from SlideSAMLib.training.sam_windows import cut_slab
from SlideSAMLib.training.slabs import cut
from Testing.cli_tools import write_image
from Testing.fakes import ThresholdModel

REGIONS = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
SPACING = (3.0, 1.0, 1.0)


def blocks() -> tuple[np.ndarray, np.ndarray]:
    """(image, labels): three blocks inside each other, of the labels 1, 2 and 3."""
    labels = np.zeros((16, 48, 52), np.uint8)
    labels[2:14, 6:42, 6:42] = 1
    labels[4:12, 12:36, 12:36] = 2
    labels[5:11, 18:30, 18:30] = 3
    return np.where(labels > 0, 100, 0).astype(np.int16), labels


def write_set(root: Path, names: dict, ending: str = ".nii.gz", **others) -> Path:
    """A data set of two such cases; `others` are further entries of dataset.json."""
    image, labels = blocks()
    if "ignore" in names:
        labels[:, :, :14] = names["ignore"]
    for n in range(2):
        for folder, name, array in (
            ("imagesTr", f"case_{n}_0000", image),
            ("labelsTr", f"case_{n}", labels),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_image(root / folder / f"{name}{ending}", array)
    content = {"labels": names, "file_ending": ending, **others}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def read(root: Path, **others):
    return read_dataset(DatasetConfig(str(root), **others))


def test_ignored_voxels_are_no_structure_and_are_not_labelled(tmp_path):
    names = {"background": 0, "oedema": 1, "core": 2, "enhancing": 3, "ignore": 4}
    dataset = read(write_set(tmp_path, names))
    assert dataset.unlabelled == 4
    volume = labelled_case(dataset.cases[0], dataset)
    assert volume.targets == [1, 2, 3]
    columns = np.indices(volume.labels.shape)[2]
    assert np.array_equal(volume.labels == volume.unlabelled, columns < 14)
    (case,) = held_out_cases([dataset], 0.5)
    assert {s.name for s in case.structures(0)} == {"oedema", "core", "enhancing"}
    assert not case.load().known[:, :, :14].any() and case.load().known[:, :, 14:].all()
    with pytest.raises(InputError, match="has no label ignore; it has: core, enhancing, oedema"):
        read(tmp_path, labels=("ignore",))
    with pytest.raises(InputError, match=r"label ignore, 4, .* leave out `unlabelled`"):
        read(tmp_path, unlabelled=255)
    assert read(tmp_path, unlabelled=4).unlabelled == 4


def test_regions_are_learnt_and_measured_under_their_names(tmp_path):
    dataset = read(write_set(tmp_path, REGIONS))
    values = {"whole tumour": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    (case,) = held_out_cases([dataset], 0.5)
    results = evaluate([case], ThresholdModel(), "box", "full")
    assert [r.structure for r in results] == list(values)
    assert results[0].dice == 1.0 and len({r.key for r in results}) == 3
    volume = labelled_case(dataset.cases[0], dataset)
    assert volume.grouped
    assert {tuple(group) for group in volume.groups} == set(values.values())
    _, labels = blocks()
    found = case.structures()
    assert [s.name for s in found] == list(values)
    for structure in found:
        truth = np.isin(labels, values[structure.name])
        assert structure.voxels == truth.sum()
        assert np.array_equal(case.truth(labels, structure), truth)


def test_slabs_of_regions_never_show_a_label_that_is_none(tmp_path):
    """Label 1 alone is a shell, and no structure of the data set."""
    dataset = read(write_set(tmp_path, REGIONS))
    volume = labelled_case(dataset.cases[0], dataset)
    rng = np.random.default_rng(0)
    for _ in range(20):
        for slab in (cut(volume, rng), cut_slab(volume, rng)):
            mask = np.asarray(slab.mask[1])
            assert ndimage.binary_fill_holes(mask).sum() == mask.sum()


def test_labels_beside_regions_keep_their_names(tmp_path):
    names = {"background": 0, "oedema": 1, "whole tumour": [1, 2, 3], "core": [2, 3]}
    (case,) = held_out_cases([read(write_set(tmp_path, names))], 0.5)
    assert {s.name for s in case.structures(0)} == {"oedema", "whole tumour", "core"}
    (whole,) = held_out_cases([read(tmp_path, labels=("whole tumour",))], 0.5)
    assert [s.name for s in whole.structures(0)] == ["whole tumour"]


def test_hidden_files_are_no_cases(tmp_path):
    root = write_set(tmp_path, {"background": 0, "liver": 1})
    for folder, name in (("labelsTr", "._case_0"), ("imagesTr", "._case_0_0000")):
        (root / folder / f"{name}.nii.gz").write_bytes(b"Mac OS X")
    assert [case.id for case in read(root).cases] == ["case_0", "case_1"]


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
@pytest.mark.parametrize("ending", [".tif", ".tiff"])
def test_the_spacing_of_tiff_files_lies_beside_them(tmp_path, folder, ending):
    root = write_set(tmp_path, {"background": 0, "liver": 1}, ending)
    for n in range(2):
        (root / folder / f"case_{n}.json").write_text(json.dumps({"spacing": SPACING}))
    dataset = read(root)
    content = dataset.cases[1].load()
    assert content.spacing == SPACING and content.axis == 0
    assert labelled_case(dataset.cases[1], dataset).spacing == SPACING
    assert np.array_equal(content.volume, blocks()[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"case_0_0000.tif does not say its spacing: write it into .*imagesTr.case_0.json"),
        ("{}", r"The spacing in .*case_0.json cannot be read"),
        ('{"spacing": [1, 2]}', "cannot be read"),
        ('{"spacing": [1, 0, 1]}', "three positive numbers"),
        ('{"spacing": [1, NaN, 1]}', "three positive numbers"),
    ],
)
def test_tiff_files_without_a_spacing_are_refused(tmp_path, text, message):
    root = write_set(tmp_path, {"background": 0, "liver": 1}, ".tif")
    if text is not None:
        (root / "imagesTr" / "case_0.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(root)


def listed(root: Path) -> dict:
    """The files of a data set as `dataset` lists them, moved out of its folders."""
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    found = {}
    for n in range(2):
        (root / "imagesTr" / f"case_{n}_0000.nii.gz").rename(elsewhere / f"scan{n}.nii.gz")
        (root / "labelsTr" / f"case_{n}.nii.gz").rename(elsewhere / f"drawn{n}.nii.gz")
        image = f"../elsewhere/scan{n}.nii.gz" if n else str(elsewhere / "scan0.nii.gz")
        found[f"patient {n}"] = {"images": [image], "label": f"$ELSEWHERE/drawn{n}.nii.gz"}
    return found


def test_files_may_lie_where_the_data_set_says(tmp_path, monkeypatch):
    root = write_set(tmp_path / "set", {"background": 0, "liver": 1})
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    content = json.loads((root / "dataset.json").read_text()) | {"dataset": listed(root)}
    (root / "dataset.json").write_text(json.dumps(content))
    dataset = read(root)
    assert [case.id for case in dataset.cases] == ["patient 0", "patient 1"]
    assert all(np.array_equal(case.load().labels, blocks()[1]) for case in dataset.cases)
    with pytest.raises(InputError, match=r"patient 0 .* has no image of the channel 1"):
        read(root, channel=1)
    (tmp_path / "elsewhere" / "drawn1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"patient 1 .* the file .*drawn1.nii.gz is missing"):
        read(root)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "has no cases in its `dataset`"),
        (["x"], "must give each case its `images`"),
        ({"x": {"label": "x.nii.gz"}}, "must give each case its `images`"),
        ({"x": {"images": "x.nii.gz", "label": "x.nii.gz"}}, "must give each case its `images`"),
    ],
)
def test_a_list_of_files_that_is_none_is_refused(tmp_path, found, message):
    with pytest.raises(InputError, match=message):
        read(write_set(tmp_path, {"background": 0, "liver": 1}, dataset=found))


@pytest.mark.parametrize("ending", ["**", "/../../x.nii.gz", "[.nii"])
def test_an_ending_that_is_none_is_refused(tmp_path, ending):
    root = write_set(tmp_path, {"background": 0, "liver": 1})
    content = json.loads((root / "dataset.json").read_text()) | {"file_ending": ending}
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is no ending of a name"):
        read(root)


def test_a_tiff_file_may_say_its_spacing_itself(tmp_path):
    root = write_set(tmp_path, {"background": 0, "liver": 1}, ".tif")
    image, labels = blocks()
    text = "ImageJ=1.54\nimages=16\nslices=16\nunit=mm\nspacing=3.0\n"
    for n in range(2):
        for path, array in (
            (root / "imagesTr" / f"case_{n}_0000.tif", image.astype(np.uint8)),
            (root / "labelsTr" / f"case_{n}.tif", labels),
        ):
            pages = [Image.fromarray(page) for page in array]
            pages[0].save(path, save_all=True, append_images=pages[1:], description=text)
    assert read(root).cases[0].load().spacing[0] == 3.0
